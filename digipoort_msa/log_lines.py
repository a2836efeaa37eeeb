"""The log as lines on standard output, for the journal or a terminal: ``twistd --logger`` takes it.

Twisted's own text observer works for every format that an event may have, and for every time zone; for six
events in a session of a few milliseconds that is a fifth of the session.  Our own sentences are plain, so
``str.format_map`` does for them; everything else goes Twisted's way.

Under systemd (``JOURNAL_STREAM`` is set, see systemd.exec(5)) a line begins with its priority instead of the
time, which the journal knows: ``journalctl -p warning`` then works.
"""

import os
import sys
import time
from contextlib import suppress
from typing import TextIO

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, jsonFileLogObserver
from zope.interface import implementer

from digipoort_msa.log import NAMESPACE

# sd-daemon(3)
_PRIORITIES = {
    LogLevel.debug: "<7>",
    LogLevel.info: "<6>",
    LogLevel.warn: "<4>",
    LogLevel.error: "<3>",
    LogLevel.critical: "<2>",
}


@implementer(ILogObserver)
class Lines:
    """Writes each event as one line; what a traceback has more is indented.

    :param journal: begin with the priority, else with the local time.
    """

    def __init__(self, output: TextIO, *, journal: bool) -> None:
        self._output = output
        self._journal = journal
        self._second = -1
        self._time = ""

    def __call__(self, event: LogEvent) -> None:
        text = _text(event)
        if not text:
            return
        if self._journal:
            start = _PRIORITIES.get(event.get("log_level", LogLevel.info), "<6>")
            text = text.replace("\n", f"\n{start}\t")
        else:
            start = self._stamp(event.get("log_time", 0.0))
            text = text.replace("\n", "\n\t")
        with suppress(OSError):  # a full disk, a closed pipe: the mail goes on, and there is nobody to tell
            self._output.write(f"{start}{text}\n")
            self._output.flush()

    def _stamp(self, seconds: float) -> str:
        """The local time; made once a second."""
        if int(seconds) != self._second:
            self._second = int(seconds)
            self._time = time.strftime("%Y-%m-%dT%H:%M:%S%z ", time.localtime(seconds))
        return self._time


def _text(event: LogEvent) -> str:
    if event.get("log_namespace") == NAMESPACE and "log_failure" not in event:
        return str(event["log_format"]).format_map(event)
    return eventAsText(event, includeTimestamp=False, includeSystem=False).rstrip()


def observer() -> Lines:
    """What ``twistd --logger=digipoort_msa.log_lines.observer`` asks for."""
    return Lines(sys.stdout, journal="JOURNAL_STREAM" in os.environ)


def json_observer() -> ILogObserver:
    """What ``twistd --logger=digipoort_msa.log_lines.json_observer`` asks for: each event as a JSON document
    on a line, with all of its fields, for a machine."""
    observer: ILogObserver = jsonFileLogObserver(sys.stdout, recordSeparator="")
    return observer
