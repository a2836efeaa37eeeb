"""Regular expressions that Debian's Python reads as later ones do.

Before 3.11.5, a possessive group whose last round fails half-way has swallowed that half: ``(?:\\r\\n x)*+``
took the CRLF before a line that is no continuation (gh-106052), so that no header section was well-formed.
Possessive characters (``[a-z]++``) are sound.
"""

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import digipoort_msa
from digipoort_msa.policy.header_section import HeaderSection
from digipoort_msa.policy.mailboxes import Unreadable, mailboxes

_GROUP = re.compile(r"\)(?:[*+?]|\{\d*,?\d*\})\+")


class PossessiveTests(SynchronousTestCase):
    def test_no_group_is(self):
        for path in sorted(Path(digipoort_msa.__file__).parent.rglob("*.py")):
            self.assertIsNone(_GROUP.search(path.read_text(encoding="utf-8")), path)

    def test_what_went_wrong(self):
        section = HeaderSection()
        section.push(b"From: a@example.nl\r\nSubject: one\r\n two\r\n\r\n")
        assert section.fields is not None
        self.assertEqual([one.octets for one in section.fields], [b"a@example.nl", b"one two"])
        for body in ("a.@example.nl", '"a\\"@example.nl'):
            self.assertRaises(Unreadable, mailboxes, body)
