"""What a delivery says where the next hop said nothing: the replies of our own in its outcomes.

They go to the queue, the log and later into notifications, never to a submitting client.  Everything that an
operator or time can mend is a 4yz, wrong credentials and a certificate that fails among them; the 5yz
are the ones that no later attempt could change without altering the message.
"""

from digipoort_msa.smtp.reply import Reply, reply
from digipoort_msa.smtp.reply_parser import printable


class HopFailure(Exception):
    """The hop cannot be used any further; ``reply`` is the outcome of every recipient still undecided."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


# -- temporary: the way to the hop ------------------------------------------------------------------
def unreachable(hop: str, reason: str) -> Reply:
    return _temporary("4.4.1", f"{hop} cannot be reached: {reason}")


def lost(hop: str, reason: str) -> Reply:
    return _temporary("4.4.2", f"the connection to {hop} was lost: {reason}")


def timed_out(hop: str, seconds: float) -> Reply:
    return _temporary("4.4.2", f"{hop} gave no answer within {seconds:g} seconds")


def out_of_step(hop: str, reason: str) -> Reply:
    """The hop does not speak SMTP as RFC 5321 has it."""
    return _temporary("4.5.0", f"{hop} broke the protocol: {reason}")


def not_ready(hop: str, said: Reply) -> Reply:
    """The greeting or EHLO was refused, with 4yz or 5yz: no fault of any message's."""
    return _temporary("4.3.2", f"{hop} is not ready for mail: {said}")


# -- temporary: security ----------------------------------------------------------------------------
def no_starttls(hop: str, said: str) -> Reply:
    return _temporary("4.7.4", f"{hop} does not start TLS, and the settings demand it: {said}")


def tls_failed(hop: str, reason: str) -> Reply:
    return _temporary("4.7.5", f"TLS with {hop} failed: {reason}")


def not_authenticated(hop: str, said: str) -> Reply:
    return _temporary("4.7.8", f"{hop} did not accept our credentials: {said}")


def login_wanted(hop: str, said: Reply) -> Reply:
    """The hop takes nothing without a login or TLS (RFC 4954 6): the settings' fault, not a message's."""
    return _temporary("4.7.0", f"{hop} asks for a login or TLS that the settings do not give it: {said}")


# -- temporary: on our side -------------------------------------------------------------------------
STOPPING = reply(451, "4.3.2", "the relay is stopping")
UNREADABLE = reply(451, "4.3.0", "the stored content cannot be read")
DISK_FULL = reply(452, "4.3.1", "no space is left for the message")


def not_stored(reason: str) -> Reply:
    return _temporary("4.3.0", f"the message cannot be stored: {reason}")


# -- permanent --------------------------------------------------------------------------------------
NOT_CANONICAL = reply(554, "5.6.0", "the content has a CR or LF on its own, or no end to its last line")
NEEDS_8BITMIME = reply(554, "5.6.3", "the next hop does not take 8-bit content (8BITMIME)")
ADDRESS_NEEDS_SMTPUTF8 = reply(553, "5.6.7", "the next hop does not take addresses outside ASCII (SMTPUTF8)")
HEADER_NEEDS_SMTPUTF8 = reply(  # where the octets outside ASCII are, in header or body, is not looked for
    554, "5.6.9", "sent with SMTPUTF8 and not all ASCII, which the next hop does not take (SMTPUTF8)"
)
TOO_BIG = reply(552, "5.3.4", "the message is bigger than the next hop takes")


def _temporary(enhanced: str, text: str) -> Reply:
    return reply(451, enhanced, printable(text.encode("utf-8", "backslashreplace")))
