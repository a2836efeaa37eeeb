"""``digipoort-msa queue`` run on a spool under test."""

import json
from typing import Any

from click.testing import CliRunner, Result

from digipoort_msa.admin.commands import main
from tests.inspecting import InspectionTestCase

CONFIGURATION = """
[server]
hostname = "msa.example.nl"
state-directory = "{directory}"

[[listener]]
endpoint = "tcp:0:interface=127.0.0.1"
tls = "starttls"

[tls]
certificate = "{directory}/certificate.pem"
private-key = "{directory}/key.pem"

[[realm]]
name = "overheidstransactiepoort.nl"
store = "sql"
notification = {{recipients = ["*@example.nl"]}}

[[realm]]
name = "maildir.nl"

[realm.delivery]
to = "maildir"

[realm.delivery.maildir]
directory = "{directory}/core"

[delivery]
to = "{to}"

[delivery.relay]
next-hops = ["core.example.nl:25"]

[spool]
watermark = 1048576
{spool}
"""


class QueueCommandTestCase(InspectionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.config = self.directory.parent / "msa.toml"
        self.configure()

    def configure(self, **values: object) -> None:
        given = {"directory": self.directory.parent, "to": "relay", "spool": "", **values}
        self.config.write_text(CONFIGURATION.format(**given))

    def run_command(self, *arguments: object, code: int = 0, answer: str = "") -> Result:
        words = ["--config", str(self.config), "queue", *map(str, arguments)]
        result: Result = CliRunner().invoke(main, words, input=answer)
        unexpected = result.exception
        if unexpected is not None and not isinstance(unexpected, SystemExit):
            raise unexpected
        self.assertEqual(code, result.exit_code, result.output)
        return result

    def printed(self, *arguments: object, **more: Any) -> str:
        """What is on standard output; nothing may be on standard error."""
        result = self.run_command(*arguments, **more)
        self.assertEqual("", result.stderr)
        return result.stdout

    def complaint(self, *arguments: object, code: int = 1, **more: Any) -> str:
        """What is on standard error."""
        return self.run_command(*arguments, code=code, **more).stderr

    def document(self, *arguments: object, **more: Any) -> Any:
        return json.loads(self.run_command(*arguments, "--json", **more).stdout)
