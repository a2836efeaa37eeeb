"""Questions to the DNS, as dnspython asks them: blocking, so for a thread.

Only this file needs dnspython.  UDP first, TCP where an answer was cut short; retried, over all nameservers,
until it has taken too long.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

import dns.exception
import dns.flags
import dns.name
import dns.resolver

from digipoort_msa.delivery.dane import TLSA
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.records import Answer, ExchangerRecord, LookupFailed, ServiceRecord

_MOST_RECORDS = 32  # of one answer; the best of them
_PATIENCE = 2.0  # seconds that one nameserver has for one try
_UDP = 1232  # octets of an answer that need no fragments
#: A name that a hop can have; what comes from the DNS may hold any octets, and look like an address.
_HOST = re.compile(r"(?=.{1,253}\Z)(?:[A-Za-z0-9_-]{1,63}\.)*(?![0-9]+\Z)[A-Za-z0-9_-]{1,63}", re.ASCII)


class Nameservers:
    """Where to ask; safe to use from several threads at once."""

    def __init__(self, address: str | None, lifetime: float) -> None:
        """
        :param address: "127.0.0.1:53" or "[::1]:53"; ``None`` goes by /etc/resolv.conf, which is
            read for each question.
        :param lifetime: seconds for one question.
        :raise ValueError: the address is none, or /etc/resolv.conf is of no use.
        """
        self._address: tuple[str, int] | None = None
        self._lifetime = lifetime
        if address is not None:
            try:
                hop = Hop.from_text(address)
                self._address = str(ip_address(hop.host)), hop.port
            except ValueError:
                raise ValueError(
                    f"{address!r} is no DNS resolver: write its IP address and port, such as 127.0.0.1:53"
                ) from None
        self._resolver()

    def ask(self, name: str, kind: str) -> tuple[Answer[Any], float]:
        """
        :param kind: "MX", "SRV" or "TLSA".
        :return: the answer, and for how many seconds it holds; the best records first.
        :raise LookupFailed: there is no answer.
        """
        try:
            return self._asked(dns.name.from_text(name), kind)
        except dns.exception.Timeout as error:
            raise LookupFailed(f"no answer within {self._lifetime:g} s") from error
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise LookupFailed(str(error) or type(error).__name__) from error

    def _asked(self, name: dns.name.Name, kind: str) -> tuple[Answer[Any], float]:
        try:
            found = self._resolver().resolve(
                name, kind, raise_on_no_answer=False, search=False, lifetime=self._lifetime
            )
        except dns.resolver.NXDOMAIN as error:
            response = error.response(name)
            return Answer((), _authenticated(response), exists=False), response.resolve_chaining().minimum_ttl
        records = tuple(filter(None, map(_READERS[kind], found)))
        if found.rrset and not records:
            raise LookupFailed("none of its records makes sense")
        answer = Answer(
            tuple(sorted(records, key=_preference))[:_MOST_RECORDS], _authenticated(found.response)
        )
        return answer, found.chaining_result.minimum_ttl

    def _resolver(self) -> dns.resolver.Resolver:
        try:
            resolver = dns.resolver.Resolver(configure=self._address is None)
        except dns.exception.DNSException as error:
            raise ValueError(f"no DNS resolver is known: {error}") from error
        if self._address is not None:
            resolver.nameservers, resolver.port = [self._address[0]], self._address[1]
        resolver.use_edns(0, 0, _UDP)
        resolver.flags = dns.flags.RD | dns.flags.AD  # we understand AD (RFC 6840 5.7)
        resolver.timeout = _PATIENCE
        return resolver


def _authenticated(response: Any) -> bool:
    return bool(response.flags & dns.flags.AD)


def _preference(record: Any) -> int:
    return getattr(record, "preference", getattr(record, "priority", 0))


def _host(name: dns.name.Name) -> str | None:
    text = name.to_text(omit_final_dot=True)
    return text if text == "." or _HOST.fullmatch(text) else None


def _exchanger(record: Any) -> ExchangerRecord | None:
    host = _host(record.exchange)
    return None if host is None else ExchangerRecord(record.preference, host)


def _server(record: Any) -> ServiceRecord | None:
    host = _host(record.target)
    if host is None or (not record.port and host != "."):
        return None
    return ServiceRecord(record.priority, record.weight, record.port, host)


def _tlsa(record: Any) -> TLSA:
    return TLSA(record.usage, record.selector, record.mtype, record.cert)


_READERS: Mapping[str, Callable[[Any], Any]] = {"MX": _exchanger, "SRV": _server, "TLSA": _tlsa}
