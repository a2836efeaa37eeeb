"""What a milter is told of a transaction and of a content."""

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.policy.header_section import HeaderFault
from digipoort_msa.policy.milter import told
from digipoort_msa.policy.milter.content import Content
from digipoort_msa.policy.milter.content import told as told_field
from digipoort_msa.policy.milter.packets import CHUNK
from digipoort_msa.smtp.envelope import NULL_PATH, MailParameters, Path
from tests.milter import IDENTITY, SENDER, TRACE


class TransactionTests(SynchronousTestCase):
    def test_connection(self) -> None:
        for address, data in {
            "192.0.2.1": b"unknown\x004\0\x00192.0.2.1\0",
            "2001:db8::1": b"unknown\x006\0\x002001:db8::1\0",
            "fe80::1%eth0": b"unknown\x006\0\0fe80::1\0",
            "local": b"localhost\0U",
        }.items():
            found, macros = told.connection(evolve(TRACE, client_address=address))
            self.assertEqual(found, data)
            self.assertEqual(macros["j"], "msa.example.nl")
            self.assertEqual("{client_addr}" in macros, address != "local")

    def test_macros_of_the_connection(self) -> None:
        _, macros = told.connection(TRACE)
        self.assertEqual(
            macros,
            {
                "j": "msa.example.nl",
                "{daemon_name}": "msa.example.nl",
                "{tls_version}": "TLSv1.3",
                "{cipher}": "TLS_AES_256_GCM_SHA384",
                "{client_addr}": "192.0.2.1",
                "{client_name}": "unknown",
                "_": "unknown [192.0.2.1]",
            },
        )
        _, macros = told.connection(evolve(TRACE, tls=None))
        self.assertNotIn("{tls_version}", macros)

    def test_sender(self) -> None:
        data, macros = told.sender(IDENTITY, SENDER, MailParameters())
        self.assertEqual(data, b"<a@example.nl>\0")
        self.assertEqual(macros, {"{auth_authen}": "business", "{mail_addr}": "a@example.nl"})
        parameters = MailParameters(size=7, body_8bitmime=True, smtputf8=True, envid="x")
        data, _ = told.sender(IDENTITY, Path("é", "example.nl"), parameters)
        self.assertEqual(data, "<é@example.nl>\0SIZE=7\0BODY=8BITMIME\0SMTPUTF8\0".encode())
        self.assertEqual(told.sender(IDENTITY, NULL_PATH, MailParameters())[0], b"<>\0")

    def test_recipient(self) -> None:
        data, macros = told.recipient("Q1", Path("b", "example.nl"))
        self.assertEqual(data, b"<b@example.nl>\0")
        self.assertEqual(macros, {"i": "Q1", "{rcpt_addr}": "b@example.nl"})


class ContentTests(SynchronousTestCase):
    def read(
        self, message: bytes, *cuts: int, leading_space: bool = False
    ) -> tuple[list[bytes], list[bytes]]:
        content, parts, last = Content(), [], 0
        for cut in [*sorted(cuts), len(message)]:
            content.push(message[last:cut])
            last = max(last, cut)
            parts += content.parts()
        content.close()
        if rest := content.rest():
            parts.append(rest)
        self.assertEqual(content.size, len(message))
        return [told_field(one, leading_space=leading_space) for one in content.fields or ()], parts

    def test_header(self) -> None:
        message = b"From: a\r\nX:b\r\nSUBJECT:  \tone\r\n\ttwo \r\n three\r\nEmpty:\r\n\r\nbody\r\n"
        fields, parts = self.read(message)
        self.assertEqual(
            fields, [b"From\0a\0", b"X\0b\0", b"SUBJECT\0 \tone\n\ttwo \n three\0", b"Empty\0\0"]
        )
        self.assertEqual(parts, [b"body\r\n"])
        fields, _ = self.read(message, leading_space=True)
        self.assertEqual(
            fields, [b"From\0 a\0", b"X\0b\0", b"SUBJECT\0  \tone\n\ttwo \n three\0", b"Empty\0\0"]
        )

    def test_nothing_but_one_of_them(self) -> None:
        self.assertEqual(self.read(b"\r\nbody\r\n"), ([], [b"body\r\n"]))
        self.assertEqual(self.read(b"A: b\r\n"), ([b"A\0b\0"], []))
        self.assertEqual(self.read(b"A: b\r\n\r\n"), ([b"A\0b\0"], []))
        self.assertEqual(self.read(b""), ([], []))

    def test_parts(self) -> None:
        """Of 65,535 octets, but the last; the body's octets are what they are."""
        body = bytes(range(256)) * 600
        _, parts = self.read(b"A: b\r\n\r\n" + body)
        self.assertEqual([len(part) for part in parts], [CHUNK, CHUNK, len(body) - 2 * CHUNK])
        self.assertEqual(b"".join(parts), body)

    @given(st.lists(st.integers(0, 200), max_size=12))
    def test_cut_anywhere(self, cuts: list[int]) -> None:
        message = b"From: a\r\nSubject: b\r\n c\r\n\r\n" + b"0123456789\r\n" * 12
        fields, parts = self.read(message, *cuts)
        self.assertEqual(fields, [b"From\0a\0", b"Subject\0b\n c\0"])
        self.assertEqual(b"".join(parts), b"0123456789\r\n" * 12)

    def test_what_cannot_be_told(self) -> None:
        """A milter would build something else from it than the receiver reads."""
        for message in (
            b"From: a\r\nno field\r\n\r\n",
            b" From: a\r\n\r\n",
            b"From : a\r\n\r\n",
            b"A: b\r\n \r\nB: c\r\n\r\n",
            b"A: b\0c\r\n\r\n",
            b"A: " + b"x" * 70_000 + b"\r\n\r\n",
            b"A: x\r\n" * 1_001 + b"\r\n",
        ):
            with self.assertRaises(HeaderFault):
                self.read(message)
