import os
import stat
from base64 import b64encode
from pathlib import Path

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.keyring import Keyring, read_keys, write_keys
from tests.requirements import proves

OLD, NEW = bytes([1]) * 32, bytes([2]) * 32


@proves("A7")
class KeyringTests(SynchronousTestCase):
    def setUp(self):
        self.path = Path(self.mktemp()).absolute()

    def write(self, *keys):
        """As another process does it."""
        if not self.path.exists():
            self.path.touch(0o600)
        write_keys(self.path, keys)

    def test_made_once(self):
        sealed = Keyring(self.path, make=True).close(b"x", "r", "n")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(Keyring(self.path, make=True).open(sealed, "r", "n"), b"x")
        self.assertRaises(OSError, Keyring, self.path.with_name("none"))

    def test_every_way_to_write_a_key(self):
        self.write(OLD)
        sealed = Keyring(self.path).close(b"x", "r", "n")
        for octets in (
            OLD,
            OLD.hex().encode(),
            b64encode(OLD) + b"\n",
            NEW.hex().encode() + b"\n" + b64encode(OLD),
        ):
            self.path.write_bytes(octets)
            self.assertEqual(Keyring(self.path).open(sealed, "r", "n"), b"x")

    def test_not_keys(self):
        for octets in (b"", b"short", b"\xff" * 40, b"ab" * 31, OLD.hex().encode() + b"\nwhat"):
            self.path.write_bytes(octets)
            error = self.assertRaises(ValueError, Keyring, self.path)
            self.assertIn(str(self.path), str(error))
            self.assertNotIn("what", str(error))

    def test_the_file_is_followed(self):
        self.write(OLD)
        running = Keyring(self.path)
        before = running.close(b"x", "r", "n")
        self.write(NEW, OLD)
        elsewhere = Keyring(self.path).close(b"x", "r", "n")
        self.assertEqual(running.open(elsewhere, "r", "n"), b"x")
        self.assertEqual(running.open(before, "r", "n"), b"x")
        self.assertFalse(running.is_current(before, "r", "n"))
        self.write(NEW)
        self.assertTrue(Keyring(self.path).is_current(running.close(b"x", "r", "n"), "r", "n"))

    def test_a_key_that_was_read_goes_on_opening(self):
        self.write(OLD)
        running = Keyring(self.path)
        before = running.close(b"x", "r", "n")
        self.write(NEW)
        self.assertTrue(running.refresh())
        self.assertEqual(running.open(before, "r", "n"), b"x")
        self.assertRaises(ValueError, Keyring(self.path).open, before, "r", "n")

    def test_refresh(self):
        self.write(OLD)
        keyring = Keyring(self.path)
        self.assertFalse(keyring.refresh())
        os.utime(self.path)
        self.assertFalse(keyring.refresh())
        self.write(NEW, OLD)
        self.assertTrue(keyring.refresh())
        self.assertFalse(keyring.refresh())

    def test_a_broken_new_version_changes_nothing(self):
        self.write(OLD)
        keyring = Keyring(self.path)
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.path.write_bytes(b"nonsense")
        for _ in range(3):
            self.assertFalse(keyring.refresh())
        self.path.unlink()
        self.assertFalse(keyring.refresh())
        self.assertEqual([event["event"] for event in events], ["account-keys-unreadable"])
        self.assertEqual(keyring.open(keyring.close(b"x", "r"), "r"), b"x")
        self.write(NEW)
        self.assertTrue(keyring.refresh())

    def test_written_and_read(self):
        self.write(NEW, OLD)
        self.assertEqual(read_keys(self.path), (NEW, OLD))
