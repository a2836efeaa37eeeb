import os
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.spool import operations, schema
from digipoort_msa.spool.rows import DueQuery


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


class MigrationTests(SynchronousTestCase):
    """A spool of version 1, as its release made it."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name) / "spool"
        schema.prepare(self.directory)
        with closing(sqlite3.connect(self.directory / schema.DATABASE, isolation_level=None)) as old:
            old.execute("PRAGMA journal_mode = WAL")
            for statement in schema._MIGRATIONS[0].split(";\n"):
                old.execute(statement)
            old.execute("PRAGMA user_version = 1")
            for queue_id, next_attempt, removing, missing, states in (
                ("0000000000000001", 5.0, 0, 0, ("queued", "delivered")),
                ("0000000000000002", 9.0, 0, 0, ("deferred", "failed")),
                ("0000000000000003", None, 0, 0, ("failed",)),
                ("0000000000000004", None, 1, 0, ("queued",)),
                ("0000000000000005", None, 0, 1, ("deferred", "failed")),
            ):
                content = None if missing else queue_id.encode()
                old.execute(
                    "INSERT INTO message VALUES (?, 'r.nl', 'a', 'S1', 's@b.nl', '[1,true,false,null]', 1, 2,"
                    " ?, 16, 1, ?, ?, ?)",
                    (queue_id, next_attempt, removing, missing, content),
                )
                for number, state in enumerate(states):
                    old.execute(
                        "INSERT INTO recipient (queue_id, path, position, state, attempts)"
                        " VALUES (?, ?, ?, ?, 3)",
                        (queue_id, f"{number}@b.nl", number, state),
                    )

    def rows(self, connection: sqlite3.Connection, sql: str) -> list[tuple[object, ...]]:
        return connection.execute(sql).fetchall()

    def test_every_message_and_recipient_comes_over(self) -> None:
        with closing(schema.connect(self.directory)) as connection:
            rows = self.rows(
                connection,
                "SELECT queue_id, next_attempt, wish, octets FROM message"
                " LEFT JOIN content USING (queue_id) ORDER BY 1",
            )
            ids = [f"{number:016}" for number in range(1, 6)]
            self.assertEqual(ids, [row[0] for row in rows])
            self.assertEqual([5.0, 9.0, None, None, None], [row[1] for row in rows])
            self.assertEqual([None, None, None, "remove", None], [row[2] for row in rows])
            self.assertEqual([*map(str.encode, ids[:4]), None], [row[3] for row in rows])
            states = self.rows(
                connection, "SELECT state, reason IS NULL FROM recipient ORDER BY queue_id, path"
            )
            held = ("held", 0)
            self.assertEqual(
                [("queued", 1), ("delivered", 1), ("deferred", 1), held, held, ("queued", 1), held, held],
                states,
            )
            (page,) = operations.due(connection, [DueQuery("r.nl", 1e9, 9, frozenset())])
            self.assertEqual(ids[:2], [stored.envelope.queue_id for stored in page.messages])
            self.assertEqual((None, True), (page.messages[0].digest, page.messages[0].eight_bit))

    def test_a_new_spool_and_an_old_one_are_alike(self) -> None:
        other = self.directory.with_name("new")
        schema.prepare(other)
        with closing(schema.connect(self.directory)) as old, closing(schema.connect(other)) as new:
            sql = "SELECT name, sql FROM sqlite_schema ORDER BY name"
            self.assertEqual(self.rows(new, sql), self.rows(old, sql))

    def test_a_full_disk_leaves_the_old_version_and_says_how_much_it_takes(self) -> None:
        full = "PRAGMA max_page_count = 1;\n" + schema._MIGRATIONS[1]  # as many pages as there are
        with (
            mock.patch.object(schema, "_MIGRATIONS", (schema._MIGRATIONS[0], full)),
            self.assertRaisesRegex(schema.SpoolError, "disk is full; .* three times its size"),
        ):
            schema.connect(self.directory)
        self.test_every_message_and_recipient_comes_over()

    def test_a_crash_in_the_middle_leaves_the_old_version(self) -> None:
        """At every statement of the migration in turn."""
        statements = schema._MIGRATIONS[1].split(";\n")
        for number in range(len(statements)):
            broken = ";\n".join([*statements[:number], "SELECT * FROM nowhere"])
            with (
                mock.patch.object(schema, "_MIGRATIONS", (schema._MIGRATIONS[0], broken)),
                self.assertRaisesRegex(schema.SpoolError, "nowhere"),
            ):
                schema.connect(self.directory)
            with closing(sqlite3.connect(self.directory / schema.DATABASE)) as connection:
                self.assertEqual([(1,)], self.rows(connection, "PRAGMA user_version"))
                self.assertEqual([(5,)], self.rows(connection, "SELECT count(removing) FROM message"))
        self.test_every_message_and_recipient_comes_over()
