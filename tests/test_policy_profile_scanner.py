"""The structure of messages: as they should be, cut anywhere, and made by somebody who means harm."""

import email
import email.policy
import tracemalloc
from base64 import encodebytes
from collections.abc import Iterator
from email.message import EmailMessage, Message
from itertools import repeat
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.policy.profile.scanner import Bounds, Ended, Event, Opened, Scanner
from digipoort_msa.policy.profile.violation import Violation
from tests.requirements import proves


def events(*segments: bytes, **bounds: int) -> Iterator[Event | Violation]:
    """What a scan says, a violation last."""
    scanner = Scanner(Bounds(**bounds))
    try:
        for segment in segments:
            yield from scanner.push(segment)
        yield from scanner.close()
    except Violation as violation:
        yield violation


def told(event: Event | Violation) -> tuple[Any, ...]:
    if isinstance(event, Violation):
        return event.rule, event.where, event.cause
    if isinstance(event, Ended):
        return event.entity.number, event.size, event.eight_bit
    found = event.entity
    return found.number, found.content_type, found.charset, found.encoding, found.disposition, found.names


def scan(*segments: bytes, **bounds: int) -> list[tuple[Any, ...]]:
    return list(map(told, events(*segments, **bounds)))


def parts(*segments: bytes, **bounds: int) -> list[tuple[str, str, int | None]]:
    """Number, type and size of each part; the size of a multipart is ``None``."""
    found: dict[str, tuple[str, str, int | None]] = {}
    for event in events(*segments, **bounds):
        assert not isinstance(event, Violation), event
        size = event.size if isinstance(event, Ended) else None
        found[event.entity.number] = event.entity.number, event.entity.content_type, size
    return list(found.values())


def multipart(*bodies: bytes, boundary: bytes = b"b", header: bytes = b"") -> bytes:
    """A multipart of whole parts, each with its header."""
    written = b"".join(b"--" + boundary + b"\r\n" + body + b"\r\n" for body in bodies)
    field = b"Content-Type: multipart/mixed; boundary=" + boundary
    return field + b"\r\n" + header + b"\r\n" + written + b"--" + boundary + b"--\r\n"


class StructureTests(SynchronousTestCase):
    @proves("M10")
    def test_without_parts(self) -> None:
        self.assertEqual(parts(b"A: x\r\n\r\nhello\r\n"), [("", "text/plain", 7)])
        self.assertEqual(parts(b"A: x\r\n\r\n"), [("", "text/plain", 0)])
        self.assertEqual(parts(b"A: x\r\n"), [("", "text/plain", 0)])
        self.assertEqual(parts(b"\r\n--b\r\n"), [("", "text/plain", 5)])

    @proves("M10")
    def test_parts(self) -> None:
        inner = multipart(b"\r\none", b"Content-Type: application/XML\r\n\r\n<two/>\r\n", boundary=b"inner")
        self.assertEqual(
            parts(multipart(b"\r\n", inner, b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\n")),
            [
                ("", "multipart/mixed", None),
                ("1", "text/plain", 0),
                ("2", "multipart/mixed", None),
                ("2.1", "text/plain", 3),
                ("2.2", "application/xml", 8),
                ("3", "message/rfc822", 14),
            ],
        )

    def test_an_empty_part_of_which_the_line_end_is_the_delimiters(self) -> None:
        self.assertEqual(parts(multipart(b""))[1:], [("1", "text/plain", 0)])

    def test_around_the_parts(self) -> None:
        head, _, rest = multipart(b"\r\nx").partition(b"\r\n\r\n")
        for message in (
            head + b"\r\n\r\nThis is MIME.\r\n" + rest + b"\r\nThe end.\r\n",
            head + b"\r\n\r\n\r\n" + rest,
            (head + b"\r\n\r\n" + rest).replace(b"--b\r\n", b"--b \t\r\n").replace(b"--b--", b"--b--  "),
        ):
            self.assertEqual(parts(message)[1:], [("1", "text/plain", 1)])

    def test_a_digest(self) -> None:
        message = multipart(b"\r\nSubject: x\r\n\r\n").replace(b"mixed", b"digest")
        self.assertEqual(parts(message)[1:], [("1", "message/rfc822", 14)])

    def test_what_looks_like_a_boundary(self) -> None:
        for line in (b"--c", b"-b", b" --b", b"--B", b"x--b", b"--", b"--\r\n--\r\n"):
            message = multipart(b"\r\n" + line)
            self.assertEqual(parts(message)[1:], [("1", "text/plain", len(line))], line)

    @proves("M10")
    def test_sizes_are_those_of_what_is_decoded(self) -> None:
        for octets in (b"", b"a", b"ab", b"abc", bytes(range(256)) * 3):
            for line_end in (b"\r\n", b" \r\n\r\n\t"):
                body = encodebytes(octets).replace(b"\n", line_end)
                part = b"Content-Transfer-Encoding: BASE64\r\n\r\n" + body
                self.assertEqual(parts(multipart(part))[1][2], len(octets))
        for body, size in (
            (b"=41b=C3=a9", 4),
            (b"a=\r\nb", 2),
            (b"a=\r\n", 1),
            (b"a=", 1),
            (b"=3D=\r\n=3D\r\nx", 5),
        ):
            part = b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + body
            self.assertEqual(parts(multipart(part))[1][2], size, body)

    def test_octets_above_127(self) -> None:
        part = b"Content-Transfer-Encoding: 8bit\r\n\r\n"
        self.assertEqual(scan(multipart(part + b"\xff"))[-1], ("1", 1, True))
        self.assertEqual(scan(multipart(part + b"x"))[-1], ("1", 1, False))


class WellFormedTests(SynchronousTestCase):
    """What programs in use read in different ways is refused, never guessed at."""

    def fault(self, message: bytes, where: str = "part 1") -> str:
        rule, place, cause = scan(message)[-1]
        self.assertEqual((rule, place), ("well-formed", where), message)
        for cut in range(len(message)):
            self.assertEqual(scan(message[:cut], message[cut:])[-1], (rule, place, cause))
        return str(cause)

    @proves("M10")
    def test_headers(self) -> None:
        for header in (
            b"no field",
            b"A : x",
            b"A: x\0",
            b"A: \xff",
            b"Content-Type: text/plain\r\nContent-Type: text/html",
            b"Content-Disposition: inline\r\ncontent-disposition: inline",
            b"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64",
            b"Content-Type: text",
            b"Content-Type:",
            b"Content-Type: text/plain (a comment)",
            b"Content-Type: text/(a comment)plain",
            b"Content-Type: text/plain; charset=utf-8 (a comment)",
            b"Content-Type: text/plain; charset = utf-8",
            b"Content-Type: text/plain; charset=utf-8; charset=us-ascii",
            b"Content-Type: text/plain; charset*=utf-8''utf-8",
            b'Content-Type: text/plain; name="a',
            b'Content-Type: text/plain; name="a\\b"',
            b"Content-Type: text/plain; name=a.xml, text/html",
            b"Content-Type: text/plain; name*=a.xml",
            b"Content-Type: text/plain; name*=utf-8''%FF",
            b"Content-Type: text/plain; name*=utf-8''%0a",
            b"Content-Type: text/plain; name*=utf-8''%4",
            b"Content-Type: text/plain; name*=idna''a",
            b"Content-Type: text/plain; name*0=a; name*2=b",
            b"Content-Type: text/plain; name*0=a; name*00=b",
            b"Content-Type: text/plain; name*0=a; name*1*=%20",
            b'Content-Type: text/plain; name="=?utf-8?B?YQ?="',
            b'Content-Type: text/plain; name="=?utf-8?Q?=4?="',
            b'Content-Type: text/plain; name="=?utf-8?Q?a b?="',
            b'Content-Type: text/plain; name="=?rot13?Q?a?="',
            b"Content-Type: text/plain" + b"".join(b"; a%d=x" % number for number in range(33)),
            b"Content-Type: text/plain" + b";" * 33,
            b"Content-Type: text/plain; name=" + b"x" * 1001,
            b"Content-Disposition: ;",
            b"Content-Transfer-Encoding: base64 x",
            b"Content-Transfer-Encoding: x-uuencode",
            b"Content-Type: multipart/mixed",
            b'Content-Type: multipart/mixed; boundary=""',
            b'Content-Type: multipart/mixed; boundary="x "',
            b'Content-Type: multipart/mixed; boundary="x@"',
            b"Content-Type: multipart/mixed; boundary=" + b"x" * 71,
            b"Content-Type: multipart/mixed; boundary=x; boundary=y",
            b"Content-Type: multipart/mixed; boundary*=us-ascii''x",
            b"Content-Type: multipart/mixed; boundary*0=x",
            b"Content-Type: multipart/mixed; boundary=x\r\nContent-Transfer-Encoding: base64",
            b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64",
        ):
            self.fault(header + b"\r\n\r\nx\r\n", "the message")

    def test_headers_that_look_odd_and_are_clear(self) -> None:
        for header, expected in (
            (b"Content-Type: Text/Plain;", ("", "text/plain", None)),
            (b"Content-Type: text/plain;;charset=UTF-8 ;", ("", "text/plain", "utf-8")),
            (b'Content-Type:text/plain;\r\n\tcharset="utf-8"', ("", "text/plain", "utf-8")),
        ):
            self.assertEqual(scan(header + b"\r\n\r\n")[0][:3], expected)

    @proves("M10")
    def test_multiparts(self) -> None:
        whole = multipart(b"\r\nx")
        for message, where in (
            (whole.replace(b"--b--\r\n", b""), "part 1"),
            (whole.replace(b"--b--\r\n", b"--b--"), "part 1"),
            (whole.replace(b"--b--", b"--b-- x"), "part 1"),
            (whole.replace(b"--b--", b"--b-"), "part 1"),
            (whole.replace(b"--b--", b"--bb"), "part 1"),
            (whole.replace(b"--b\r\n", b"--b" + b" " * 201 + b"\r\n"), "the message"),
            (multipart(), "the message"),
            (whole.partition(b"--b")[0], "the message"),
            (whole + b"--b\r\n\r\nbehind the end\r\n--b--\r\n", "the message"),
            (multipart(b"--b"), "part 1"),
            (multipart(b"Content-Type: text/plain"), "part 1"),
            (multipart(b"--b: x\r\n\r\n"), "part 1"),
            (multipart(multipart(b"\r\nx", boundary=b"i").replace(b"--i--\r\n", b"")), "part 1.1"),
            (multipart(multipart(b"\r\nx", boundary=b"b")), "part 1"),
            (multipart(multipart(b"\r\nx", boundary=b"bb")), "part 1"),
            (multipart(multipart(b"\r\nx", boundary=b"b"), boundary=b"bb"), "part 1"),
        ):
            self.fault(message, where)

    @proves("M10")
    def test_bodies(self) -> None:
        for encoding, bodies in (
            (b"base64", (b"YWI", b"YWJjZ===", b"YQ==YQ==", b"Y=Q=", b"YWJj.", b"YW\0j", b"=", b"YWJ\xff")),
            (b"quoted-printable", (b"=4", b"=4g", b"= \r\nx", b"==", b"a\0", b"\xff", b"=4\r\n1")),
            (b"7bit", (b"a\xff", b"a\0")),
            (b"8bit", (b"a\0",)),
        ):
            for body in bodies:
                self.fault(multipart(b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body))
        self.assertEqual(
            scan(multipart(b"Content-Transfer-Encoding: binary\r\n\r\n\0\xff"))[-1], ("1", 2, True)
        )


class NamesTests(SynchronousTestCase):
    def names(self, header: str) -> tuple[str, ...]:
        return scan(header.encode() + b"\r\n\r\n")[0][5]

    @proves("M10")
    def test_in_every_form(self) -> None:
        """A part has every name that some program may give it."""
        disposition = "Content-Disposition: attachment; "
        for header, expected in (
            ("Content-Type: text/xml; name=a.xml", ("a.xml",)),
            (disposition + "filename=a.xml", ("a.xml",)),
            (disposition + 'FileName="a \\"b\\" é.xml"', ('a "b" é.xml',)),
            (disposition + "filename=a.xml; filename*=utf-8''%c3%a9.exe", ("a.xml", "é.exe")),
            (disposition + "filename=a.xml\r\nContent-Type: text/xml; name=b.xml", ("a.xml", "b.xml")),
            (disposition + "filename=a.xml\r\nContent-Type: text/xml; name=a.xml", ("a.xml",)),
            (disposition + "filename*0=a; filename*1=.x; filename*2=ml", ("a.xml",)),
            (disposition + "filename*1*=.x%6d; filename*0*=iso-8859-1'nl'%e9; filename*2=l", ("é.xml",)),
            (disposition + 'filename="=?utf-8?Q?=C3=A9?= =?UTF-8*nl?b?LnhtbA==?="', ("é.xml",)),
            (disposition + 'filename="x=?us-ascii?q?a_b?=.xml"', ("xa b.xml",)),
            (disposition + "size=1", ()),
        ):
            self.assertEqual(self.names(header), expected, header)


class BoundsTests(SynchronousTestCase):
    """Memory and time are bounded, whatever is sent."""

    def last(self, *segments: bytes, **bounds: int) -> tuple[str, str]:
        rule, where, _ = scan(*segments, **bounds)[-1]
        return rule, where

    @proves("M10")
    def test_each_bound(self) -> None:
        deep = b"\r\nx"
        for number in range(5):
            deep = multipart(deep, boundary=b"%d" % number)
        for message, bounds, expected in (
            (deep, {"depth": 4}, ("nesting", "part 1.1.1.1")),
            (multipart(b"\r\n"), {"depth": 0}, ("nesting", "the message")),
            (multipart(b"\r\n", b"\r\n"), {"parts": 1}, ("parts", "the message")),
            (b"A: x\r\nB: y\r\n\r\n", {"header_fields": 1}, ("header-fields", "the message")),
            (multipart(b"A: xyz\r\n\r\n"), {"header_size": 42}, ("header-size", "the message")),
            (multipart(b"A: " + b"x" * 70 + b"\r\n\r\n"), {"header_size": 60}, ("header-size", "part 1")),
            (multipart(b"\r\n") + b"end", {"outside": 2}, ("outside-parts", "the message")),
        ):
            self.assertEqual(self.last(message, **bounds), expected)
            for cut in range(len(message)):
                self.assertEqual(self.last(message[:cut], message[cut:], **bounds), expected)
        self.assertEqual(len(parts(deep, depth=5)), 6)
        self.assertEqual(parts(multipart(b"\r\n", b"\r\n"), parts=2, outside=0)[2][1], "text/plain")

    def consumed(self, segments: Iterator[bytes]) -> tuple[tuple[Any, ...], int, int]:
        """The last event, how many segments were taken before it, and octets of memory at most."""
        scanner, taken = Scanner(), 0
        last: Any = None
        tracemalloc.start()
        try:
            for segment in segments:
                taken += 1
                last = [last, *scanner.push(segment)][-1]
            last = [last, *scanner.close()][-1]
        except Violation as violation:
            last = violation
        finally:
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return told(last), taken, most

    @proves("M10")
    def test_floods(self) -> None:
        """Each of 50 MiB or without end, and over with the first segments."""
        line = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        nested = b"".join(
            b"Content-Type: multipart/mixed; boundary=%05d\r\n\r\n--%05d\r\n" % (one, one)
            for one in range(10_000)
        )
        for name, segments, rule in (
            ("a million fields", repeat(b"A: x\r\n" * 10_000, 100), "header-size"),
            ("one field", repeat(b"A: " + b"x" * 65_536, 800), "header-size"),
            ("one field in folds", repeat(b"A: x" + b"\r\n x" * 16_384, 800), "header-size"),
            ("fields without a body", repeat(b"A:\r\n" * 10_000 + b"\r\n", 1), "header-fields"),
            ("nesting", iter([nested]), "nesting"),
            ("a million boundaries", iter([line, *repeat(b"--b\r\n\r\n\r\n" * 10_000, 100)]), "parts"),
            ("a delimiter without end", iter([line + b"--b", *repeat(b" " * 65_536, 800)]), "well-formed"),
            ("before the parts", iter([line, *repeat(b"\r\n--" * 16_384, 800)]), "outside-parts"),
        ):
            (found, *_), taken, most = self.consumed(iter(segments))
            self.assertEqual(found, rule, name)
            self.assertLessEqual(taken, 2, name)
            self.assertLess(most, 4_000_000, name)

    @proves("M10")
    def test_50_mib_in_bounded_memory(self) -> None:
        """Of ordinary base64, and of what costs most."""
        head, _, rest = multipart(b"Content-Transfer-Encoding: %s\r\n\r\n%s").partition(b"%s")
        middle, _, end = rest.partition(b"%s")
        for encoding, piece in (
            (b"base64", (b"QUJD" * 19 + b"\r\n") * 800),
            (b"base64", b"\r\n" * 32_768),
            (b"8bit", b"\r\n--" * 16_384),
            (b"quoted-printable", b"=41" * 21_845),
        ):
            segments = [head + encoding + middle, *repeat(piece, 50 * 2**20 // len(piece)), end]
            last, taken, most = self.consumed(iter(segments))
            self.assertEqual((last[0], taken), ("1", len(segments)))
            self.assertLess(most, 1_000_000)

    def test_work_is_linear(self) -> None:
        """An octet at a time, the scanner never holds more than a delimiter line."""
        scanner = Scanner()
        for event in scanner.push(multipart(b"\r\n").rpartition(b"\r\n--b--")[0]):
            self.assertIsInstance(event, Opened)
        for octet in b"\r\n--\r\n--\r\r\r\n-" * 1000:
            list(scanner.push(bytes((octet,))))
            self.assertLessEqual(len(scanner._held), 4)


_TEXT = st.lists(
    st.sampled_from(
        [b"", b"x", b"--", b"--b", b"--bb", b"--b--", b"--c", b"A: x", b"--b ", b" ", b"=", b"YQ=="]
    ),
    max_size=12,
).map(b"\r\n".join)


_HEADS = [
    multipart(multipart(b"\r\nx", b"\r\n--b", boundary=b"c"), b"A: x\r\n\r\n\r\n"),
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/mixed; "
    b"boundary=c\r\n\r\n--c\r\nContent-Transfer-Encoding: base64\r\n\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\n",
]


class PropertyTests(SynchronousTestCase):
    @proves("M10")
    @settings(deadline=None, max_examples=60)
    @given(
        st.sampled_from(_HEADS),
        _TEXT,
        st.sampled_from([4096, 3]),
    )
    def test_cut_anywhere(self, head: bytes, text: bytes, outside: int) -> None:
        message = head + text + b"\r\n"
        whole = scan(message, outside=outside)
        for cut in range(len(message) + 1):
            self.assertEqual(scan(message[:cut], message[cut:], outside=outside), whole)
        single = (message[at : at + 1] for at in range(len(message)))
        self.assertEqual(scan(*single, outside=outside), whole)

    @proves("M10")
    @settings(deadline=None, max_examples=150)
    @given(st.sampled_from(_HEADS), _TEXT, st.sampled_from([b"", b"--c--\r\n--b--\r\n", b"--b--\r\n"]))
    def test_what_passes_is_the_same_to_the_standard_library(
        self, head: bytes, text: bytes, end: bytes
    ) -> None:
        """It takes nearly everything, and guesses; what we let pass, it need not guess at."""
        message = head + text + b"\r\n" + end
        found = list(events(message))
        if found and not isinstance(found[-1], Violation):
            ours = [(one.entity.number, one.entity.content_type) for one in found if isinstance(one, Opened)]
            theirs = self.read(email.message_from_bytes(message, policy=email.policy.default), "")
            self.assertEqual(ours, [(number, content_type) for number, content_type, _ in theirs])

    @proves("M10")
    @settings(deadline=None, max_examples=60)
    @given(
        st.recursive(
            st.tuples(
                st.sampled_from(["application/xml", "image/png", "application/octet-stream"]),
                st.sampled_from(["a.xml", "naam met spatie.pdf", "é.xml", "x" * 120 + ".xml"]),
                st.binary(max_size=200),
            )
            | st.text(
                st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=100
            ),
            lambda inner: st.lists(inner, min_size=1, max_size=4),
            max_leaves=6,
        )
    )
    def test_as_the_standard_library_reads_it(self, tree: Any) -> None:
        message = self.written(tree)
        message["Subject"] = "x"
        octets = message.as_bytes(policy=email.policy.SMTP)
        theirs = email.message_from_bytes(octets, policy=email.policy.default)
        self.assertEqual(parts(octets, depth=10), list(self.read(theirs, "")))
        names = [event[5] for event in scan(octets, depth=10) if len(event) == 6]
        self.assertEqual(names, [(name,) if (name := part.get_filename()) else () for part in theirs.walk()])

    def written(self, tree: Any) -> EmailMessage:
        message = EmailMessage()
        if isinstance(tree, str):
            message.set_content(tree)
        elif isinstance(tree, tuple):
            content_type, name, octets = tree
            message.set_content(octets, *content_type.split("/"), filename=name)
        else:
            message["Content-Type"] = "multipart/mixed"
            for one in tree:
                message.attach(self.written(one))
        return message

    def read(self, message: Message, number: str) -> Iterator[tuple[str, str, int | None]]:
        payload: Any = message.get_payload(decode=True)
        yield number, message.get_content_type(), None if message.is_multipart() else len(payload)
        if message.is_multipart():
            for index, part in enumerate(message.iter_parts(), 1):  # type: ignore[attr-defined]
                yield from self.read(part, f"{number}.{index}" if number else str(index))
