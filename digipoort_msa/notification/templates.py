"""The texts for people: one file for each kind of news and language, ours or the operator's own.

A file is UTF-8.  Its first line is ``Subject:`` and the notification's subject, its second is empty, the
rest is the text.  ``$name`` stands for a value of :data:`NAMES`, ``$$`` for a dollar sign.  All files are
read and checked at the start, so that nothing can be wrong with them when a notification is due.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from attrs import field, frozen

from digipoort_msa.smtp.envelope import Action

LARGEST = 8192  # octets of one file

#: What a text may name.
NAMES = (
    "contact",  # whom to ask
    "date",  # when the message was taken in
    "hostname",  # of this server
    "now",  # when the notification was written
    "queue_id",  # of the message
    "recipients",  # of whom it tells, with what was said of each: some lines
    "retry_until",  # when a delayed message is given up
    "sender",  # the message's reverse-path
    "subject",  # the message's
)
LANGUAGES = ("en", "nl")
_KINDS = tuple(action.value for action in Action)
_FILES = tuple(f"{kind}.{language}.txt" for kind in _KINDS for language in LANGUAGES)


@frozen
class Text:
    """One file: two templates."""

    subject: Template
    body: Template


@frozen
class Texts:
    """The texts of some languages, for every kind of news."""

    languages: Sequence[str]
    _texts: Mapping[tuple[Action, str], Text] = field(repr=False)

    @classmethod
    def read(cls, languages: Sequence[str], folder: Path | None = None) -> "Texts":
        """Read and check them.

        :param languages: such as ``("nl", "en")``: in this order they stand in a notification.
        :param folder: the operator's: each file in it takes the place of ours of the same name.
        :raise ValueError: a text cannot be used: which, where in it, and what would be right.
        """
        if not languages or not set(languages) <= set(LANGUAGES):
            raise ValueError(f"the languages of notifications are some of: {', '.join(LANGUAGES)}")
        own = _listed(folder) if folder is not None else {}
        texts = {}
        for language in languages:
            for action in Action:
                name = f"{action.value}.{language}.txt"
                texts[action, language] = _text(str(own.get(name, name)), _octets(name, own.get(name)))
        return cls(tuple(languages), texts)

    def of(self, action: Action, language: str) -> Text:
        return self._texts[action, language]


def _listed(folder: Path) -> Mapping[str, Path]:
    """The operator's files; one whose name means nothing is a mistake, and would go unnoticed."""
    try:
        found = {path.name: path for path in sorted(folder.iterdir()) if path.suffix == ".txt"}
    except OSError as error:
        raise ValueError(f"the folder of texts {folder} cannot be read: {error.strerror}") from error
    for name in found:
        if name not in _FILES:
            raise ValueError(f"{found[name]}: no text has this name; they are {', '.join(_FILES)}")
    return found


def _octets(name: str, path: Path | None) -> bytes:
    if path is None:
        return files("digipoort_msa").joinpath("notification", "texts", name).read_bytes()
    try:
        with path.open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def _text(file: str, octets: bytes) -> Text:
    if len(octets) > LARGEST:
        raise ValueError(f"{file} is larger than {LARGEST} octets")
    try:
        text = octets.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}, line {octets.count(10, 0, error.start) + 1}: not UTF-8") from None
    for line, problem in _problems(text):
        raise ValueError(f"{file}, line {line}: {problem}")
    first, _, body = text.partition("\n\n")
    return Text(Template(first.removeprefix("Subject:").strip()), Template(body.strip("\n") + "\n"))


def _problems(text: str) -> Iterator[tuple[int, str]]:
    """What is wrong, and in which line."""
    first, _, rest = text.partition("\n")
    if not first.startswith("Subject:") or not first.removeprefix("Subject:").strip():
        yield 1, 'the first line is "Subject: " and the subject of the notification'
    if not rest.startswith("\n") or not rest.strip():
        yield 2, "the second line is empty, and the text follows it"
    for number, line in enumerate(text.split("\n"), 1):
        for character in line:
            if not character.isprintable() and character != "\t":
                yield number, f"a character that cannot be shown: U+{ord(character):04X}"
        for match in Template.pattern.finditer(line):
            name = match["named"] or match["braced"]
            if name and name not in NAMES:
                yield number, f"${name} is not known; known are {', '.join(f'${known}' for known in NAMES)}"
            elif match["invalid"] is not None:
                yield number, "a dollar sign that begins no name; write $$ for the sign itself"
