"""The examples of the pages on extending (``docs/examples``): each does what its page says it does."""

import json
import sys
from datetime import date
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.passwords import Passwords
from digipoort_msa.accounts.realm import Realm, RealmRules, Realms
from digipoort_msa.accounts.throttle import Throttle
from digipoort_msa.interfaces import IDelivery
from digipoort_msa.sasl.mechanism import NO_CHANNEL, Context
from digipoort_msa.server.authentication import Authentication
from digipoort_msa.smtp import reply
from tests.account_doubles import CountingHashing, Inline, MemoryStore, Submitter, account
from tests.next_hop import Content, envelope
from tests.test_delivery_maildir import ImmediatePool, ImmediateReactor

DOCS = Path(__file__).resolve().parent.parent / "docs"
sys.path.insert(0, str(DOCS / "examples"))

from folder_delivery import Folder  # noqa: E402
from token_mechanism import X_TOKEN  # noqa: E402

HASHING = CountingHashing()


class LoginTests(SynchronousTestCase):
    """A realm with the example mechanism, driven as the server drives it."""

    def setUp(self) -> None:
        clock = Clock()
        mechanisms = frozenset({"PLAIN", "X-TOKEN"})
        kept = account("business", "one.nl", password_hash=HASHING.hash("secret"))
        store = GuardedStore(MemoryStore(kept, mechanisms=mechanisms), "one.nl", clock)
        passwords = Passwords(HASHING, Inline(), VerifiedPasswords(clock.seconds))
        rules = RealmRules(name="one.nl", mechanisms=mechanisms, refusal_time=0)
        realm = Realm(rules, store, passwords, Submitter, clock, lambda: date(2026, 1, 5))
        throttle = Throttle(clock.seconds, first_delay=0)
        self.realms = Realms([realm], throttle, clock, {"X-TOKEN": X_TOKEN}, b"nobody")
        self.context = Context(("one.nl",), frozenset(), "nonce")

    def log_in(self, *responses: bytes | None) -> list[reply.Reply]:
        authentication = Authentication(X_TOKEN, self.context, self.realms, "session", "192.0.2.1")
        first, *others = responses
        said = [self.now(authentication.start(first))]
        return said + [self.now(authentication.respond(response)) for response in others]

    def now(self, verdict: object) -> reply.Reply:
        return verdict if isinstance(verdict, reply.Reply) else self.successResultOf(verdict)

    def test_offered(self) -> None:
        self.assertEqual(self.realms.offered(NO_CHANNEL), ("X-TOKEN",))

    def test_initial_response(self) -> None:
        self.assertEqual(self.log_in(b"business secret"), [reply.AUTHENTICATED])

    def test_challenge(self) -> None:
        self.assertEqual(self.log_in(None, b"business secret"), [reply.challenge(b""), reply.AUTHENTICATED])

    def test_refused(self) -> None:
        self.assertEqual(self.log_in(b"business wrong"), [reply.INVALID_CREDENTIALS])
        self.assertEqual(self.log_in(b"nobody secret"), [reply.INVALID_CREDENTIALS])

    def test_malformed(self) -> None:
        for response in (b"", b"business", b"business ", b" secret", b"x" * 600, b"\xff\xff a"):
            self.assertEqual(self.log_in(response), [reply.MALFORMED_RESPONSE], response)


class FolderTests(SynchronousTestCase):
    """The example delivery."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.delivery = Folder(self.folder, ImmediateReactor(), ImmediatePool(0, 1))

    def deliver(self) -> list[int]:
        content = Content(b"one\r\n", b"two\r\n")
        outcomes = self.successResultOf(self.delivery.deliver(envelope("a@one.nl", "b@two.nl"), content))
        self.assertEqual([str(path) for path in outcomes], ["a@one.nl", "b@two.nl"])
        self.assertEqual(content.closed, 1)
        return [outcome.reply.code for outcome in outcomes.values()]

    def test_delivered(self) -> None:
        """Twice does no harm: the queue may repeat what it does not know to be done."""
        verifyObject(IDelivery, self.delivery)
        self.folder.mkdir()
        for _ in range(2):
            self.assertEqual(self.deliver(), [250, 250])
            self.assertEqual(sorted(file.name for file in self.folder.iterdir()), ["Q1.eml", "Q1.json"])
            self.assertEqual((self.folder / "Q1.eml").read_bytes(), b"one\r\ntwo\r\n")
            document = json.loads((self.folder / "Q1.json").read_text())
            self.assertEqual(document["recipients"], ["a@one.nl", "b@two.nl"])

    def test_not_now(self) -> None:
        """A folder that is not there is mended by an operator, not by giving up."""
        self.assertEqual(self.deliver(), [451, 451])
