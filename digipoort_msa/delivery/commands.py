"""The commands of a mail transaction as a hop is given them, and what may answer them (RFC 5321, 2920, 3461).

Where the hop has DSN (RFC 3461) it is given what the submitter asked for, unaltered, and takes the duty to
report over: nothing is added that the submitter left out (5.2.1), not even the ORCPT that an MTA may add,
since no address is changed here.  A hop without DSN is given none of it (5.2.2).
"""

from digipoort_msa.delivery import failures
from digipoort_msa.delivery.client import ClientConnection
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.session import Session
from digipoort_msa.smtp.envelope import Envelope, Path, RcptParameters
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.smtp.xtext import seven_bit

RSET = b"RSET\r\n"
DATA = b"DATA\r\n"

#: 2yz that answer other commands than ours: STATUS, HELP, the connection, QUIT, AUTH.  Of any further 2yz the
#: first digit counts (RFC 5321 4.3.2).
_OTHER_SUCCESS = frozenset({211, 214, 220, 221, 235})


def mail(session: Session, envelope: Envelope, *, size: int | None, eight_bit: bool, smtputf8: bool) -> bytes:
    """MAIL with all that the hop understands.

    :param size: octets, as far as they are known.
    :param eight_bit: the content is 8-bit, or may be, and the hop takes that.
    :param smtputf8: likewise.
    """
    command = [f"MAIL FROM:<{envelope.reverse_path}>"]
    if size is not None and "SIZE" in session.extensions:
        command.append(f"SIZE={size}")
    if eight_bit:
        command.append("BODY=8BITMIME")
    if smtputf8:
        command.append("SMTPUTF8")
    if session.authenticated:
        # The hop trusts us, and we do not vouch for the submitter's mailbox (RFC 4954 5).
        command.append("AUTH=<>")
    if "DSN" in session.extensions:
        if envelope.parameters.ret is not None:
            command.append(f"RET={envelope.parameters.ret}")
        if envelope.parameters.envid is not None:
            command.append(f"ENVID={envelope.parameters.envid}")
    return " ".join(command).encode() + b"\r\n"


def rcpt(session: Session, path: Path, parameters: RcptParameters, *, smtputf8: bool) -> bytes:
    """RCPT with all that the hop understands.

    :param smtputf8: MAIL declared it.
    """
    command = f"RCPT TO:<{path}>"
    if "DSN" in session.extensions:
        if parameters.notify:
            command += f" NOTIFY={','.join(sorted(parameters.notify))}"
        if parameters.orcpt is not None:
            command += f" ORCPT={parameters.orcpt if smtputf8 else seven_bit(parameters.orcpt)}"
    return command.encode() + b"\r\n"


def verdict(connection: ClientConnection, reply: Reply) -> Reply:
    """A reply to MAIL, RCPT or the end of data: 2yz, 4yz or 5yz.

    :raise HopFailure: it cannot be one.
    """
    if reply.code // 100 == 3 or reply.code in _OTHER_SUCCESS:
        expect(connection, reply, 250)
    return reply


def expect(connection: ClientConnection, reply: Reply, code: int) -> None:
    """A hop that answers something else is out of step: what it says next could mean anything.

    :raise HopFailure: it does; the connection is dropped.
    """
    if reply.code != code:
        failure = failures.out_of_step(connection.hop, f"{code} was due, not {reply}")
        connection.fail(failure)
        raise HopFailure(failure)
