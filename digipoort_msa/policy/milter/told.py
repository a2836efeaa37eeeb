"""What a milter is told of a transaction, but for its content: the packets' data, and the macros beside them.

It is what Postfix tells, where that is known here and says something of a submission; the names of the
macros are Sendmail's.
"""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, ip_address

from digipoort_msa.identity import Identity
from digipoort_msa.policy.milter.packets import strings
from digipoort_msa.smtp.envelope import MailParameters, Path, Trace

_UNKNOWN, _IPV4, _IPV6 = b"U", b"4", b"6"
_PORT = b"\0\0"  # of the client; no milter goes by that


def connection(trace: Trace) -> tuple[bytes, Mapping[str, str]]:
    """Who is connected, and how.

    The client's name is the DNS's to give, which is not asked: it is "unknown", as Postfix has it.
    """
    address = trace.client_address.partition("%")[0]  # without the zone of a link-local one
    macros = {"j": trace.server_name, "{daemon_name}": trace.server_name}
    version, _, cipher = (trace.tls or "").partition(" ")
    if version and cipher:
        macros |= {"{tls_version}": version, "{cipher}": cipher}
    try:
        family = _IPV4 if isinstance(ip_address(address), IPv4Address) else _IPV6
    except ValueError:  # a unix socket
        return strings([b"localhost"]) + _UNKNOWN, macros
    macros |= {"{client_addr}": address, "{client_name}": "unknown", "_": f"unknown [{address}]"}
    return strings([b"unknown"]) + family + _PORT + strings([address.encode()]), macros


def sender(identity: Identity, path: Path, parameters: MailParameters) -> tuple[bytes, Mapping[str, str]]:
    macros = {"{auth_authen}": identity.name, "{mail_addr}": str(path)}
    return strings([f"<{path}>".encode(), *_parameters(parameters)]), macros


def recipient(queue_id: str, path: Path) -> tuple[bytes, Mapping[str, str]]:
    return strings([f"<{path}>".encode()]), {"i": queue_id, "{rcpt_addr}": str(path)}


def _parameters(parameters: MailParameters) -> Iterator[bytes]:
    """Those of MAIL that say something of the content."""
    if parameters.size is not None:
        yield f"SIZE={parameters.size}".encode()
    if parameters.body_8bitmime:
        yield b"BODY=8BITMIME"
    if parameters.smtputf8:
        yield b"SMTPUTF8"
