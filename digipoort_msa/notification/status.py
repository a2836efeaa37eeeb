"""The part for machines: ``message/delivery-status`` (RFC 3464 2, RFC 6533 4)."""

import re
from collections.abc import Sequence

from attrs import frozen

from digipoort_msa.notification.fields import (
    address_line,
    ascii_words,
    envelope_id,
    field,
    original_recipient,
    typed_address,
)
from digipoort_msa.smtp.envelope import Action, Envelope, Fate
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.smtp.trace import rfc5322_date

#: How much is told of each recipient, from generous to what is required: octets of the reply.
_DIAGNOSTICS = (1024, 160, 0)
_LEFT_OUT = 60  # octets of the field that says how many are not named

_ENHANCED = re.compile(r"([245])\.[0-9]{1,3}\.[0-9]{1,3}")
_HOST_AND_PORT = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]{1,255})):[0-9]{1,5}")
_IPV4 = re.compile(r"[0-9.]+")


@frozen
class News:
    """What there is to tell: the arguments of ``INotifications.write`` but for the content."""

    envelope: Envelope
    fates: Sequence[Fate]
    queue_id: str  # the notification's own
    now: float
    retry_until: float

    @property
    def utf8(self) -> bool:
        """Does the notification travel with SMTPUTF8?  Only where its addressee cannot be reached without:
        one that is all ASCII passes every hop, the one that has just refused SMTPUTF8 among them."""
        return not self.envelope.reverse_path.is_ascii

    @property
    def failed(self) -> bool:
        return any(fate.action is Action.FAILED for fate in self.fates)


def delivery_status(news: News, hostname: str, most: int) -> bytes:
    """The whole part, without its MIME header.

    Every recipient is named.  Where they are many, less is told of each; where even that does not fit (see
    ``MOST_FATES``), a field of our own says how many are not named.

    :param most: octets.
    """
    head = _message_fields(news, hostname)
    for diagnostics in _DIAGNOSTICS:
        groups, size = [], len(head)
        for fate in news.fates:
            groups.append(b"\r\n" + _recipient_fields(news, fate, diagnostics))
            size += len(groups[-1])
            if size > most:
                break
        else:
            return b"".join((head, *groups))
    while size > most - _LEFT_OUT:
        size -= len(groups.pop())
    left_out = field("X-Digipoort-Recipients-Left-Out", str(len(news.fates) - len(groups)))
    return b"".join((head, left_out, *groups))


def _message_fields(news: News, hostname: str) -> bytes:
    """RFC 3464 2.2."""
    envelope = news.envelope
    envid = envelope.parameters.envid
    return b"".join(
        (
            field("Reporting-MTA", f"dns; {hostname}"),
            address_line("Original-Envelope-Id", envelope_id(envid)) if envid else b"",
            field("X-Digipoort-Queue-ID", ascii_words(envelope.queue_id, 100)),
            field("Arrival-Date", rfc5322_date(envelope.received_at)),
        )
    )


def _recipient_fields(news: News, fate: Fate, diagnostics: int) -> bytes:
    """RFC 3464 2.3; without ``diagnostics`` only the fields that it requires."""
    orcpt = news.envelope.parameters_of(fate.path).orcpt
    original = original_recipient(orcpt, utf8=news.utf8) if orcpt else None
    fields = [
        address_line("Original-Recipient", original) if original else b"",
        address_line("Final-Recipient", typed_address(fate.path, utf8=news.utf8)),
        field("Action", fate.action.value),
        field("Status", status(fate)),
    ]
    if diagnostics:
        fields.append(field("Remote-MTA", _remote_mta(fate.hop)))
        fields.append(field("Diagnostic-Code", _diagnostic_code(fate, diagnostics)))
        if fate.hop is not None:
            fields.append(field("Last-Attempt-Date", rfc5322_date(news.now)))
    if fate.action is Action.DELAYED:
        fields.append(field("Will-Retry-Until", rfc5322_date(news.retry_until)))
    return b"".join(fields)


def status(fate: Fate) -> str:
    """The status code (RFC 3463): the reply's own where its class goes with the action.

    A recipient that was given up after temporary refusals has failed with class 4: sending the message again
    may succeed (RFC 3463 3.1).  The code of the last refusal is told rather than 4.4.7, which says no more
    than that the time is up (RFC 3463 3.5); that is for a refusal without a code.
    """
    classes, otherwise = {
        Action.FAILED: ("45", "4.4.7" if fate.reply.transient else "5.0.0"),
        Action.DELAYED: ("4", "4.0.0"),
        Action.DELIVERED: ("2", "2.0.0"),
        Action.RELAYED: ("2", "2.0.0"),
    }[fate.action]
    match = _ENHANCED.fullmatch(fate.reply.enhanced or "")
    if match and match[1] in classes and int(match[1]) == fate.reply.code // 100:
        return match[0]
    return otherwise


def _remote_mta(hop: str | None) -> str:
    """A hop of the network by its name; a folder or a socket is no MTA."""
    match = _HOST_AND_PORT.fullmatch(hop or "")
    if match is None:
        return ""
    if match["ipv6"]:
        return f"dns; [IPv6:{match['ipv6'][:45]}]"
    return f"dns; [{match['name']}]" if _IPV4.fullmatch(match["name"]) else f"dns; {match['name']}"


def _diagnostic_code(fate: Fate, most: int) -> str:
    """``smtp`` is for what a hop has said; what we said ourselves has a type of its own (RFC 3464 2.1.2)."""
    kind = "smtp" if fate.hop is not None else "X-Digipoort-MSA"
    return f"{kind}; {ascii_words(said(fate.reply, most), most)}"


def said(reply: Reply, most: int) -> str:
    """A reply's words in one line; of a long one its first ``most`` characters, and some more."""
    said = [str(reply.code), reply.enhanced or ""]
    for line in reply.lines:
        if most < 0:
            break
        said.append(line[: most + 1])
        most -= len(line)
    return " ".join(filter(None, said))
