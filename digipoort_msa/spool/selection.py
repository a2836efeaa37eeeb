"""Which messages an operator means: by their queue ids, or by what they are.

A selection becomes a condition of SQL; every value of it is bound.
"""

import json
import re

from attrs import frozen

from digipoort_msa.spool.states import State

_ID = re.compile(r"[0-9A-V]{16}", re.ASCII)


def is_queue_id(text: str) -> bool:
    """Is this one, and so safe as the name of a file?"""
    return _ID.fullmatch(text) is not None


@frozen
class Selection:
    """Messages that fit all that is said; one that says nothing is every message.

    A ``sender`` or ``recipient`` is a part of an address, or a pattern where ``*`` stands for any run of
    characters, as in the configuration; case does not matter.  Ages are moments, in seconds since the epoch.
    """

    queue_ids: tuple[str, ...] | None = None
    states: frozenset[State] = frozenset()  # of some recipient
    realm: str | None = None
    account: str | None = None
    sender: str | None = None
    recipient: str | None = None
    received_before: float | None = None
    received_after: float | None = None

    def condition(self) -> tuple[str, dict[str, object]]:
        """What SQL says after ``WHERE``, of ``message AS m``, and the values it binds."""
        wanted: dict[str, object] = {
            "m.queue_id IN (SELECT value FROM json_each(:queue_ids))": _json(self.queue_ids),
            "EXISTS (SELECT 1 FROM recipient AS r WHERE r.queue_id = m.queue_id"
            " AND r.state IN (SELECT value FROM json_each(:states)))": _json(sorted(self.states) or None),
            "m.realm = :realm": self.realm,
            "m.account = :account": self.account,
            "m.reverse_path LIKE :sender ESCAPE '\\'": _pattern(self.sender),
            "EXISTS (SELECT 1 FROM recipient AS r WHERE r.queue_id = m.queue_id"
            " AND r.path LIKE :recipient ESCAPE '\\')": _pattern(self.recipient),
            "m.received_at < :received_before": self.received_before,
            "m.received_at >= :received_after": self.received_after,
        }
        # A queue id that is no text is damage: `verify` tells of it, and no order of rows could page past it.
        said = ["typeof(m.queue_id) = 'text'", *(sql for sql, value in wanted.items() if value is not None)]
        values = {
            name: value
            for sql, value in wanted.items()
            for name in re.findall(r":(\w+)", sql)
            if value is not None
        }
        return " AND ".join(said), values


EVERY = Selection()


def _json(value: object) -> str | None:
    return None if value is None else json.dumps(value)


def _pattern(text: str | None) -> str | None:
    if text is None:
        return None
    escaped = re.sub(r"([\\%_])", r"\\\1", text.encode("utf-8", "replace").decode())
    return escaped.replace("*", "%") if "*" in text else f"%{escaped}%"
