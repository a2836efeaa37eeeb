"""Messages that go through: nothing is kept here, and what the client hears of its message is the hop's word.

While the client speaks, a transaction with a hop is open: MAIL goes on when the client says it, RCPT too,
content as it comes, and the final dot when the client's end of data is there and nobody has anything against
the message (:mod:`digipoort_msa.delivery.passage`).  The client's 250 comes behind the hop's.

A connection to the hop is one client's from its MAIL to its end of data.  How long that client may be silent
in between is the server's idle timeout, and how many do this at once the hop's limit of connections: others
wait at MAIL, for a bounded time.
"""

from collections.abc import Callable

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from digipoort_msa.delivery.client import Timeouts
from digipoort_msa.delivery.passage import Passage
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.interfaces import IIntake

#: Seconds that a step may take while a client waits for it.  A client waits 300 s at MAIL and RCPT, 120 s
#: at DATA and 600 s at its end of data (RFC 5321 4.5.3.2): it is to hear of a hop that is silent before that,
#: and where there is another hop, that one is to have its try.
_PROMPT = Timeouts(
    connect=20, tls=30, greeting=60, ehlo=30, auth=30, mail=60, rcpt=270, data=100, termination=540
)


def prompt(timeouts: Timeouts) -> Timeouts:
    """The settings' timeouts for a relay that clients wait for: none longer than a client's patience."""
    shorter = {
        step: min(getattr(timeouts, step), getattr(_PROMPT, step))
        for step in ("connect", "tls", "greeting", "ehlo", "auth", "mail", "rcpt", "data", "termination")
    }
    return evolve(timeouts, **shorter)


@implementer(IIntake)
class Through:
    """Takes messages in by having a next hop take them."""

    def __init__(
        self, relay: Relay, queue_ids: Callable[[], str], reactor: IReactorTime, *, patience: float = 240.0
    ) -> None:
        """
        :param relay: chooses the hops, by SMTP, and keeps the connections; its timeouts are :func:`prompt`.
        :param queue_ids: gives each message its id.
        :param patience: seconds that a client waits at MAIL until a hop has answered it.
        """
        self._relay = relay
        self._queue_ids = queue_ids
        self._reactor = reactor
        self._patience = patience

    def receive(self, realm: str) -> Passage:
        """See :class:`~digipoort_msa.interfaces.IIntake`."""
        return Passage(self._queue_ids(), self._relay, self._reactor, self._patience)

    def stop(self, grace: float = 10.0) -> "Deferred[None]":
        """Let transactions end for ``grace`` seconds, take leave of every hop (:meth:`Relay.stop`)."""
        return self._relay.stop(grace)
