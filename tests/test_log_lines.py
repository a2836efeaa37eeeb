"""The log as lines."""

import json
import sys
from io import StringIO

from twisted.logger import LogEvent, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa import log
from digipoort_msa.log_lines import Lines, json_observer


class FullDisk(StringIO):
    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def captured(case: SynchronousTestCase, emit: object, *arguments: object, **fields: object) -> LogEvent:
    """The event that is emitted."""
    events: list[LogEvent] = []
    case.patch(log._logger, "observer", events.append)
    emit(*arguments, **fields)  # type: ignore[operator]
    (event,) = events
    return event


class LineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.output = StringIO()

    def line(self, event: LogEvent, *, journal: bool = True) -> str:
        Lines(self.output, journal=journal)(event)
        return self.output.getvalue()

    def test_an_event_of_ours(self) -> None:
        event = captured(self, log.emit, log.TLS_FAILED, session="s1", peer="192.0.2.1", reason="no {cipher}")
        self.assertEqual(self.line(event), "<4>s1 TLS failed with 192.0.2.1: no {cipher}\n")

    def test_every_event_is_plain(self) -> None:
        """No sentence needs more than format_map."""
        for event in vars(log).values():
            if isinstance(event, log.Event):
                event.sentence.format_map(_Anything())

    def test_outside_the_journal_with_the_time(self) -> None:
        event = captured(self, log.emit, log.CERTIFICATE_LOADED, file="/a.pem")
        self.assertRegex(
            self.line(event, journal=False),
            r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} new connections get the certificate in /a.pem\n$",
        )

    def test_a_failure_with_its_traceback(self) -> None:
        event = captured(self, log.failure, log.DEFECT, Failure(ValueError("worn out")), where="a test")
        first, *more = self.line(event).splitlines()
        self.assertEqual(first, "<2>unexpected failure in a test")
        self.assertIn("ValueError: worn out", more[-1])
        self.assertTrue(all(line.startswith("<2>\t") for line in more))

    def test_an_event_of_others(self) -> None:
        event: LogEvent = {"log_level": LogLevel.info, "log_format": "{a()} b", "a": lambda: "called"}
        self.assertEqual(self.line(event), "<6>called b\n")

    def test_an_event_without_text(self) -> None:
        self.assertEqual(self.line({"log_level": LogLevel.info}), "")

    def test_a_full_disk(self) -> None:
        event = captured(self, log.emit, log.CERTIFICATE_LOADED, file="/a.pem")
        Lines(FullDisk(), journal=True)(event)  # nothing is raised


class _Anything(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return key


class JSONTests(SynchronousTestCase):
    """For a machine."""

    def test_an_event_of_ours(self) -> None:
        """Every field is a key of its own, those that the sentence leaves out too."""
        output = StringIO()
        self.patch(sys, "stdout", output)
        observer = json_observer()  # takes no argument, as twistd --logger wants it
        fields = {"session": "s1", "peer": "192.0.2.1", "tls": "TLSv1.3"}
        observer(captured(self, log.emit, log.TLS_STARTED, **fields))
        (line,) = output.getvalue().splitlines()
        document = json.loads(line)
        self.assertEqual({name: document[name] for name in fields}, fields)
        self.assertEqual(document["event"], "tls-started")
