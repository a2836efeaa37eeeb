"""The writer of delivery status notifications."""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.interfaces import IContent, INotifications
from digipoort_msa.notification.original import Original
from digipoort_msa.notification.report import Author, report
from digipoort_msa.notification.status import News
from digipoort_msa.notification.templates import Texts
from digipoort_msa.smtp.envelope import Envelope, Fate

#: Of so many recipients one notification can tell, whatever their addresses and whatever was said: the
#: fields that RFC 3464 requires of one are at most 2,100 octets.  Of more it tells as well, as long as there
#: is room (5,000 of the usual kind); for those beyond it can only say how many they are.
MOST_FATES = 200
_MOST_READ = 256 * 1024  # octets of the message


@implementer(INotifications)
class Notifications:
    """The notifications of one realm.

    :param hostname: this server's name.
    :param texts: see :meth:`Texts.read`.
    :param tellable: is an envelope's reverse-path known to be its account's own?
    :param sender: the address in the From field; ``None``: MAILER-DAEMON at the hostname.
    :param contact: whom a reader may ask; ``None``: "the administrator of", and the hostname.
    :param full_size: octets up to which a message may come back whole; 262,144 at most.
    :raise ValueError: ``sender`` is no address that a From field can hold.
    """

    def __init__(
        self,
        hostname: str,
        texts: Texts,
        tellable: Callable[[Envelope], bool],
        *,
        sender: str | None = None,
        contact: str | None = None,
        full_size: int = 65_536,
    ) -> None:
        self._author = Author(hostname, texts, sender, contact)
        self._tellable = tellable
        self._full_size = min(full_size, _MOST_READ)

    def may_tell(self, envelope: Envelope) -> str | None:
        if envelope.reverse_path.is_null:
            return "the reverse-path is null"
        if not self._tellable(envelope):
            return (
                f"<{envelope.reverse_path}> is not known to be an address of the account {envelope.account}"
            )
        return None

    @inlineCallbacks
    def write(
        self,
        envelope: Envelope,
        content: IContent,
        fates: Sequence[Fate],
        queue_id: str,
        now: float,
        retry_until: float,
    ) -> Any:
        """Where the content cannot be read, the sender is told all the same, and gets none of it back."""
        try:
            original = yield _read(content)
        except Exception:  # noqa: BLE001 -- a file that is gone, damage: whatever it is, the news go out
            log.failure(log.DEFECT, Failure(), where=f"reading {envelope.queue_id} for a notification")
            original = Original(b"", complete=False)
        news = News(envelope, fates, queue_id, now, retry_until)
        return report(self._author, news, original, whole=content.size <= self._full_size)


@inlineCallbacks
def _read(content: IContent) -> Any:
    """The message's first octets."""
    segments, size = [], 0
    reader = content.open()
    try:
        while size < _MOST_READ:
            segment = yield reader.read()
            if not segment:
                break
            segments.append(segment)
            size += len(segment)
    finally:
        reader.close()
    return Original(b"".join(segments)[:_MOST_READ], complete=size == content.size <= _MOST_READ)
