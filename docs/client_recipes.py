"""Makes the clients' recipes from those that the sandbox prints (:mod:`digipoort_msa.admin.recipes`): the
same commands, with placeholders for what differs from one place to another.

``python docs/client_recipes.py`` prints them as reStructuredText; the documentation build runs it.  The tests
take every block marked ``:class: recipe`` from the page, put a sandbox's values in and run it.
"""

import base64
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from restructured_text import section  # noqa: E402

from digipoort_msa.admin.recipes import Sandbox, recipes  # noqa: E402

HOST = "msa.example.nl"
PAGE = Sandbox(
    host=HOST,
    starttls_port=587,
    implicit_port=465,
    account="ACCOUNT",
    password="PASSWORD",  # noqa: S106 (a placeholder)
    realm="overheidstransactiepoort.nl",
    ca=Path("/path/to/ca.pem"),
    maildir=Path("/nowhere"),
)
_WIDTH = 88
_BLOCK = re.compile(r"^\.\. code-block:: sh\n   :class: recipe\n\n((?:   .*\n|\n)+)", re.MULTILINE)


def text() -> str:
    token = base64.b64encode(f"\0{PAGE.account}\0{PAGE.password}".encode()).decode()
    sections = []
    for client, command in recipes(PAGE).items():
        title = client.replace(f"AUTH PLAIN {token}", "AUTH PLAIN and the token")
        lines = _folded(command.replace("localhost", HOST).strip()).splitlines()
        sections.append(f"{section(title)}\n.. code-block:: sh\n   :class: recipe\n")
        sections.append("\n".join(f"   {line}".rstrip() for line in lines) + "\n")
    return "\n".join(sections)


def blocks(page: str) -> list[str]:
    """The recipes on a page, each as it would be typed into a shell."""
    return [
        "\n".join(line.removeprefix("   ") for line in block.rstrip().splitlines())
        for block in _BLOCK.findall(page)
    ]


def filled_in(command: str, sandbox: Sandbox) -> str:
    """A block with a sandbox's values in place of the placeholders."""
    for placeholder, value in {
        f"{HOST}:465": f"localhost:{sandbox.implicit_port}",
        f"{HOST}:587": f"localhost:{sandbox.starttls_port}",
        f'"{HOST}", 465': f'"localhost", {sandbox.implicit_port}',
        f'"{HOST}", 587': f'"localhost", {sandbox.starttls_port}',
        HOST: "localhost",
        "ACCOUNT": sandbox.account,
        "PASSWORD": sandbox.password,
        str(PAGE.ca): str(sandbox.ca),
        PAGE.realm: sandbox.realm,
    }.items():
        command = command.replace(placeholder, value)
    return command


def _folded(command: str) -> str:
    """A long command on several lines; a script inside quotation marks stays as it is."""
    if "\n" in command:
        return command
    first, *words = re.split(r" (?=--|\| )", command)
    lines = [first]
    for word in words:
        if word.startswith("| ") or len(lines[-1]) + len(word) > _WIDTH:
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return " \\\n".join(lines)


if __name__ == "__main__":
    print(text())
