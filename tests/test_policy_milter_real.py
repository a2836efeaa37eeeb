"""Real milters and a whole MSA: ClamAV and rspamd, as the documentation sets them up."""

import time
import tomllib
from base64 import encodebytes
from collections.abc import Sequence
from typing import Any

from digipoort_msa.config.settings import Settings
from digipoort_msa.smtp import reply
from tests.milter_servers import EICAR, MARKED, SPAM, VIRUS, ClamAV, Rspamd, page
from tests.msa_client import MESSAGE as UNUSUAL
from tests.msa_client import PATIENCE, stuffed
from tests.postfix import free_port
from tests.requirements import proves
from tests.test_service import ServiceTestCase

HEADER = b"From: <ik@mijnbedrijf.nl>\r\nTo: <belastingdienst@overheid.nl>\r\nSubject: een\r\n\ttwee\r\n"
CLEAN = HEADER + b"\r\nNiets bijzonders.\r\n.\r\n" + bytes({*range(256)} - {10, 13}) + b"\r\n"
INFECTED = HEADER + b"\r\n" + EICAR + b"\r\n"
MSA = "/etc/digipoort-msa/msa.toml"
TAKEN = "250 2.0.0 Ok: queued as "


class RealTestCase(ServiceTestCase):
    def page_settings(self, caption: str, socket: str, **tables: Any) -> Settings:
        """The page's, but for where it listens and what is this machine's."""
        document = tomllib.loads(page(MSA))
        self.settings()  # makes the certificate
        (realm,) = document["realm"] = tomllib.loads(page(caption))["realm"]
        (self.rule,) = realm["policy"]
        self.assertEqual(self.rule["rule"], "external")
        self.as_written = self.rule["external"]["socket"]
        self.rule["external"]["socket"] = socket
        document["server"] |= {"hostname": "localhost", "state-directory": str(self.folder / "state")}
        document["listener"][0]["endpoint"] = "tcp:0:interface=127.0.0.1"
        document["tls"] = {
            "certificate": str(self.cert.certificate),
            "private-key": str(self.cert.private_key),
        }
        document["passwords"] = {"memory-kib": 8, "time-cost": 1}
        document["delivery"] = {"to": "maildir", "maildir": {"directory": str(self.folder / "maildir")}}
        return Settings.model_validate({**document, **tables})

    async def submit(self, *contents: bytes) -> list[str]:
        """The reply to each end of data."""

        def script() -> list[str]:
            with self.client(self.ports()["implicit"], implicit=True) as client:
                client.reply()
                client.login()
                replies = []
                for content in contents:
                    said = client.ask("MAIL FROM:<ik@mijnbedrijf.nl>")
                    if said.startswith("250"):
                        client.ask("RCPT TO:<belastingdienst@overheid.nl>")
                        client.ask("DATA")
                        client.send(stuffed(content))
                        said = client.reply()
                    replies.append(said.removesuffix("\r\n"))
                return replies

        return await self.run_client(script)

    def serve(self, settings: Settings) -> None:
        self.add_account(settings)
        self.start(settings)

    async def assert_verdicts(self, expected: Sequence[tuple[bytes, str]]) -> None:
        """Each content with its reply; what is taken arrives as it was sent (M2)."""
        replies = await self.submit(*(content for content, _ in expected))
        for said, (_, reply_begins) in zip(replies, expected, strict=True):
            self.assertEqual(said[: len(reply_begins)], reply_begins)
        taken = [content for content, reply_begins in expected if reply_begins == TAKEN]
        new = self.folder / "maildir" / "new"
        await self.until(lambda: len(list(new.glob("*"))) == len(taken))
        arrived = [path.read_bytes() for path in new.glob("*")]
        for content in taken:
            self.assertEqual(sum(octets.endswith(b"\r\n" + content) for octets in arrived), 1)


class ClamAVTests(RealTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clamav = ClamAV()
        self.addCleanup(self.clamav.end)
        self.clamav.start()

    @proves("D2", "M2", "M6", "M10")
    async def test_as_on_the_page(self) -> None:
        self.serve(self.page_settings(MSA, f"unix:{self.clamav.socket}"))
        self.assertEqual(self.as_written, "unix:/run/clamav/clamav-milter.ctl")
        line = b"x" * 70 + b"\r\n"
        long = (line * 20_000)[: 15 * 65_535 - 34]  # two parts meet in what follows
        attachment = b"Mime-Version: 1.0\r\nContent-Type: image/gif\r\nContent-Transfer-Encoding: base64\r\n"
        encoded = encodebytes(EICAR).replace(b"\n", b"\r\n")
        refused = f"550 5.7.1 The message holds {VIRUS}"
        await self.assert_verdicts(
            [
                (CLEAN, TAKEN),
                (INFECTED, refused),
                (UNUSUAL, TAKEN),
                (HEADER + b"\r\n" + long + b"\r\n", TAKEN),
                (HEADER + b"\r\n" + long + EICAR + b"\r\n" + long + b"\r\n", refused),
                (HEADER + attachment + b"\r\n" + encoded, refused),
                (HEADER + b"X-Virus: " + EICAR + b"\r\n\r\n", refused),
                (HEADER + b"no field\r\n\r\n" + EICAR + b"\r\n", str(reply.HEADER_MALFORMED)),
            ]
        )
        self.assertIn("infected by", (self.clamav.directory / "clamav-milter.log").read_text())

    @proves("D2")
    async def test_away(self) -> None:
        """Without its scanner the milter defers; without the milter, the MSA does; then it comes back."""
        self.serve(self.page_settings(MSA, f"unix:{self.clamav.socket}"))
        self.clamav.scanner.end()
        await self.assert_verdicts([(CLEAN, str(reply.FILTER_DEFERS))])
        self.clamav.milter.end(0)
        await self.assert_verdicts([(CLEAN, str(reply.FILTER_UNAVAILABLE))] * 2)
        (event,) = self.events("milter-failed")
        self.assertIn("no connection", event["reason"])
        self.clamav.start()
        deadline = time.monotonic() + PATIENCE
        said = ""
        while not said.startswith("250") and time.monotonic() < deadline:  # its rest is of two seconds
            (said,) = await self.submit(CLEAN)
        self.assertEqual(said[: len(TAKEN)], TAKEN)
        self.assertEqual(len(self.events("milter-works")), 1)

    @proves("D2", "M2")
    async def test_as_debian_has_it(self) -> None:
        """It quarantines, and adds fields to what is clean."""
        milter, place = self.clamav.another({"OnInfected": "Quarantine", "AddHeader": "Replace"})
        self.addCleanup(milter.end, 0)
        milter.start(place)
        self.serve(self.page_settings(MSA, f"unix:{place}"))
        await self.assert_verdicts([(CLEAN, TAKEN), (INFECTED, str(reply.FILTER_REJECTS))])
        changes = [event["change"] for event in self.events("milter-change-left-out")]
        self.assertIn("change the header", changes)


class RspamdTests(RealTestCase):
    @proves("M2", "M10")
    async def test_as_on_the_page(self) -> None:
        rspamd = Rspamd(free_port())
        self.addCleanup(rspamd.end)
        rspamd.start()
        self.serve(self.page_settings("in " + MSA, f"127.0.0.1:{rspamd.port}"))
        self.assertEqual(self.as_written, "127.0.0.1:11332")
        spam, marked = (HEADER + b"\r\n" + words + b"\r\n" for words in (SPAM, MARKED))
        await self.assert_verdicts([(CLEAN, TAKEN), (spam, "554 5.7.1 Gtube pattern"), (marked, TAKEN)])
        queue_id = self.events("queued")[0]["queue_id"]
        seen = rspamd.program.log.read_text()
        who = "ip: 127.0.0.1, user: mijnbedrijf, from: <ik@mijnbedrijf.nl>"
        self.assertIn(f"qid: <{queue_id}>, {who}", seen)
        # It fails open.
        rspamd.program.end()
        self.assertEqual([said[:3] for said in await self.submit(spam)], ["250"])
        self.assertEqual(len(self.events("milter-passed-over")), 1)
