"""The example on the profile's page, as it is there, in force in a whole MSA."""

import re
import tomllib
from base64 import encodebytes
from pathlib import Path

from digipoort_msa.config.settings import Settings
from digipoort_msa.policy.profile.violation import OF_SIZE
from tests.msa_client import stuffed
from tests.requirements import proves
from tests.test_service import ServiceTestCase

PAGE = (Path(__file__).resolve().parent.parent / "docs/policies/profile.rst").read_text(encoding="utf-8")
SUBJECT = "[V=NL123456789.02.05][A=DMS.NL][K=22096222734662][S=0]"


def example() -> str:
    """The TOML of the page."""
    block = re.search(r"\.\. code-block:: toml\n\n((?:   .*\n|\n)+)", PAGE)
    assert block is not None
    return re.sub(r"(?m)^   ", "", block[1])


def declaration(*parts: bytes, subject: str = SUBJECT, more: str = "") -> bytes:
    """A message of the flow."""
    header = (
        "Date: Sun, 22 Nov 2026 12:00:00 +0100\r\nFrom: aangifte@bedrijf.example\r\n"
        f"To: dms@core.example.nl\r\nSubject: {subject}\r\nMessage-ID: <1@bedrijf.example>\r\n"
        f"MIME-Version: 1.0\r\n{more}"
        'Content-Type: multipart/mixed;\r\n boundary="----=_Part_1"\r\n\r\n'
    )
    body = b"".join(b"------=_Part_1\r\n" + part + b"\r\n" for part in parts)
    return header.encode() + body + b"------=_Part_1--\r\n"


def xml(content: bytes = b"<aangifte/>", name: str = "aangifte.xml") -> bytes:
    header = (
        "Content-Type: application/xml\r\nContent-Transfer-Encoding: base64\r\n"
        f"Content-Disposition: attachment; filename={name}\r\n\r\n"
    )
    return header.encode() + encodebytes(content).replace(b"\n", b"\r\n")


TEXT = b"Content-Type: text/plain; charset=utf-8\r\n\r\nBijgaand de aangifte."
PDF = xml().replace(b"application/xml", b"application/pdf")

MESSAGES = (
    (declaration(TEXT, xml()), None),
    (declaration(*(xml(name=f"deel-{number}.xml") for number in range(10))), None),
    (declaration(TEXT, xml(b"<" + b"a" * 400_000 + b"/>")), None),
    (declaration(TEXT, xml(), subject="Aangifte"), "header-pattern (Subject)"),
    (declaration(TEXT, xml()).replace(b"Message-ID", b"X-ID"), "required-header (Message-ID)"),
    (declaration(TEXT, xml(), more="Bcc: a@b.nl\r\n"), "forbidden-header (Bcc)"),
    (declaration(TEXT, xml(), more="To: a@b.nl\r\n"), "single-header (To)"),
    (declaration(TEXT, xml(), more="X: " + "x" * 16_384 + "\r\n"), "header-size (the message)"),
    (declaration(TEXT), "attachment-count (the message)"),
    (declaration(*[xml()] * 11), "attachment-count (the message)"),
    (declaration(xml(), PDF), "attachment-type (attachment 2)"),
    (declaration(xml(name="aangifte.exe")), "attachment-name (attachment 1)"),
    (declaration(xml(b"x" * 10_485_761)), "attachment-size (attachment 1)"),
    (declaration(TEXT.replace(b"utf-8", b"utf-16"), xml()), "charset (part 1)"),
    (declaration(b"Content-Transfer-Encoding: 8bit\r\n" + TEXT), "encoding (part 1)"),
    (declaration(declaration(xml()).partition(b"MIME-Version: 1.0\r\n")[2]), "nesting (part 1)"),
    (declaration(xml()).replace(b"_Part_1--", b"_Part_2--"), "well-formed (part 1)"),
    (b"".join(declaration(xml()).partition(b"Subject")[1:]), "required-header (Date)"),
)


class ExampleTests(ServiceTestCase):
    def example_settings(self) -> Settings:
        """The page's, but for where it listens and what is this machine's."""
        document = tomllib.loads(example())
        self.settings()  # makes the certificate
        document["server"] |= {"hostname": "localhost", "state-directory": str(self.folder / "state")}
        document["listener"][0]["endpoint"] = "tcp:0:interface=127.0.0.1"
        document["tls"] = {
            "certificate": str(self.cert.certificate),
            "private-key": str(self.cert.private_key),
        }
        document["passwords"] = {"memory-kib": 8, "time-cost": 1}
        document["delivery"] = {"to": "maildir", "maildir": {"directory": str(self.folder / "maildir")}}
        document["realm"][0]["addresses"] = {"mijnbedrijf": ["*@bedrijf.example"]}
        return Settings.model_validate(document)

    @proves("M10")
    async def test_the_flow(self) -> None:
        settings = self.example_settings()
        self.add_account(settings)
        self.start(settings)
        port = self.ports()["implicit"]

        def script() -> list[str]:
            replies = []
            with self.client(port, implicit=True) as client:
                client.reply()
                client.login()
                for message, _ in MESSAGES:
                    for command in ("MAIL FROM:<a@bedrijf.example>", "RCPT TO:<dms@core.example.nl>", "DATA"):
                        client.ask(command)
                    client.send(stuffed(message))
                    replies.append(client.reply())
            return replies

        for said, (_, refusal) in zip(await self.run_client(script), MESSAGES, strict=True):
            if refusal is None:
                self.assertIn("250 2.0.0 Ok: queued as", said)
            else:
                code = "552 5.3.4" if refusal.split()[0] in OF_SIZE else "550 5.7.1"
                profile = "The message flow's profile customs-declarations refuses this:"
                self.assertEqual(said, f"{code} {profile} {refusal}\r\n")
        refused = [event for event in self.events("refused") if "customs-declarations" in event["reason"]]
        self.assertEqual(len(refused), sum(1 for _, refusal in MESSAGES if refusal))
