"""Makes the catalogue of replies, for those who write a client: what each says, and what to do then.

``python docs/reply_table.py`` prints it as reStructuredText; the documentation build runs it.  The texts come
from :mod:`digipoort_msa.smtp.reply`, the advice from ``reply_advice.toml``, which has a line for every reply.
"""

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from restructured_text import list_table, literal, section  # noqa: E402

from digipoort_msa.smtp import reply  # noqa: E402
from digipoort_msa.smtp.reply import Reply  # noqa: E402

_TITLES = {
    2: "2yz: done",
    3: "3yz: go on",
    4: "4yz: not now; the same may work later",
    5: "5yz: no; the same will not work later",
}


def advice() -> Mapping[str, str]:
    """What to do, by the reply's name in the catalogue."""
    return tomllib.loads((DOCS / "reply_advice.toml").read_text(encoding="utf-8"))


def replies() -> dict[str, Reply]:
    """Every reply there is, by name; those that are built have a sample's values."""
    fixed = {name: value for name, value in vars(reply).items() if isinstance(value, Reply)}
    return {
        **fixed,
        "greeting": reply.greeting("msa.example.nl"),
        "hello": reply.hello("msa.example.nl", "KEYWORD"),
        "queued": reply.queued("ID"),
        "challenge": Reply(334, None, ("BASE64",)),
        "profile_refuses": reply.profile_refuses("NAME", "RULE", "WHERE", of_size=False),
        "header_sender_not_yours": reply.header_sender_not_yours("From"),
        "header_sender_unclear": reply.header_sender_unclear("From"),
        "rate_exceeded": reply.rate_exceeded("messages", 36),
        "rate_never": reply.rate_never("octets"),
        "passed_on": reply.passed_on(Reply(550, "5.1.1", ("WORDS OF THE NEXT HOP",))),
    }


def text() -> str:
    known, what_to_do = replies(), advice()
    ordered = sorted(known.items(), key=lambda item: (item[1].code, item[1].enhanced or ""))
    sections = []
    for first, title in _TITLES.items():
        rows = [
            (
                f"{said.code} {said.enhanced or ''}".strip(),
                literal(" / ".join(said.lines)),
                what_to_do.get(name, ""),
            )
            for name, said in ordered
            if said.code // 100 == first
        ]
        sections.append(section(title))
        sections.append(list_table(("Code", "Text", "When it is sent; what to do"), (10, 40, 50), rows))
    return "\n".join(sections)


if __name__ == "__main__":
    print(text())
