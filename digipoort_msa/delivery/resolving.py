"""The DNS for deliveries: MX, SRV and TLSA records, remembered for as long as they hold.

The questions are asked in threads of their own (``querying``).  Deliveries that ask the same wait for one
answer.  An answer holds for its TTL, within bounds.  Where the DNS fails, the last answer is kept and used
until it answers again; but not of TLSA records, where an answer of yesterday could forbid the certificate of
today, and none is never taken for "there are none" (RFC 7672 2.1.2).
"""

from collections import deque
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from digipoort_msa import log
from digipoort_msa.delivery.dane import TLSA
from digipoort_msa.delivery.records import Answer, ExchangerRecord, LookupFailed, ServiceRecord

_SHORTEST, _LONGEST = 30.0, 3600.0  # seconds that an answer holds, whatever its TTL
_MOST_KNOWN = 1_000  # answers
_MOST_ASKED = 64  # questions at once
_KEPT = frozenset({"MX", "SRV"})

Key = tuple[str, str]  # name and type


@define
class _Known:
    """What was last heard of a name and type."""

    answer: Answer[Any] | None  # the last one there was
    failure: str | None  # why there is no newer one
    asked: float  # seconds, by the reactor
    holds: float  # seconds


class Resolver:
    """Answers from the DNS.  Its threads start when first needed; :meth:`stop` ends them."""

    def __init__(
        self, reactor: Any, address: str | None = None, *, lifetime: float = 10.0, threads: int = 4
    ) -> None:
        """
        :param reactor: provides ``IReactorFromThreads`` and ``IReactorTime``.
        :param address: of the resolver, "127.0.0.1:53"; ``None`` goes by /etc/resolv.conf.
        :param lifetime: seconds for one look-up, with all its tries.
        :param threads: look-ups at once.
        :raise ValueError: the address is none, /etc/resolv.conf is of no use, or dnspython is missing.
        """
        try:
            from digipoort_msa.delivery.querying import Nameservers
        except ImportError as error:
            raise ValueError(
                "looking next hops up in the DNS needs dnspython: install digipoort-msa[dns]"
            ) from error
        self._nameservers = Nameservers(address, lifetime)
        self._reactor = reactor
        self._known: dict[Key, _Known] = {}
        self._asked: dict[Key, deque[Deferred[Answer[Any]]]] = {}  # under way, and who waits
        self._stopped: Deferred[None] | None = None
        self._pool = ThreadPool(minthreads=0, maxthreads=threads, name="dns")
        self._pool.start()

    def mx(self, domain: str) -> "Deferred[Answer[ExchangerRecord]]":
        """The MX records of a domain.

        :raise LookupFailed: (as the failure) the DNS does not answer.
        """
        return self._look_up(domain, "MX")

    def srv(self, service: str) -> "Deferred[Answer[ServiceRecord]]":
        """The SRV records of a service, such as ``_submission._tcp.example.nl``.

        :raise LookupFailed: (as the failure) the DNS does not answer.
        """
        return self._look_up(service, "SRV")

    def tlsa(self, host: str, port: int) -> "Deferred[Answer[TLSA]]":
        """The TLSA records of a TCP port (RFC 6698 3).

        :raise LookupFailed: (as the failure) the DNS does not answer: there may be such records.
        """
        return self._look_up(f"_{port}._tcp.{host}", "TLSA")

    def stop(self) -> "Deferred[None]":
        """Whoever waits gets :class:`LookupFailed` now.

        :return: fires when the threads have ended, which takes a look-up's lifetime at most.
        """
        if self._stopped is None:
            self._stopped = Deferred()
            for waiting in self._asked.values():
                self._tell(waiting, None, "the MSA is stopping")
            self._look_whether_stopped()
        return self._stopped

    def _look_up(self, name: str, kind: str) -> "Deferred[Answer[Any]]":
        key = (name.lower().rstrip("."), kind)
        known = self._known.get(key)
        if self._stopped is not None:
            return fail(LookupFailed("the MSA is stopping"))
        if known is not None and 0 <= self._reactor.seconds() - known.asked < known.holds:
            return _result(known)
        if key not in self._asked:
            if len(self._asked) >= _MOST_ASKED:
                return fail(LookupFailed(f"{_MOST_ASKED} other look-ups are under way"))
            self._asked[key] = deque()
            self._pool.callInThreadWithCallback(
                lambda success, result: self._reactor.callFromThread(self._done, key, success, result),
                self._ask,
                *key,
            )
        if known is not None and known.failure is not None and known.answer is not None:
            return succeed(known.answer)  # nobody waits each time for a DNS that is down
        waiting: Deferred[Answer[Any]] = Deferred(self._asked[key].remove)
        self._asked[key].append(waiting)
        return waiting

    def _ask(self, name: str, kind: str) -> tuple[Answer[Any], float]:
        """In a thread."""
        if self._stopped is not None:
            raise LookupFailed("the MSA is stopping")
        return self._nameservers.ask(name, kind)

    def _done(self, key: Key, success: bool, result: Any) -> None:
        waiting = self._asked.pop(key)
        if self._stopped is None:
            known = self._learn(key, success, result)
            self._tell(waiting, known.answer, known.failure or "")
        self._look_whether_stopped()

    def _learn(self, key: Key, success: bool, result: Any) -> _Known:
        before = self._known.pop(key, None)
        failed_before = before is not None and before.failure is not None
        now = self._reactor.seconds()
        if success:
            answer, ttl = result
            known = _Known(answer, None, now, min(max(ttl, _SHORTEST), _LONGEST))
            if failed_before:
                log.emit(log.LOOKUP_WORKS, name=key[0], type=key[1])
        else:
            kept = before.answer if before is not None and key[1] in _KEPT else None
            known = _Known(kept, _reason(result, key), now, _SHORTEST)
            if not failed_before:
                consequence = "there is none" if kept is None else "its last answer is used"
                log.emit(
                    log.LOOKUP_FAILED,
                    name=key[0],
                    type=key[1],
                    reason=known.failure,
                    consequence=consequence,
                )
        if len(self._known) >= _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[key] = known
        return known

    def _tell(self, waiting: "deque[Deferred[Answer[Any]]]", answer: Answer[Any] | None, reason: str) -> None:
        while waiting:
            if answer is not None:
                waiting.popleft().callback(answer)
            else:
                waiting.popleft().errback(LookupFailed(reason))

    def _look_whether_stopped(self) -> None:
        if self._stopped is not None and not self._asked and not self._stopped.called:
            self._pool.stop()
            self._stopped.callback(None)


def _result(known: _Known) -> "Deferred[Answer[Any]]":
    return fail(LookupFailed(known.failure)) if known.answer is None else succeed(known.answer)


def _reason(result: Failure, key: Key) -> str:
    if result.check(LookupFailed):
        return str(result.value)
    log.failure(log.DEFECT, result, where=f"looking up {key[0]} {key[1]}")
    return "an unexpected failure"
