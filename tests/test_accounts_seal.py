import os
import stat
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.seal import Seal, create_private
from tests.requirements import proves

SECRETS = (b"0123456789abcdef", b"fedcba9876543210")


@proves("A7")
class SealTests(SynchronousTestCase):
    def setUp(self):
        self.seal = Seal(bytes(32))

    def test_round_trip(self):
        for secrets in ((), SECRETS[:1], SECRETS):
            self.assertEqual(self.seal.open(self.seal.close(secrets, "r", "n"), "r", "n"), secrets)

    def test_unreadable(self):
        sealed = self.seal.close(SECRETS, "r", "n")
        self.assertNotIn(SECRETS[0], sealed)
        self.assertNotEqual(sealed, self.seal.close(SECRETS, "r", "n"))

    def test_fits_no_other_account_and_no_other_key(self):
        sealed = self.seal.close(SECRETS, "r", "n")
        for seal, realm, name in (
            (self.seal, "r", "m"),
            (self.seal, "s", "n"),
            (self.seal, "rn", ""),
            (Seal(bytes([1]) * 32), "r", "n"),
        ):
            self.assertRaises(ValueError, seal.open, sealed, realm, name)

    @settings(deadline=None, max_examples=100)
    @given(st.data())
    def test_damage_is_seen(self, data):
        sealed = bytearray(self.seal.close(SECRETS, "r", "n"))
        at = data.draw(st.integers(0, len(sealed) - 1))
        sealed[at] ^= data.draw(st.integers(1, 255))
        self.assertRaises(ValueError, self.seal.open, bytes(sealed), "r", "n")

    def test_cut_is_seen(self):
        sealed = self.seal.close(SECRETS, "r", "n")
        for end in range(1, len(sealed)):
            self.assertRaises(ValueError, self.seal.open, sealed[:end], "r", "n")

    def test_key_file(self):
        path = Path(self.mktemp())
        sealed = Seal.from_file(path).close(SECRETS, "r", "n")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(Seal.from_file(path).open(sealed, "r", "n"), SECRETS)

    def test_not_a_key_file(self):
        path = Path(self.mktemp())
        path.write_bytes(b"short")
        error = self.assertRaises(ValueError, Seal.from_file, path)
        self.assertIn(str(path), str(error))


class CreatePrivateTests(SynchronousTestCase):
    def test_leaves_what_exists(self):
        path = Path(self.mktemp())
        create_private(path, b"first")
        create_private(path, b"second")
        self.assertEqual(path.read_bytes(), b"first")

    def test_the_first_of_two_wins(self):
        path = Path(self.mktemp())
        path.write_bytes(b"first")
        with mock.patch.object(Path, "exists", return_value=False):
            create_private(path, b"second")
        self.assertEqual(path.read_bytes(), b"first")
        self.assertEqual([name for name in os.listdir(path.parent) if name.startswith(f".{path.name}")], [])

    def test_root_makes_it_for_the_directorys_owner(self):
        path = Path(self.mktemp())
        with mock.patch("os.geteuid", return_value=0), mock.patch("os.fchown") as chown:
            create_private(path)
        owner = path.parent.stat()
        self.assertEqual(chown.call_args.args[1:], (owner.st_uid, owner.st_gid))
