"""Marks a test with the requirement ids it proves; ``docs/trace_table.py`` makes the table from them."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T", bound=object)


def proves(*ids: str) -> Callable[[T], T]:
    """``@proves("T1", "T4")`` on a test method or class; the ids are those of ``docs/requirements.toml``."""

    def mark(test: T) -> T:
        test.proves = ids  # type: ignore[attr-defined]
        return test

    return mark
