"""A next hop that notes when each message came: the other end of :mod:`benchmarks.delay`.

    python -m benchmarks.stamps PORT

For every message it prints its Subject and the time of the system's monotonic clock.
"""

import asyncio
import re
import sys
import time

_SUBJECT = re.compile(rb"^Subject: (\S+)\r$", re.MULTILINE)
_GREETING = b"220 sink.example ESMTP\r\n"
_EHLO = b"250-sink.example\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
_REPLIES = {
    b"EHLO": _EHLO,
    b"DATA": b"354 Go on\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}
_OK = b"250 2.0.0 Ok\r\n"
_END = b"\r\n.\r\n"


class Sink(asyncio.Protocol):
    """One connection: commands until DATA, content until its end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._unread = b""
        self._in_content = False
        transport.write(_GREETING)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        replies = []
        while True:
            end = self._unread.find(_END if self._in_content else b"\r\n")
            if end < 0:
                break
            if self._in_content:
                found = _SUBJECT.search(self._unread, 0, end)
                print(found[1].decode() if found else "-", time.monotonic())
                self._unread = self._unread[end + len(_END) :]
                self._in_content = False
                replies.append(_OK)
            else:
                verb = self._unread[:4].upper()
                self._unread = self._unread[end + 2 :]
                self._in_content = verb == b"DATA"
                replies.append(_REPLIES.get(verb, _OK))
        if replies:
            self._transport.write(b"".join(replies))
        if replies and replies[-1] is _REPLIES[b"QUIT"]:
            self._transport.close()


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    asyncio.run(main(int(sys.argv[1])))
