"""What realms share, and what each has for itself."""

import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, TimeoutError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from digipoort_msa.config import load
from digipoort_msa.service import realms
from digipoort_msa.service.realms import Accounts, _nobodys_key
from tests.requirements import proves

_TWO_REALMS = """
[server]
hostname = "msa.example.nl"
state-directory = "{state}"

[[listener]]
endpoint = "tcp:465"
tls = "implicit"

[tls]
certificate = "/nowhere/fullchain.pem"
private-key = "/nowhere/key.pem"

[delivery.relay]
next-hops = ["core.example.nl:25"]

[[realm]]
name = "dead.nl"

[[realm]]
name = "alive.nl"
"""


@proves("A5")
class NobodysKeyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = Path(self.mktemp()) / "state"

    def test_it_stays_the_same(self) -> None:
        key = _nobodys_key(self.state)
        self.assertEqual((len(key), _nobodys_key(self.state)), (32, key))
        self.assertEqual((self.state / "nobody.key").stat().st_mode & 0o777, 0o600)

    def test_one_that_can_be_guessed(self) -> None:
        """With an empty one, anybody could compute the salt of a name that there is not."""
        self.state.mkdir(parents=True)
        for octets in (b"", b"x" * 31):
            (self.state / "nobody.key").write_bytes(octets)
            with self.assertRaisesRegex(ValueError, "nobody.key has .* move it away"):
                _nobodys_key(self.state)


class ThreadsTests(TestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.file = folder / "msa.toml"
        self.file.write_text(_TWO_REALMS.format(state=folder / "state"))

    async def test_a_store_that_hangs_stops_no_other_realm(self) -> None:
        over = threading.Event()
        accounts = Accounts(load(self.file, files=False), reactor, lambda realm: None)  # type: ignore[arg-type,return-value]
        self.addCleanup(lambda: accounts.close())
        self.addCleanup(over.set)
        stores: dict[str, Any] = {guarded._realm: guarded._store for guarded in accounts._stores}
        for _ in range(10):
            stores["dead.nl"]._threads.call(over.wait, 30)
        found = stores["alive.nl"].account("piet").addTimeout(5, reactor)
        self.assertIsNone(await found)

    async def test_a_store_that_never_lets_go(self) -> None:
        """The service ends all the same, and the stores after it are stopped."""
        self.patch(realms, "_STOPPING", 0.05)
        accounts = Accounts(load(self.file, files=False), reactor, lambda realm: None)  # type: ignore[arg-type,return-value]
        stopped: list[None] = []
        first, second = accounts._stores
        self.patch(first, "stop", Deferred)
        self.patch(second, "stop", lambda: stopped.append(None))
        await accounts.close()
        self.assertEqual(len(stopped), 1)
        self.assertEqual(len(self.flushLoggedErrors(TimeoutError)), 1)
