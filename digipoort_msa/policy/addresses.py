"""Addresses held against patterns: what the rules on senders and recipients go by (M7, RFC 6409 6.1).

A pattern is an address in which ``*`` stands for any run of characters.  Domains compare without case, as
DNS does; local-parts as well, since a pattern that misses by case alone is never what was meant.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from attrs import frozen

from digipoort_msa.identity import Identity
from digipoort_msa.smtp.envelope import Path


def wildcards(patterns: Iterable[str]) -> re.Pattern[str]:
    """One expression for what fits any of several patterns whole."""
    return re.compile("|".join(f"(?:{_wildcard(pattern)})" for pattern in patterns) or "(?!)", re.DOTALL)


def _wildcard(pattern: str) -> str:
    """What stands between two ``*`` is taken where it is found first, for good: with as many as one likes, no
    text takes long."""
    first, *others = map(re.escape, pattern.split("*"))
    if not others:
        return first
    *between, last = others
    return first + "".join(f"(?>.*?{each})" for each in between) + f".*{last}"


@frozen
class AddressPatterns:
    """Any of several patterns."""

    _expression: re.Pattern[str]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> "AddressPatterns":
        # By lower(): to re.IGNORECASE, "\u0131" and "\u017f" are "i" and "s", and so another's domain ours.
        return cls(wildcards(pattern.lower() for pattern in patterns))

    def match(self, path: Path) -> bool:
        return self._expression.fullmatch(str(path).lower()) is not None


@frozen
class OwnAddresses:
    """Which addresses are an account's own: its name, where that is an address, what the settings grant it,
    and what its store says."""

    _granted: Mapping[str, AddressPatterns]  # by account, from the settings

    @classmethod
    def of(cls, granted: Mapping[str, Iterable[str]]) -> "OwnAddresses":
        return cls({account: AddressPatterns.of(patterns) for account, patterns in granted.items()})

    def include(self, identity: Identity, path: Path) -> bool:
        return self.known(identity.name, path) or _patterns(identity.addresses).match(path)

    def known(self, account: str, path: Path) -> bool:
        """What can be said without asking the account's store."""
        if "@" in account and account.lower() == str(path).lower():
            return True
        return account in self._granted and self._granted[account].match(path)


@lru_cache(maxsize=4096)
def _patterns(patterns: tuple[str, ...]) -> AddressPatterns:
    return AddressPatterns.of(patterns)
