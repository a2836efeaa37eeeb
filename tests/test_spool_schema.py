import os
import sqlite3
import stat
import tempfile
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.spool import schema


class SchemaTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name) / "spool"

    def mode(self, name: str) -> int:
        return stat.S_IMODE((self.directory / name).stat().st_mode)

    def test_closed_to_everyone_else(self) -> None:
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        schema.prepare(self.directory)
        os.close(schema.lock(self.directory) or -1)
        connection = schema.connect(self.directory)
        self.addCleanup(connection.close)
        self.assertEqual([0o700, 0o700], [self.mode("."), self.mode("bodies")])
        for name in ("spool.sqlite3", "spool.sqlite3-wal", "spool.sqlite3-shm", "lock"):
            self.assertEqual(0o600, self.mode(name), name)

    def test_modes_are_mended(self) -> None:
        schema.prepare(self.directory)
        self.directory.chmod(0o755)
        (self.directory / "spool.sqlite3").chmod(0o644)
        schema.prepare(self.directory)
        self.assertEqual([0o700, 0o600], [self.mode("."), self.mode("spool.sqlite3")])

    def test_durable(self) -> None:
        schema.prepare(self.directory)
        connection = schema.connect(self.directory)
        self.addCleanup(connection.close)
        self.assertEqual(("wal",), connection.execute("PRAGMA journal_mode").fetchone())
        self.assertEqual((2,), connection.execute("PRAGMA synchronous").fetchone())  # FULL

    def test_every_folder_that_is_made_is_durable(self) -> None:
        """A power cut after the first 250 must not take the state directory itself."""
        directory = self.directory / "a" / "b"
        with mock.patch("digipoort_msa.spool.schema.sync_directory") as synced:
            schema.prepare(directory)
        self.assertEqual(
            {directory, directory.parent, self.directory, self.directory.parent},
            {call.args[0] for call in synced.call_args_list},
        )

    def test_no_write_ahead_logging(self) -> None:
        schema.prepare(self.directory)
        connection = mock.Mock()
        connection.execute.return_value.fetchone.return_value = ("delete",)
        with (
            mock.patch("sqlite3.connect", return_value=connection),
            self.assertRaisesRegex(schema.SpoolError, "write-ahead"),
        ):
            schema.connect(self.directory)
        connection.close.assert_called_once_with()

    def test_a_later_schema_is_refused(self) -> None:
        schema.prepare(self.directory)
        connection = schema.connect(self.directory)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        with self.assertRaisesRegex(schema.SpoolError, "version 99.*later release"):
            schema.connect(self.directory)

    def test_what_is_no_spool_is_refused(self) -> None:
        schema.prepare(self.directory)
        (self.directory / "spool.sqlite3").write_bytes(b"not a database, whatever its name says " * 100)
        with self.assertRaisesRegex(schema.SpoolError, "cannot be opened"):
            schema.connect(self.directory)

    def test_another_database_is_refused(self) -> None:
        schema.prepare(self.directory)
        with sqlite3.connect(self.directory / "spool.sqlite3") as other:
            other.execute("CREATE TABLE message (x)")
        other.close()
        with self.assertRaisesRegex(schema.SpoolError, "already exists"):
            schema.connect(self.directory)

    def test_a_folder_that_cannot_be_made(self) -> None:
        self.directory.write_text("in the way")
        with self.assertRaisesRegex(schema.SpoolError, "must own"):
            schema.prepare(self.directory)

    def test_one_lock(self) -> None:
        schema.prepare(self.directory)
        first = schema.lock(self.directory)
        assert first is not None
        self.assertIsNone(schema.lock(self.directory))
        os.close(first)
        second = schema.lock(self.directory)
        assert second is not None
        os.close(second)
