"""What a message flow asks of the header (M10, seed 1.3): required fields, patterns, and a size.

Only the first 64 KiB of a message are seen; a header section that does not end there is refused.
"""

import re
from collections.abc import Iterator, Mapping

from attrs import define

from digipoort_msa.identity import Identity
from digipoort_msa.policy.rule import Judgement, Rule
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import Trace
from digipoort_msa.smtp.reply import Refused

_HEAD = 65_536  # octets of a message that are looked at

# At the start of a line only: a name inside another field's body, or behind a fold, is no field.  Possessive,
# so that a line of 64 KiB costs one look at it.
_FIELD = re.compile(rb"^([!-9;-~]++)[ \t]*+:((?:[^\r]|\r\n[ \t])*+)\r\n", re.MULTILINE)


@define
class HeaderRules(Rule):
    """The header rules of one realm; the reply names the field, as the operator wrote it."""

    required: tuple[str, ...]
    patterns: Mapping[str, re.Pattern[str]]  # field name -> found in every field of that name
    maximum_size: int  # octets of the header section

    def begin(self, identity: Identity, trace: Trace) -> Judgement:
        return _Judgement(self)

    def judge(self, head: bytes) -> None:
        """:raise Refused: the header section in ``head`` breaks a rule."""
        section = (b"\r\n" + head).partition(b"\r\n\r\n")[0][2:] + b"\r\n"
        if len(section) > self.maximum_size:
            raise Refused(reply.HEADER_TOO_BIG, f"a header section of over {self.maximum_size} octets")
        fields = list(_fields(section))
        present = {name for name, _ in fields}
        for name in self.required:
            if name.lower() not in present:
                raise Refused(reply.missing_header(name), f"no {name} field")
        for name, pattern in self.patterns.items():
            for found, value in fields:
                if found == name.lower() and not pattern.search(value):
                    raise Refused(reply.header_not_allowed(name), f"{name} does not match {pattern.pattern}")


@define
class _Judgement(Judgement):
    _rule: HeaderRules
    _head: bytes = b""

    def write(self, octets: bytes) -> None:
        if len(self._head) < _HEAD:
            self._head += octets

    def complete(self) -> None:
        self._rule.judge(self._head[:_HEAD])


def _fields(section: bytes) -> Iterator[tuple[str, str]]:
    """Each field's name in lower case, and its unfolded value (RFC 5322 2.2.3)."""
    for match in _FIELD.finditer(section):
        value = match[2].replace(b"\r\n", b"").decode("utf-8", "replace").strip()
        yield match[1].decode("ascii").lower(), value
