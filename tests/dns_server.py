"""A small DNS server on loopback, over UDP and TCP, in threads of its own; answers are what a test says."""

import socket
import struct
import threading
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

#: Makes a whole answer of a question; ``None`` says nothing.
Answering = Callable[[dns.message.Message], dns.message.Message | bytes | None]


class DNSServer:
    """Zones as text: ``{("example.nl", "MX"): ["10 one.example.nl."]}``.

    :ivar rcode: of every answer, where it is not NOERROR.
    :ivar authenticated: answers have the AD flag.
    :ivar silent: there are no answers.
    :ivar answering: takes the place of all this.
    """

    def __init__(self) -> None:
        self.zone: dict[tuple[str, str], list[str]] = {}
        self.ttl = 300
        self.rcode = dns.rcode.NOERROR
        self.authenticated = False
        self.silent = False
        self.answering: Answering = self._answer
        self.asked: list[tuple[str, str]] = []  # "udp" or "tcp", and the question
        self._udp, self._tcp = _bound()
        self._tcp.listen()
        self._threads = [threading.Thread(target=serve) for serve in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    @property
    def address(self) -> str:
        host, port = self._udp.getsockname()
        return f"{host}:{port}"

    def stop(self) -> None:
        address = self._udp.getsockname()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", address)
        with socket.create_connection(address):
            pass
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        while True:
            octets, peer = self._udp.recvfrom(65_535)
            if not octets:
                return
            answer = self._answered("udp", octets)
            if answer is not None:
                self._udp.sendto(answer, peer)

    def _serve_tcp(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            with connection, connection.makefile("rb") as stream:
                length = stream.read(2)
                if not length:
                    return
                answer = self._answered("tcp", stream.read(*struct.unpack("!H", length)))
                if answer is not None:
                    connection.sendall(struct.pack("!H", len(answer)) + answer)

    def _answered(self, transport: str, octets: bytes) -> bytes | None:
        query = dns.message.from_wire(octets)
        self.asked.append((transport, str(query.question[0])))
        answer = None if self.silent else self.answering(query)
        if answer is None or isinstance(answer, bytes):
            return answer
        try:
            return answer.to_wire(max_size=query.payload or 512 if transport == "udp" else 65_535)
        except dns.exception.TooBig:
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC
            return short.to_wire()

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        answer.set_rcode(self.rcode)
        if self.authenticated:
            answer.flags |= dns.flags.AD
        name = query.question[0].name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        if self.rcode == dns.rcode.NOERROR:
            if not any(known == name for known, _ in self.zone):
                answer.set_rcode(dns.rcode.NXDOMAIN)
            for its_kind in ("CNAME", kind):
                records = self.zone.get((name, its_kind))
                if records:
                    answer.answer.append(
                        dns.rrset.from_text(query.question[0].name, self.ttl, "IN", its_kind, *records)
                    )
        return answer


def _bound() -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on the same port, which is free for both."""
    while True:
        udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
        tcp.bind(("127.0.0.1", 0))
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
        else:
            return udp, tcp
