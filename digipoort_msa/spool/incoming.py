"""A message on its way into the spool: small content in memory, larger content to a body file as it comes."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.interfaces import IIncoming
from digipoort_msa.smtp.envelope import Envelope, Path, RcptParameters
from digipoort_msa.spool.bodies import IncomingBody

Keep = Callable[[Envelope, int, bool, bytes | None, bytes | None], "Deferred[str]"]


@implementer(IIncoming)
class Incoming:
    """A message on its way in.

    :param small: octets of content that stay in memory until ``commit``.
    :param begin_body: gives the file for more than that.
    :param keep: makes it durable, of the envelope, the size, whether it is eight-bit, and its octets or the
        SHA-256 of its body file; fires with the content's location.
    :param not_kept: turns the failure of a body file into the one that the client's reply comes from.
    """

    def __init__(
        self,
        queue_id: str,
        small: int,
        begin_body: Callable[[str], IncomingBody],
        keep: Keep,
        not_kept: Callable[[Failure], Failure],
    ) -> None:
        self.queue_id = queue_id
        self.size = 0
        self.eight_bit = False
        self._small = small
        self._begin_body = begin_body
        self._keep = keep
        self._not_kept = not_kept
        self._octets = bytearray()  # as long as the content is small
        self._body: IncomingBody | None = None  # from then on
        self._spent = False

    def sender(self, envelope: Envelope) -> None:
        """The spool takes them all."""

    def recipient(self, path: Path, parameters: RcptParameters) -> None:
        """The spool takes them all."""

    def write(self, octets: bytes) -> "Deferred[None] | None":
        if self._spent:
            return None
        self.size += len(octets)
        self.eight_bit = self.eight_bit or not octets.isascii()
        if self._body is not None:
            return self._body.write(octets)
        self._octets += octets
        if self.size <= self._small:
            return None
        self._body = self._begin_body(self.queue_id)
        begun, self._octets = bytes(self._octets), bytearray()
        return self._body.write(begun)

    def commit(self, envelope: Envelope) -> "Deferred[str]":
        if self._spent:
            raise ValueError(f"{self.queue_id} has been committed or aborted")
        if envelope.queue_id != self.queue_id:
            raise ValueError(f"the envelope of {envelope.queue_id} was given to {self.queue_id}")
        self._spent = True
        if self._body is None:
            return self._keep(envelope, self.size, self.eight_bit, bytes(self._octets), None)
        return Deferred.fromCoroutine(self._commit_body(self._body, envelope)).addErrback(self._not_kept)

    async def _commit_body(self, body: IncomingBody, envelope: Envelope) -> str:
        digest = await body.keep()
        try:
            return await self._keep(envelope, self.size, self.eight_bit, None, digest)
        except BaseException:
            await body.discard().addErrback(self._left_behind)
            raise

    def abort(self) -> None:
        if not self._spent:
            self._spent = True
            self._octets.clear()
            if self._body is not None:
                self._body.discard().addErrback(self._left_behind)

    def _left_behind(self, failure: Failure) -> None:
        log.failure(log.DEFECT, failure, where=f"removing the body file of {self.queue_id}")
