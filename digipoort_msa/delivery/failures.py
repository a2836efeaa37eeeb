"""What a delivery says where the next hop said nothing: the replies of our own in its outcomes.

They go to the queue, the log and later into notifications, never to a submitting client.  Everything that an
operator or time can mend is a 4yz, wrong credentials and a certificate that fails among them; the 5yz
are the ones that no later attempt could change without altering the message.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from digipoort_msa.smtp.reply import Reply, reply
from digipoort_msa.smtp.reply_parser import printable

_MOST_HOPS = 4  # named in one reply
_LONGEST_WORDS = 200  # characters of each one's

_LONGEST = 1_000  # characters: a hop's words in ours may be many


class HopFailure(Exception):
    """The hop cannot be used any further; ``reply`` is the outcome of every recipient still undecided."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class NoHop(HopFailure):
    """No hop is left to try; ``hop`` names the last one that was, or those that rest."""

    def __init__(self, reply: Reply, hop: str) -> None:
        super().__init__(reply)
        self.hop = hop


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


def resting(hops: Sequence[tuple[str, float, Reply]]) -> Reply:
    """No hop may be used now.

    :param hops: each hop's name, since when it fails (seconds since the epoch), and its latest words.
    """
    told = [
        f"{hop} since {_moment(since)} ({str(said)[:_LONGEST_WORDS]})"
        for hop, since, said in hops[:_MOST_HOPS]
    ]
    if len(hops) > _MOST_HOPS:
        told.append(f"and {len(hops) - _MOST_HOPS} more")
    return _temporary("4.4.1", f"left alone, having failed: {'; '.join(told)}")


def not_looked_up(target: str, reason: str) -> Reply:
    return _temporary("4.4.3", f"{target} cannot be looked up: {reason}")


def no_route(target: str, reason: str) -> Reply:
    return _temporary("4.4.4", f"{target} leads to no next hop: {reason}")


# -- temporary: security ----------------------------------------------------------------------------
def no_starttls(hop: str, said: str) -> Reply:
    return _temporary(
        "4.7.4", f"{hop} does not start TLS, and the setting tls demands it: {said}; is the port right?"
    )


def tls_failed(hop: str, reason: str) -> Reply:
    return _temporary("4.7.5", f"TLS with {hop} failed: {reason}")


def no_tlsa(hop: str, reason: str) -> Reply:
    """Whether DANE applies is not known, and a forger would like it not to (RFC 7672 2.1.2)."""
    return _temporary(
        "4.7.5",
        f"the TLSA records of {hop} cannot be looked up: {reason}; mend the DNS, "
        "or see the settings resolver and dane",
    )


def no_mechanism(hop: str, offered: Sequence[str], ours: Sequence[str]) -> Reply:
    theirs = ", ".join(offered) or "no login"
    return _temporary("4.7.8", f"{hop} offers {theirs}; the setting login-mechanisms has {', '.join(ours)}")


def not_authenticated(hop: str, said: Reply) -> Reply:
    if said.transient:
        return _temporary("4.7.0", f"{hop} cannot check our login now: {said}")
    return _temporary(
        "4.7.8", f"{hop} did not accept our credentials (settings username and password-file): {said}"
    )


def not_proven(hop: str, reason: str) -> Reply:
    """The hop is not known to be the one that our password is for."""
    return _temporary(
        "4.7.8",
        f"the login at {hop} failed by the hop's own fault: {reason} (see the setting login-mechanisms)",
    )


def login_not_computed(hop: str, reason: str) -> Reply:
    return _temporary("4.3.0", f"the login at {hop} could not be made: {reason}")


def login_wanted(hop: str, said: Reply) -> Reply:
    """The hop takes nothing without a login or TLS (RFC 4954 6): the settings' fault, not a message's."""
    return _temporary(
        "4.7.0",
        f"{hop} asks for a login or TLS beyond the settings username, password-file and tls: {said}",
    )


LOGIN_IN_CLEAR = reply(451, "4.7.0", "a login in clear is not done: set tls to verify or implicit")


# -- temporary: on our side -------------------------------------------------------------------------
STOPPING = reply(451, "4.3.2", "the relay is stopping")
ABANDONED = reply(451, "4.3.0", "the client gave its message up")
UNREADABLE = reply(451, "4.3.0", "the stored content cannot be read")
TOO_MANY_HOPS = reply(451, "4.3.2", "too many different next hops are in use")
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


def says_no(said: Reply) -> bool:
    """The hop is there, and wants no connection or session."""
    return said is not STOPPING and (said.code == 421 or said.enhanced == "4.3.2")


def is_the_hops(said: Reply) -> bool:
    """A connection was lost by the hop or on the way to it, not by us."""
    return said.code == 421 or said.enhanced in ("4.4.2", "4.5.0")


def is_out_of_step(said: Reply) -> bool:
    """The hop broke the protocol (:func:`out_of_step`)."""
    return said.enhanced == "4.5.0"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _temporary(enhanced: str, text: str) -> Reply:
    shown = printable(text.encode("utf-8", "backslashreplace"))
    return reply(451, enhanced, shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "...")
