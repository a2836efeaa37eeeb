"""The ``Received:`` field that goes in front of every message (RFC 5321 4.4, RFC 3848, RFC 6531 4.3)."""

from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from digipoort_msa.smtp.envelope import Envelope, Trace
from digipoort_msa.smtp.grammar import is_hostname


def received(trace: Trace, envelope: Envelope) -> bytes:
    """The one field that the MSA adds (M2).

    It shows nothing that was said in clear, nor the account.  A name of the client's that is no host name
    is not repeated.  The recipient is shown only where it is the only one, so that no recipient learns of
    another.
    """
    address = _address_literal(trace.client_address)
    name = trace.client_name if trace.client_name and is_hostname(trace.client_name) else address
    protocol = "UTF8SMTPSA" if envelope.parameters.smtputf8 else "ESMTPSA"
    lines = [f"Received: from {name} ({address})"]
    if trace.tls:
        lines.append(f"(using {trace.tls})")
    lines.append(f"by {trace.server_name} with {protocol} id {envelope.queue_id}")
    if len(envelope.recipients) == 1:
        lines.append(f"for <{envelope.recipients[0]}>")
    return ("\r\n\t".join(lines) + f";\r\n\t{rfc5322_date(envelope.received_at)}\r\n").encode()


def rfc5322_date(seconds: float) -> str:
    """A date-time of RFC 5322 3.3 in UTC; ``seconds`` since the epoch."""
    return _date(int(seconds))


@lru_cache(maxsize=16)  # messages come many a second
def _date(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))


def _address_literal(address: str) -> str:
    if address == "local":
        return "localhost"
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
