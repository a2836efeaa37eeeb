import tempfile
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.interfaces import IContent, IContentReader
from digipoort_msa.spool.content import SEGMENT, FileContent, SmallContent


def at_once(function: object, *arguments: object) -> Deferred:
    return succeed(None).addCallback(lambda _: function(*arguments))  # type: ignore[operator]


class ContentTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "A1"
        self.octets = bytes(range(256)) * 3000
        self.path.write_bytes(self.octets)

    def contents(self) -> list:
        size = len(self.octets)
        return [SmallContent(self.octets, True), FileContent(self.path, size, True, at_once)]

    def read(self, reader: object) -> list[bytes]:
        return list(iter(lambda: self.successResultOf(reader.read()), b""))  # type: ignore[attr-defined]

    def test_in_segments_as_often_as_needed(self) -> None:
        for content in self.contents():
            verifyObject(IContent, content)
            verifyObject(IContentReader, content.open())
            self.assertEqual((len(self.octets), True), (content.size, content.eight_bit))
            first, second = content.open(), content.open()
            for reader in (first, second):
                segments = self.read(reader)
                self.assertEqual(self.octets, b"".join(segments))
                self.assertLessEqual(max(map(len, segments)), SEGMENT)
                reader.close()
                reader.close()

    def test_closing_during_a_read_closes_after_it(self) -> None:
        waiting: Deferred = Deferred()
        functions = []

        def later(function: object) -> Deferred:
            functions.append(function)
            return waiting

        reader = FileContent(self.path, 1, False, later).open()
        segment = reader.read()
        self.failureResultOf(reader.read(), ValueError)
        octets = functions[0]()  # type: ignore[operator]
        file = reader._file
        reader.close()
        assert file is not None
        self.assertFalse(file.closed)
        waiting.callback(octets)
        self.assertEqual(self.octets[:SEGMENT], self.successResultOf(segment))
        self.assertTrue(file.closed)
        self.failureResultOf(reader.read(), ValueError)

    def test_a_missing_file_is_an_error_of_the_read(self) -> None:
        self.path.unlink()
        self.failureResultOf(self.contents()[1].open().read(), FileNotFoundError)

    def test_a_read_that_is_cancelled_while_a_thread_is_at_it(self) -> None:
        """A hop that closes its connection does this.  To close the file under the thread would have it read
        from whatever is opened next under the same number."""
        waiting: Deferred = Deferred()
        functions = []

        def later(function: object) -> Deferred:
            functions.append(function)
            return waiting

        reader = FileContent(self.path, 1, False, later).open()
        segment = reader.read()
        segment.cancel()
        self.failureResultOf(segment, CancelledError)
        reader.close()
        octets = functions[0]()  # type: ignore[operator]
        file = reader._file
        assert file is not None
        self.assertFalse(file.closed)
        waiting.callback(octets)
        self.assertTrue(file.closed)
