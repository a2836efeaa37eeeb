"""When a new version of a file counts, and when the old one stays."""

import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.watched_file import LIMIT, SETTLING, WatchedFile

NOW = 1_750_000_000.0


def parse(octets: bytes) -> str:
    if b"broken" in octets:
        raise ValueError("line 1: broken")
    return octets.decode()


class WatchedFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()  # seconds since NOW
        self.path = Path(self.mktemp()).absolute()
        self.write("one", age=60)
        self.file = self.open()

    def open(self) -> "WatchedFile[str]":
        return WatchedFile(self.path, parse, now=lambda: NOW + self.clock.seconds(), clock=self.clock.seconds)

    def write(self, text: str, age: float = 0) -> None:
        """In place, so many seconds ago."""
        self.path.write_text(text)
        moment = NOW + self.clock.seconds() - age
        os.utime(self.path, (moment, moment))

    def test_as_it_is(self) -> None:
        self.assertEqual(self.file.value, "one")
        for _ in range(3):
            self.assertFalse(self.file.refresh())

    def test_a_new_version(self) -> None:
        self.write("two", age=3)
        self.assertTrue(self.file.refresh())
        self.assertEqual(self.file.value, "two")
        self.assertFalse(self.file.refresh())

    def test_a_writer_is_let_finish(self) -> None:
        """Half a file is a good file of fewer lines."""
        for written in ("t", "tw"):
            self.write(written)
            self.assertFalse(self.file.refresh())
            self.clock.advance(SETTLING * 0.9)
            self.assertFalse(self.file.refresh())
        self.assertEqual(self.file.value, "one")
        self.write("two")
        self.clock.advance(SETTLING)
        self.assertTrue(self.file.refresh())
        self.assertEqual(self.file.value, "two")

    def test_a_writer_in_the_middle_of_reading(self) -> None:
        self.write("two", age=10)
        reading = self.file._read
        self.file._read = lambda: (*reading()[:2], False)  # type: ignore[method-assign]
        self.assertFalse(self.file.refresh())
        self.file._read = reading  # type: ignore[method-assign]
        self.assertTrue(self.file.refresh())

    def test_a_clock_of_its_own(self) -> None:
        """A file server's, or a file with a date in the future."""
        self.write("two", age=-100_000)
        self.assertFalse(self.file.refresh())
        self.clock.advance(SETTLING)
        self.assertTrue(self.file.refresh())
        self.assertEqual(self.file.value, "two")

    def test_at_the_start_it_may_still_be_written_to(self) -> None:
        self.write("on")
        file = self.open()
        before = os.stat(self.path)
        self.path.write_text("no")  # as long, and in the same tick of the clock
        os.utime(self.path, ns=(before.st_mtime_ns, before.st_mtime_ns))
        self.clock.advance(SETTLING)
        self.assertTrue(file.refresh())
        self.assertEqual(file.value, "no")

    def test_the_same_again_is_no_change(self) -> None:
        self.write("one", age=5)
        self.assertFalse(self.file.refresh())

    def test_a_broken_version(self) -> None:
        self.write("broken", age=5)
        error = self.assertRaises(ValueError, self.file.refresh)
        self.assertEqual(str(error), f"{self.path}, line 1: broken")
        self.assertFalse(self.file.refresh())  # told once
        self.assertEqual(self.file.value, "one")
        self.write("broken, too", age=4)
        self.assertRaises(ValueError, self.file.refresh)
        self.write("one", age=3)
        self.assertTrue(self.file.refresh())  # and that it is mended, although it is what it was

    def test_missing_for_a_moment(self) -> None:
        """As while an editor puts another in its place."""
        self.path.unlink()
        self.assertFalse(self.file.refresh())
        self.write("two", age=5)
        self.assertTrue(self.file.refresh())

    def test_missing(self) -> None:
        self.path.unlink()
        self.assertFalse(self.file.refresh())
        self.clock.advance(SETTLING)
        self.assertRaises(FileNotFoundError, self.file.refresh)
        self.assertFalse(self.file.refresh())
        self.assertEqual(self.file.value, "one")
        self.write("one", age=5)
        self.assertTrue(self.file.refresh())

    def test_what_is_no_file(self) -> None:
        self.path.unlink()
        os.mkfifo(self.path)
        self.clock.advance(SETTLING)
        self.file.refresh()
        self.clock.advance(SETTLING)
        self.assertIn("should be a file", str(self.assertRaises(ValueError, self.file.refresh)))
        self.assertIn("should be a file", str(self.assertRaises(ValueError, self.open)))

    def test_too_large(self) -> None:
        with self.path.open("wb") as file:
            file.truncate(LIMIT + 1)
        self.assertIn(f"{LIMIT} octets", str(self.assertRaises(ValueError, self.open)))

    def test_at_the_start(self) -> None:
        self.write("broken", age=5)
        self.assertRaises(ValueError, self.open)
        self.path.unlink()
        self.assertRaises(FileNotFoundError, self.open)
