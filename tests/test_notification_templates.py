"""The texts: ours, and the operator's own."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.notification.templates import LANGUAGES, LARGEST, NAMES, Texts
from digipoort_msa.smtp.envelope import Action
from tests.notifying import read, text, written

OWN = "Subject: Mislukt: $subject\n\nBel $contact, en noem ${queue_id}. Kosten: $$ 0.\n"


class Case(SynchronousTestCase):
    def folder(self, **contents: str | bytes) -> Path:
        """A folder of texts; ``failed_nl`` is failed.nl.txt."""
        folder = Path(self.mktemp())
        folder.mkdir()
        for name, content in contents.items():
            octets = content.encode() if isinstance(content, str) else content
            (folder / f"{name.replace('_', '.')}.txt").write_bytes(octets)
        return folder


class OurTexts(Case):
    def test_all_of_them(self) -> None:
        texts = Texts.read(LANGUAGES)
        values = dict.fromkeys(NAMES, "VALUE")
        for action in Action:
            for language in LANGUAGES:
                text = texts.of(action, language)
                self.assertIn("VALUE", text.subject.substitute(values))
                body = text.body.substitute(values)
                self.assertGreater(body.count("VALUE"), 6)
                named = set(text.body.get_identifiers())
                self.assertLessEqual({"recipients", "queue_id", "contact", "subject", "date"}, named)
                self.assertLessEqual(max(map(len, text.body.template.split("\n"))), 72)
        self.assertIn("retry_until", texts.of(Action.DELAYED, "nl").body.get_identifiers())

    def test_languages(self) -> None:
        self.assertEqual(Texts.read(["en"]).languages, ("en",))
        for languages in ([], ["de"], ["nl", "de"]):
            with self.assertRaisesRegex(ValueError, "some of: en, nl"):
                Texts.read(languages)


class OwnTexts(Case):
    def test_take_the_place_of_ours(self) -> None:
        for content in (OWN, "\ufeff" + OWN, OWN.replace("\n", "\r\n")):
            octets = written(texts=Texts.read(("nl", "en"), self.folder(failed_nl=content)))
            self.assertEqual(read(octets)["Subject"], "Mislukt: Aangifte \u20ac")
            dutch, _, english = text(octets).partition("\n\n----")
            self.assertEqual(dutch, "Bel Loket, 070 123 45 67, en noem 0ORIGINAL. Kosten: $ 0.")
            self.assertIn("not delivered", english)

    def test_are_checked(self) -> None:
        """Whatever is wrong is said with the file, the line, and what would be right."""
        start = "Subject: x\n\n"
        for content, problem in (
            (start + "a\n$recipient\n", r"line 4: \$recipient is not known; known are .*\$recipients"),
            ("Subject: ${subjekt}\n\na\n", r"line 1: \$subjekt is not known"),
            (start + "a $ b\n", r"line 3: a dollar sign that begins no name; write \$\$"),
            (start + "${subject\n", "line 3: a dollar sign"),
            (start + "${}\n", "line 3: a dollar sign"),
            (start + "$\u00e9\n", "line 3: a dollar sign"),
            (start.encode() + b"a\nb\nc\xe9\n", "line 5: not UTF-8"),
            (start + "a\0\n", r"line 3: a character that cannot be shown: U\+0000"),
            (start + "a\rb\n", r"line 3: a character that cannot be shown: U\+000D"),
            ("", "line 1: the first line is"),
            ("Hello\n\na\n", "line 1: the first line is"),
            ("Subject: \n\na\n", "line 1: the first line is"),
            ("Subject: x\na\n", "line 2: the second line is empty"),
            ("Subject: x", "line 2: the second line is empty"),
            (start + "\n \n", "line 2: the second line is empty"),
            (start + "a" * LARGEST, f"larger than {LARGEST} octets"),
        ):
            folder = self.folder(failed_nl=content)
            with self.assertRaisesRegex(ValueError, problem) as raised:
                Texts.read(("nl",), folder)
            self.assertIn(str(folder / "failed.nl.txt"), str(raised.exception))

    def test_names(self) -> None:
        """One that means nothing would go unnoticed; those of another language and other files may be."""
        folder = self.folder(faild_nl=OWN)
        with self.assertRaisesRegex(
            ValueError, r"faild\.nl\.txt: no text has this name; they are failed\.en"
        ):
            Texts.read(("nl",), folder)
        folder = self.folder(failed_en=OWN)
        (folder / "README").write_text("x")
        Texts.read(("nl",), folder)

    def test_files_that_cannot_be_read(self) -> None:
        with self.assertRaisesRegex(ValueError, "cannot be read: No such file"):
            Texts.read(("nl",), Path("/nonexistent/texts"))
        folder = self.folder()
        (folder / "failed.nl.txt").mkdir()
        with self.assertRaisesRegex(ValueError, r"failed\.nl\.txt cannot be read: Is a directory"):
            Texts.read(("nl",), folder)

    def test_are_read_once(self) -> None:
        """What becomes of the files later is no matter: a notification is never in want of a text."""
        folder = self.folder(failed_nl=OWN)
        texts = Texts.read(("nl",), folder)
        (folder / "failed.nl.txt").write_text("$nonsense")
        self.assertEqual(read(written(texts=texts))["Subject"], "Mislukt: Aangifte \u20ac")

    @given(st.binary(max_size=60) | st.text(alphabet="$a{}\n subject", max_size=60).map(str.encode))
    @settings(max_examples=300, deadline=None)
    def test_what_is_accepted_can_be_written(self, body: bytes) -> None:
        folder = self.folder(failed_nl=b"Subject: x\n\n" + body)
        try:
            texts = Texts.read(("nl",), folder)
        except ValueError:
            return
        written(texts=texts)

    def test_the_largest(self) -> None:
        """Whatever the operator writes, and however often it names the recipients: it is cut, not refused."""
        body = ("$recipients\n" * 1000)[: LARGEST - 20]
        texts = Texts.read(("nl", "en"), self.folder(failed_nl="Subject: x\n\n" + body.rsplit("\n", 1)[0]))
        self.assertLess(len(written(texts=texts)), 110_000)
