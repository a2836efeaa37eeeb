"""What every :class:`~digipoort_msa.interfaces.IPolicy` promises, as tests."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen
from twisted.internet.defer import maybeDeferred
from zope.interface.verify import verifyObject

from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import IJudgement, IPolicy
from digipoort_msa.smtp.envelope import NO_PARAMETERS, Envelope, MailParameters, Path, Trace
from digipoort_msa.smtp.reply import Refused

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _TestCase
else:
    _TestCase = object  # whoever inherits brings it

_BOUND = 10.0  # seconds in which anything has to be over, on the slowest machine
_TRACE = Trace("S1", "msa.example.nl", "192.0.2.1", "client.example.nl", "TLSv1.3 TLS_AES_256_GCM_SHA384")
#: Sizes of the pieces in which a client's content may come.
_CUTS = (1, 7, 65_536)

PIET = Identity(name="piet", realm="one.nl")


@frozen(kw_only=True)
class MessageDescription:
    """A message that somebody submits, and what the policy has to say of it."""

    #: Where it is refused: ``"MAIL"``, ``"RCPT"`` (some recipient), ``"DATA"`` or ``"end of data"``; ``None``
    #: where it passes.
    refused: str | None = None
    sender: str = "piet@one.nl"  # "" is the null reverse-path
    recipients: Sequence[str] = ("jan@two.nl",)
    content: bytes = field(default=b"Subject: een\r\n\r\nTekst\r\n", repr=False)
    identity: Identity = PIET


class PolicyContract(_TestCase):
    """Tests of one policy.  Inherit it beside ``twisted.trial.unittest.TestCase``."""

    timeout = 60

    def make_policy(self) -> Any:
        """The policy, as its own settings have it."""
        raise NotImplementedError

    def messages(self) -> Sequence[MessageDescription]:
        """Some that pass and some that are refused, at each moment that the policy is about."""
        raise NotImplementedError

    def opened(self) -> Any:
        policy = self.make_policy()
        self.addCleanup(maybeDeferred, policy.stop)
        return policy

    async def test_interfaces(self) -> None:
        policy = self.opened()
        verifyObject(IPolicy, policy)
        judgement = policy.begin(MessageDescription().identity, _TRACE)
        verifyObject(IJudgement, judgement)
        judgement.abort()

    async def test_verdicts(self) -> None:
        """Each as described, in whatever pieces the content comes, and again for the next such message."""
        messages = self.messages()
        self.assertEqual({each.refused is None for each in messages}, {True, False}, "both kinds are needed")
        policy = self.opened()
        for cut in _CUTS:
            for message in messages:
                self.assertEqual(await self.outcome(policy, message, cut), message.refused, message)

    async def test_judgements_are_apart(self) -> None:
        """Any number of messages are under way at once, and none has a part in another's verdict."""
        policy = self.opened()
        messages = [*self.messages(), *self.messages()[::-1]]
        under_way = [_Transaction(policy, message, _CUTS[1]) for message in messages]
        waiting = list(under_way)
        while waiting:
            for transaction in tuple(waiting):
                if not await self._step(transaction):
                    waiting.remove(transaction)
        for transaction in under_way:
            transaction.end()
            self.assertEqual(transaction.refused, transaction.message.refused, transaction.message)

    async def test_cut_off(self) -> None:
        """A transaction may end at any moment; the policy serves the next one as before."""
        policy = self.opened()
        for message in self.messages():
            steps = 0
            while True:
                transaction = _Transaction(policy, message, _CUTS[-1])
                going_on = True
                for _ in range(steps):
                    going_on = going_on and await self._step(transaction)
                transaction.judgement.abort()
                if not going_on:
                    break
                steps += 1
            self.assertEqual(await self.outcome(policy, message, _CUTS[-1]), message.refused, message)

    async def test_stop(self) -> None:
        await maybeDeferred(self.make_policy().stop).addTimeout(_BOUND, self._reactor)

    async def outcome(self, policy: Any, message: MessageDescription, cut: int) -> str | None:
        """Where a message is refused, if it is."""
        transaction = _Transaction(policy, message, cut)
        while await self._step(transaction):
            pass
        transaction.end()
        return transaction.refused

    async def _step(self, transaction: "_Transaction") -> bool:
        answer = maybeDeferred(transaction.step).addTimeout(_BOUND, self._reactor)
        try:
            await answer
        except Refused as refused:
            self.assertGreaterEqual(refused.reply.code, 400)
            self.assertTrue(refused.cause, "a refusal says why, for the log")
            transaction.refuse()
        return not transaction.over

    @property
    def _reactor(self) -> Any:
        from twisted.internet import reactor

        return reactor


class _Transaction:
    """One message on its way past a policy, a step at a time, as the service would have it."""

    def __init__(self, policy: Any, message: MessageDescription, cut: int) -> None:
        self.message = message
        self.judgement = policy.begin(message.identity, _TRACE)
        self.refused: str | None = None
        self.over = False
        self._moment = "MAIL"
        self._cut = cut
        self._envelope = Envelope(
            queue_id="Q1",
            realm=message.identity.realm,
            account=message.identity.name,
            session_id=_TRACE.session_id,
            reverse_path=Path.from_text(message.sender),
            recipients=(),
            received_at=0.0,
        )
        self._steps = self._calls()

    def step(self) -> Any:
        """The next call."""
        call = next(self._steps, None)
        if call is None:
            self.over = True
            return None
        method, arguments = call
        return getattr(self.judgement, method)(*arguments)

    def refuse(self) -> None:
        """The call was answered with a refusal."""
        self.refused = self.refused or self._moment
        if self._moment == "RCPT":
            self._envelope = evolve(self._envelope, recipients=self._envelope.recipients[:-1])
        else:
            self.over = True

    def end(self) -> None:
        """The one call that ends it: the message was taken, unless it was refused."""
        taken = self.refused is None or (self.refused == "RCPT" and self._envelope.recipients)
        (self.judgement.accepted if taken else self.judgement.abort)()

    def _calls(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        yield "sender", (self._envelope.reverse_path, MailParameters())
        self._moment = "RCPT"
        for recipient in map(Path.from_text, self.message.recipients):
            before = self._envelope
            self._envelope = evolve(before, recipients=(*before.recipients, recipient))
            yield "recipient", (before, recipient, NO_PARAMETERS)
        if not self._envelope.recipients:
            return
        self._moment = "DATA"
        yield "open", (self._envelope,)
        self._moment = "end of data"
        content = self.message.content
        for start in range(0, len(content), self._cut):
            yield "write", (content[start : start + self._cut],)
        yield "complete", ()
