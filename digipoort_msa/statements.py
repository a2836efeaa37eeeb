"""SQL that an operator writes into the settings, and what may stand in it.

A value reaches the database as a bound parameter, ``:name``, and in no other way.  Some drivers put bound
values into the text themselves, quoted; that is as good, but only where the parameter stands by itself.
Within quotes of the statement's own, or in a comment, a value could end those, and go on as code.  So
nothing is bound there; comments, backslashes, a second statement and every other sign of a parameter are
refused outright.  What is left is easily told apart.
"""

import re
from collections.abc import Set

from attrs import field, frozen

_QUOTED = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`""")
_BOUND = re.compile(r"(?<![:\w]):(\w+)(?![:\w])")
#: Where they stand outside quotes.
_REFUSED = {
    ";": "a semicolon",
    "--": "a comment (--)",
    "/*": "a comment (/*)",
    "#": "# (a comment on MariaDB)",
    "?": "a question mark, which is a parameter to some drivers",
    "$": "a dollar sign, which quotes or is a parameter",
    "%s": "%s; values are bound as :name",
    "%(": "%(; values are bound as :name",
    "{": "a brace; values are bound as :name",
    "}": "a brace; values are bound as :name",
}


@frozen
class Statement:
    """One statement with bound parameters, such as ``SELECT ... WHERE login = :name``."""

    text: str
    bound: frozenset[str] = field(init=False)  # its parameters
    words: frozenset[str] = field(init=False)  # what it names, in lower case; not what is in its strings

    @bound.default
    def _find_bound(self) -> frozenset[str]:
        if "\\" in self.text:
            raise ValueError("a backslash stands in it")
        outside = _QUOTED.sub("''", self.text).replace("''", " ")
        if re.search("['\"`]", outside):
            raise ValueError("a quote in it is not closed")
        for sign, what in _REFUSED.items():
            if sign in outside:
                raise ValueError(f"outside quotes, it has {what}")
        for quoted in _QUOTED.findall(self.text):
            if within := re.search(r":\w+", quoted):
                raise ValueError(f"{within[0]} stands within quotes, where nothing can be bound")
        if cast := re.search(r":\w+::", outside):
            raise ValueError(f"{cast[0]}: write CAST(:name AS type)")
        if ":" in re.sub("(?<!:)::(?!:)", "", _BOUND.sub("", outside)):
            raise ValueError("a colon in it is neither a parameter's nor a cast's (::)")
        return frozenset(_BOUND.findall(outside))

    @words.default
    def _find_words(self) -> frozenset[str]:
        named = re.sub(r"'[^']*'", " ", self.text)
        return frozenset(word.lower() for word in re.findall(r"\w+", named))


def account_query(text: str) -> Statement:
    """How an account is found: it has to bind ``:name``, and may bind ``:realm``.

    :raise ValueError: it cannot be that; the text says why.
    """
    return _checked(text, {"SELECT", "WITH"}, {"name"})


def upgrade_query(text: str) -> Statement:
    """How a password's hash is replaced: it has to bind ``:name``, ``:old`` and ``:new``.

    :raise ValueError: see :func:`account_query`.
    """
    return _checked(text, {"UPDATE"}, {"name", "old", "new"})


def scram_query(text: str) -> Statement:
    """How SCRAM's keys are kept: it has to bind ``:name``, ``:old`` (the password's hash) and ``:scram``.

    :raise ValueError: see :func:`account_query`.
    """
    return _checked(text, {"UPDATE"}, {"name", "old", "scram"})


def _checked(text: str, verbs: Set[str], required: Set[str]) -> Statement:
    statement = Statement(text)
    first = re.match(r"\s*(\w+)", text)
    if first is None or first[1].upper() not in verbs:
        raise ValueError(f"it does not begin with {' or '.join(sorted(verbs))}")
    if missing := required - statement.bound:
        raise ValueError(f"it does not bind {_shown(missing)}")
    if unknown := statement.bound - required - {"realm"}:
        raise ValueError(f"it binds {_shown(unknown)}; there is {_shown(required | {'realm'})}")
    return statement


def _shown(names: Set[str]) -> str:
    return ", ".join(f":{name}" for name in sorted(names))
