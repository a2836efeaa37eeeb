"""A loopback port in front of a server's unix socket, whose line can be cut without a word to either side."""

import select
import socket
import threading
from pathlib import Path


class Forwarder:
    """Runs from its making to :meth:`close`."""

    def __init__(self, path: Path) -> None:
        self.dead = False  # nothing is forwarded any more, and nobody is told
        self._path = str(path)
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._woken, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._wake.send(b"x")
        self._thread.join(10)
        for each in (self._listening, self._woken, self._wake, *self._pairs):
            each.close()

    def _run(self) -> None:
        while True:
            mine = [self._listening, self._woken, *([] if self.dead else self._pairs)]
            for ready in select.select(mine, [], [], 0.05)[0]:
                if ready is self._woken:
                    return
                if ready is self._listening:
                    self._accept()
                elif ready in self._pairs and not self.dead:
                    self._forward(ready)

    def _accept(self) -> None:
        client = self._listening.accept()[0]
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._path)
        self._pairs[client], self._pairs[server] = server, client

    def _forward(self, side: socket.socket) -> None:
        other = self._pairs[side]
        try:
            octets = side.recv(65536)
            other.sendall(octets)
        except OSError:
            octets = b""
        if not octets:
            for each in (side, other):
                del self._pairs[each]
                each.close()
