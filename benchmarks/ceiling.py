"""A server of nothing but TLS: what an idle connection costs that has only OpenSSL's part.

It has the product's own TLS context, and pyOpenSSL connections over memory BIOs, as Twisted has; every line
is answered 250.  ``python -m benchmarks.ceiling CERTIFICATE KEY`` prints its port.
"""

import selectors
import socket
import sys
from contextlib import suppress
from pathlib import Path

from OpenSSL import SSL

from digipoort_msa.server.tls import ServerTLS, TLSFiles


class Connection:
    __slots__ = ("ready", "socket", "tls")

    def __init__(self, accepted: socket.socket, tls: SSL.Connection) -> None:
        self.socket = accepted
        self.tls = tls
        self.ready = False
        tls.set_accept_state()

    def readable(self) -> bool:
        """False when the client has gone."""
        octets = self.socket.recv(65536)
        if not octets:
            return False
        self.tls.bio_write(octets)
        try:
            if not self.ready:
                self.tls.do_handshake()
                self.ready = True
                self.tls.send(b"220 ready\r\n")
            while self.tls.recv(65536):
                self.tls.send(b"250 " + b"ok" * 100 + b"\r\n")
        except SSL.WantReadError:
            pass
        except (SSL.ZeroReturnError, SSL.Error):
            return False
        with suppress(SSL.WantReadError):
            self.socket.sendall(self.tls.bio_read(65536))
        return True


def main() -> None:
    server_tls = ServerTLS(TLSFiles(Path(sys.argv[1]), Path(sys.argv[2])))
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    print(listening.getsockname()[1], flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                accepted, _ = listening.accept()
                tls = server_tls.serverConnectionForTLS(None)  # type: ignore[arg-type]
                selector.register(accepted, selectors.EVENT_READ, Connection(accepted, tls))
            elif not key.data.readable():
                selector.unregister(key.fileobj)
                key.data.socket.close()


if __name__ == "__main__":
    main()
