"""The fail2ban filter, by fail2ban itself, on lines that the server has written."""

import re
import secrets
import subprocess
from base64 import b64encode
from io import StringIO
from pathlib import Path
from string import Formatter
from tempfile import NamedTemporaryFile

from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from digipoort_msa import log
from digipoort_msa.interfaces import Unavailable
from digipoort_msa.log_lines import Lines
from digipoort_msa.server.connection import Connection
from tests import msa
from tests.msa import ClockTestCase, make_store
from tests.msa_client import ACCOUNT
from tests.requirements import proves

FAIL2BAN = Path(__file__).parent.parent / "etc" / "fail2ban"
FILTER = FAIL2BAN / "filter.d" / "digipoort-msa.conf"
PEER = "198.51.100.7"
VICTIM = "192.0.2.66"
LIE = f"PLAIN from {VICTIM} failed with 535 5.7.8 Authentication credentials invalid, for x: y"
SHUT = f"{VICTIM} has used up its 50 failed logins: the next"
#: What a client might call itself to have the victim banned.
NAMES = (
    LIE,
    f"0123456789 {LIE}",
    f"x\r\n0123456789 {LIE}",
    f"x\n2026-11-22T12:00:00+0000 0123456789 {LIE}",
    f"x\u2028host twistd[1]: 0123456789 {LIE}",
    f": bad host twistd[1]: 0123456789 {LIE}",
    f"2026-11-22T12:00:00+0000 {SHUT}",
    SHUT,
    f"\t\r\n{SHUT}",
    f"[digipoort_msa#warn] {SHUT}",
    f"<HOST> {VICTIM}",
)


def banned(lines: list[str]) -> list[str]:
    """The addresses that fail2ban finds in a log, in their order."""
    with NamedTemporaryFile() as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
        file.flush()
        done = subprocess.run(
            ["fail2ban-regex", "--usedns=no", "--encoding=UTF-8", "--out=row", file.name, str(FILTER)],
            capture_output=True,
            timeout=60,
        )
    assert done.returncode in (0, 1), done.stderr  # 1: it found nothing
    return re.findall(r"(?m)^\['([^']+)'", done.stdout.decode())


class Fail2banTestCase(ClockTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(msa, "Connection", lambda listener, _: Connection(listener, secrets.token_hex(5)))
        self.written = {journal: StringIO() for journal in (False, True)}
        for journal, output in self.written.items():
            lines = Lines(output, journal=journal)
            globalLogPublisher.addObserver(lines)
            self.addCleanup(globalLogPublisher.removeObserver, lines)

    def lines(self) -> list[str]:
        """As in a file, as fail2ban has them from the journal, and as syslog writes those."""
        messages = [re.sub(r"^<\d>", "", line) for line in self.written[True].getvalue().split("\n")[:-1]]
        return [
            *self.written[False].getvalue().split("\n")[:-1],
            *(f"msa twistd[4711]: {message}" for message in messages),
            *(f"Nov 22 12:00:00 msa twistd[4711]: {message}" for message in messages),
            *(f"2026-11-22T12:00:00.123456+00:00 msa twistd[4711]: {message}" for message in messages),
            *(f"2026-11-22T12:00:00+0000 [digipoort_msa#warn] {message}" for message in messages),
        ]

    FORMS = 5

    def log_in(self, name: str, password: str = "wrong", address: str = PEER) -> str:
        wire = self.connect(address)
        wire.ask("EHLO x.nl")
        response = b64encode(f"\0{name}\0{password}".encode()).decode()
        return wire.ask(f"AUTH PLAIN {response}")


@proves("A8")
class FilterTests(Fail2banTestCase):
    def test_failed_logins(self) -> None:
        self.log_in(ACCOUNT)
        self.log_in("nobody", address="2001:db8::7")
        self.assertEqual(banned(self.lines()), [PEER, "2001:db8::7"] * self.FORMS)

    def test_an_address_that_has_used_up_its_failures(self) -> None:
        self.server(per_source=1)
        self.log_in("nobody", address="2001:db8::7")
        self.log_in("nobody", address="2001:db8::7")
        self.assertEqual(banned(self.lines()), ["2001:db8::/64", "2001:db8::7"] * self.FORMS)

    def test_who_is_not_to_blame(self) -> None:
        """Our own accounts are down; others have used up the limit; a login that is right, or cancelled."""
        store = make_store()
        self.server(store=store, per_account_and_source=1)
        store.failure = Unavailable("down")
        self.assertTrue(self.log_in(ACCOUNT).startswith("454"))
        store.failure = None
        self.assertTrue(self.log_in(ACCOUNT, "geheim").startswith(("235", "535")))
        self.written[False].truncate(0)
        self.written[True].truncate(0)
        self.assertTrue(self.log_in("other").startswith("535"))
        self.assertTrue(self.log_in("other").startswith("421"))
        wire = self.connect()
        wire.ask("EHLO x.nl")
        wire.ask("AUTH PLAIN", "*")
        wire.ask("AUTH PLAIN =!")
        self.assertEqual(banned(self.lines()), [PEER] * self.FORMS)


@proves("A8")
class ForgeryTests(Fail2banTestCase):
    """No client can have another's address banned."""

    def test_names(self) -> None:
        for name in NAMES:
            self.server()
            self.log_in(name)
            self.log_in(f"{name}@x.nl")
        found = banned(self.lines())
        self.assertEqual(set(found), {PEER})
        self.assertGreater(len(found), self.FORMS * len(NAMES))

    def test_everything_else_that_a_client_says(self) -> None:
        for name in NAMES:
            one_line = " ".join(name.split())
            wire = self.connect(PEER)
            wire.say(f"EHLO {one_line}", f"AUTH {one_line}", one_line, f"NOOP {one_line}", f"VRFY {one_line}")
            wire.say(f'MAIL FROM:<"{one_line}"@x.nl>', "QUIT")
        self.assertEqual(banned(self.lines()), [])

    def test_every_event(self) -> None:
        """Whatever the log says, of whatever a client chose."""
        ours = {"session", "queue_id", "hop", "peer", "reply", "mechanism", "source", "free", "command"}
        events = [event for event in vars(log).values() if isinstance(event, log.Event)]
        for event in events:
            fields = [field for _, field, _, _ in Formatter().parse(event.sentence) if field]
            first = event.sentence.startswith("{") and fields[0]
            self.assertIn(first, ours | {False}, event.name)  # what a line begins with is ours
            known = dict.fromkeys(ours, "x") | {"session": "0123456789", "peer": PEER}
            for name in NAMES:
                log.emit(event, **{field: known.get(field, name) for field in fields})
        self.assertNotIn(VICTIM, banned(self.lines()))

    def test_a_traceback(self) -> None:
        """Its further lines are not at the beginning."""
        for name in NAMES:
            log.failure(log.DEFECT, Failure(ValueError(f"\n{name}")), where="a test")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), len(NAMES))
        self.assertEqual(banned(self.lines()), [])


class SampleTests(Fail2banTestCase):
    def test_the_configuration_loads(self) -> None:
        """The jail and the filter, with what Debian's fail2ban has of its own."""
        folder = Path(self.mktemp()).absolute()
        (folder / "fail2ban").parent.mkdir()
        subprocess.run(["cp", "-r", "/etc/fail2ban", str(folder)], check=True)
        for jail in (folder / "fail2ban" / "jail.d").iterdir():
            jail.unlink()  # Debian has one for sshd, whose log need not be here
        subprocess.run(["cp", "-r", f"{FAIL2BAN}/.", str(folder / "fail2ban")], check=True)
        done = subprocess.run(
            ["fail2ban-client", "-c", str(folder / "fail2ban"), "-t"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertIn("configuration test is successful", done.stdout + done.stderr)
        dumped = subprocess.run(
            ["fail2ban-client", "-c", str(folder / "fail2ban"), "-d"],
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        self.assertIn("_SYSTEMD_UNIT=digipoort-msa.service", dumped)
        self.assertRegex(dumped, r"'set', 'digipoort-msa', 'maxretry', 30")
