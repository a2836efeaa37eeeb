"""The configurations on the pages of the documentation, made to run on this machine.

A page has a complete configuration in its first ``.. code-block:: toml``; further ones are parts, to be put
in its place.  What is made of one differs from the page only in what a machine has of its own: ports, paths
and certificates.
"""

import re
import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from digipoort_msa.config import load
from digipoort_msa.config.settings import Settings
from tests.test_service import ServiceTestCase

DOCS = Path(__file__).resolve().parent.parent / "docs"
_BLOCK = re.compile(r"^( *)\.\. code-block:: toml\n(?: +:[a-z-]+:.*\n)*\n((?:\1   .*\n|\n)+)", re.MULTILINE)


def blocks(page: str) -> list[str]:
    """Every piece of TOML on a page.

    :param page: such as ``"mechanisms/external"``.
    """
    text = (DOCS / f"{page}.rst").read_text(encoding="utf-8")
    return [textwrap.dedent(block) for _, block in _BLOCK.findall(text)]


class PageTestCase(ServiceTestCase):
    """Runs the configuration of a page."""

    page: str

    def page_settings(self, *, files: Mapping[str, Path] | None = None, **tables: Any) -> Settings:
        """The page's complete configuration, with which ``digipoort-msa check`` finds no fault but its files.

        :param files: paths on the page, and what they are here.
        :param tables: what takes the place of some of the page's.
        """
        written = blocks(self.page)[0]
        document = {**tomllib.loads(written), **tables}
        self.settings()  # makes the certificate
        as_copied = self.folder.with_suffix(".toml")
        as_copied.write_text(written, encoding="utf-8")
        load(as_copied, files=False)
        document["server"] = {
            **document["server"],
            "hostname": "localhost",
            "state-directory": str(self.folder / "state"),
        }
        for listener in document["listener"]:
            listener["endpoint"] = "tcp:0:interface=127.0.0.1"
        document["tls"] = {
            **document.get("tls", {}),
            "certificate": str(self.cert.certificate),
            "private-key": str(self.cert.private_key),
        }
        document["passwords"] = {"memory-kib": 8, "time-cost": 1}
        document["delivery"] = {"to": "maildir", "maildir": {"directory": str(self.folder / "maildir")}}
        return Settings.model_validate(_replaced(document, files or {}))


def _replaced(value: Any, files: Mapping[str, Path]) -> Any:
    if isinstance(value, dict):
        return {name: _replaced(each, files) for name, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, files) for each in value]
    return str(files[value]) if isinstance(value, str) and value in files else value
