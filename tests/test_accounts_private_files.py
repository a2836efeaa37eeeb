import os
import stat
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.private_files import create_private, replace_private


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


class ReplacePrivateTests(SynchronousTestCase):
    def setUp(self):
        self.path = Path(self.mktemp()).absolute()
        create_private(self.path, b"first")

    def test_replaced(self):
        replace_private(self.path, b"second")
        self.assertEqual(self.path.read_bytes(), b"second")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_it_keeps_its_owner(self):
        with mock.patch("os.geteuid", return_value=0), mock.patch("os.fchown") as chown:
            replace_private(self.path, b"second")
        owner = self.path.stat()
        self.assertEqual(chown.call_args.args[1:], (owner.st_uid, owner.st_gid))

    def test_a_failure_leaves_the_former(self):
        for step in ("os.replace", "os.fsync"):
            with mock.patch(step, side_effect=OSError(28, "No space left on device")):
                self.assertRaises(OSError, replace_private, self.path, b"second")
            self.assertEqual(self.path.read_bytes(), b"first")
            names = [name for name in os.listdir(self.path.parent) if name.startswith(f".{self.path.name}")]
            self.assertEqual(names, [])
