"""What a message flow asks of the header (M10)."""

import re
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.interfaces import IPolicy
from digipoort_msa.policy.headers import HeaderRules
from digipoort_msa.smtp.reply import Refused
from tests.msa import ClockTestCase
from tests.requirements import proves
from tests.spooling import envelope


class HeaderRulesTests(SynchronousTestCase):
    def verdict(self, head: bytes, *required: str, size: int = 65536, **patterns: str) -> str:
        """The reply's last words, or "passed"."""
        compiled = {name.replace("_", "-"): re.compile(pattern) for name, pattern in patterns.items()}
        rules = HeaderRules(required, compiled, size)
        verifyObject(IPolicy, rules)
        try:
            rules.content("piet", envelope(), head)
        except Refused as refused:
            return str(refused.reply)
        return "passed"

    MISSING = "550 5.7.1 The message flow requires the header X-Flow"
    NOT_ALLOWED = "550 5.7.1 The header X-Flow does not follow the message flow's pattern"

    @proves("M10")
    def test_required(self) -> None:
        for head in (
            b"X-Flow: 1\r\n\r\n",
            b"Subject: x\r\nx-FLOW :\r\n\r\nbody",
            b"X-Flow: 1",
            b"A: x\r\n folded\r\nX-Flow:\r\n\tfolded\r\n\r\n",
            b"no field\r\nX-Flow: 1\r\n\r\n",
        ):
            self.assertEqual(self.verdict(head, "X-Flow"), "passed", head)
        for head in (
            b"",
            b"\r\n",
            b"\r\nX-Flow: in the body\r\n",
            b"A: x\r\n\r\nX-Flow: in the body\r\n",
            b"A: x\r\n X-Flow: in a fold\r\n\r\n",
            b"X-Flow-2: x\r\n\r\n",
            b"A X-Flow: behind a word\r\n\r\n",
            b"words X-Flow: 1\r\n and (X-Flow: 1\r\n\r\n",
            b"A\xe9X-Flow: 1\r\n\r\n",
            b"(X-Flow: 1\r\n",
        ):
            self.assertEqual(self.verdict(head, "X-Flow"), self.MISSING, head)

    @proves("M10")
    def test_patterns(self) -> None:
        self.assertEqual(self.verdict(b"A: x\r\n\r\n", X_Flow="^[0-9]+$"), "passed")
        for head in (b"X-Flow: 12\r\n\r\n", b"x-flow:12\r\n\r\n", b"X-Flow:\r\n  12 \r\nX-Flow: 3\r\n\r\n"):
            self.assertEqual(self.verdict(head, X_Flow="^[0-9]+$"), "passed", head)
        for head in (
            b"X-Flow: a\r\n\r\n",
            b"X-Flow: 1\r\n 2x\r\n\r\n",
            b"X-Flow: 1\r\nX-Flow: b\r\n\r\n",
            b"X-Flow: \xff\r\n\r\n",
            b"X-Flow:\r\n\r\n",
        ):
            self.assertEqual(self.verdict(head, X_Flow="^[0-9]+$"), self.NOT_ALLOWED, head)
        self.assertEqual(self.verdict("X-Flow: café\r\n\r\n".encode(), X_Flow="é$"), "passed")

    @proves("M10")
    def test_size(self) -> None:
        header = b"A: " + b"x" * 93 + b"\r\n"
        self.assertEqual(len(header), 98)
        self.assertEqual(self.verdict(header + b"\r\nbody", size=98), "passed")
        self.assertEqual(self.verdict(header + b"\r\nbody", size=97)[:9], "552 5.3.4")
        endless = b"A: x\r\n" * 20_000
        self.assertEqual(self.verdict(endless[:65536], size=65536)[:9], "552 5.3.4")

    def test_a_header_made_to_be_slow(self) -> None:
        """64 KiB that a careless pattern reads over and over: seconds in which nobody else is served."""
        for head in (
            b"a" * 65536,
            b"a" * 65000 + b"\r\n\r\n",
            b"a" * 30000 + b" " * 30000 + b"\r\n\r\n",
            b"a:" * 32768,
            b"A:" + b"\r\n " * 20000 + b"\r\n\r\n",
            b"A\r\n" * 20000,
            b" a:b" * 16000,
        ):
            start = time.process_time()
            self.verdict(head, "X-Flow", X_Flow="x", size=65538)
            self.assertLess(time.process_time() - start, 0.5, head[:10])

    @settings(deadline=None, max_examples=300)
    @given(st.lists(st.sampled_from(["A", "X-Flow", ":", " ", "x", "\r\n", "\r\n ", "é"]), max_size=14))
    def test_as_a_plain_reading_has_it(self, parts: list[str]) -> None:
        head = "".join(parts)
        header = ("\r\n" + head).split("\r\n\r\n")[0][2:]
        lines = header.split("\r\n")
        present = any(re.match(r"X-Flow[ \t]*:", line, re.IGNORECASE) for line in lines)
        self.assertEqual(self.verdict(head.encode(), "X-Flow") == "passed", present)


class DialogueTests(ClockTestCase):
    @proves("M10", "M6")
    def test_a_message_that_does_not_conform(self) -> None:
        wire = self.logged_in(policies=(HeaderRules(("X-Flow",), {"X-Flow": re.compile("^a$")}, 1000),))
        for message, answer in (
            (b"Subject: x\r\n\r\n", "550 5.7.1"),
            (b"X-Flow: b\r\n\r\n", "550 5.7.1"),
            (b"X-Flow: a\r\nA: " + b"x" * 1000 + b"\r\n\r\n", "552 5.3.4"),
        ):
            self.assertEqual(wire.submit(message).split("\r\n")[3][:9], answer)
        self.assertEqual(self.spool.kept, [])
        self.assertTrue(all(incoming.aborted for incoming in self.spool.incoming))
        self.assertIn("queued as", wire.submit(b"X-Flow: a\r\n\r\nx\r\n"))
