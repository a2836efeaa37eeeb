"""A next hop for whole processes: an SMTP or LMTP server in threads, which keeps what it is given."""

import socketserver
from collections.abc import Callable
from contextlib import suppress as suppressed
from threading import Condition, Thread
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Self


class Message(NamedTuple):
    sender: str  # as MAIL said it, with its parameters
    recipients: tuple[str, ...]
    content: bytes


class Recorder:
    """Listens on a loopback port from the start until :meth:`close`; knows every recipient but nobody@.

    :ivar messages: what was accepted, in order.
    :ivar refusing: what MAIL is answered with now; ``None``: 250.
    :ivar refused: how often it was.
    """

    def __init__(self, port: int = 0, *, lmtp: bool = False) -> None:
        self.messages: list[Message] = []
        self.lmtp = lmtp
        self.refusing: bytes | None = None
        self.refused = 0
        self._changed = Condition()
        self._server = _Server(("127.0.0.1", port), _Conversation)
        self._server.recorder = self
        self.port: int = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def keep(self, message: Message) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def last_octets(self, step: str, octets: int) -> int | None:
        """Is a connection to end at this step of its dialogue?

        :param octets: how many the hop is about to write or to read.
        :return: how many of these it still does; ``None``: it lives on.
        """
        return None

    def wait(self, done: Callable[[list[Message]], bool], seconds: float = 30) -> list[Message]:
        """The messages, once ``done`` is true of them; or as they are after ``seconds``."""
        end = monotonic() + seconds
        with self._changed:
            while not done(self.messages) and monotonic() < end:
                self._changed.wait(end - monotonic())
            return list(self.messages)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 100
    recorder: Recorder


class _Conversation(socketserver.StreamRequestHandler):
    server: _Server
    timeout = 60
    disable_nagle_algorithm = True
    wbufsize = 0

    def handle(self) -> None:
        with suppressed(OSError):
            self._step("connect")
            self._converse()

    def _converse(self) -> None:
        recorder = self.server.recorder
        sender, recipients = "", []
        self._say("greeting", b"220 hop.example ESMTP")
        while line := self.rfile.readline().decode("latin-1"):
            verb, _, rest = line.rstrip("\r\n").partition(" ")
            match verb.upper():
                case "EHLO" | "LHLO":
                    extensions = (b"hop.example", b"PIPELINING", b"SIZE", b"8BITMIME", b"SMTPUTF8")
                    shown = [b"250-" + word for word in extensions]
                    self._say("EHLO", *shown, b"250 ENHANCEDSTATUSCODES")
                case "MAIL" if recorder.refusing is not None:
                    sender = ""
                    recorder.refused += 1
                    self._say("MAIL", recorder.refusing)
                case "MAIL":
                    sender, recipients = rest, []
                    self._say("MAIL", b"250 2.1.0 Ok")
                case "RCPT" | "DATA" if not sender:
                    self._say("another", b"503 5.5.1 MAIL first")
                case "RCPT" if rest.startswith("TO:<nobody@"):
                    self._say("RCPT", b"550 5.1.1 There is nobody of this name")
                case "RCPT":
                    recipients.append(rest)
                    self._say("RCPT", b"250 2.1.5 Ok")
                case "DATA":
                    self._say("DATA", b"354 go on")
                    content = self._content()
                    if content is None:
                        return
                    self._step("end of data")
                    recorder.keep(Message(sender, tuple(recipients), content))
                    self._say("reply", *[b"250 2.0.0 Ok"] * (len(recipients) if recorder.lmtp else 1))
                case "QUIT":
                    self._say("QUIT", b"221 2.0.0 Bye")
                    return
                case _:
                    self._say("another", b"250 2.0.0 Ok")

    def _content(self) -> bytes | None:
        self._step("content", self.rfile.read1, 40_000)
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line.endswith(b"\n"):
                return None  # the connection was lost
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    def _say(self, step: str, *lines: bytes) -> None:
        reply = b"".join(line + b"\r\n" for line in lines)
        self._step(step, lambda octets: self.wfile.write(reply[:octets]), len(reply))
        self.wfile.write(reply)

    def _step(self, step: str, do: Callable[[int], object] = lambda octets: None, octets: int = 0) -> None:
        """:raise ConnectionAbortedError: this was the last."""
        last = self.server.recorder.last_octets(step, octets)
        if last is None:
            return
        do(last)
        raise ConnectionAbortedError
