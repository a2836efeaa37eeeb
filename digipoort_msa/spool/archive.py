"""A message outside of the spool: two files, its octets as RFC 5322 has them and its envelope as JSON.

``<queue id>.eml`` is the content exactly as it was received, with the ``Received:`` field in front, in clear
even where the spool encrypts it.  ``<queue id>.json`` is one object, in UTF-8::

    {
      "format": "digipoort-msa message",
      "version": 1,
      "id": "CO6O1R29G9KUBHK7",
      "realm": "overheidstransactiepoort.nl",
      "account": "bedrijf",
      "session": "S1",
      "received": "2026-11-22T09:30:00.123456Z",
      "size": 5120,                     octets of the .eml
      "sha256": "...",                  of the .eml, 64 hex digits
      "sender": "declarant@example.nl", "" is the null reverse-path
      "parameters": {"size": null, "body-8bitmime": false, "smtputf8": false, "auth": null, "ret": null,
                     "envid": null},
      "next-hop": null,                 or the hop that an operator chose, "host:port"
      "recipients": [
        {"path": "core@example.nl", "state": "deferred", "notify": ["FAILURE"], "orcpt": null}
      ]
    }

Every key has to be there, and no other.  A recipient that is ``delivered`` or ``returned`` is there for the
record; an import leaves it out, so that nobody gets the message twice.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from attrs import frozen

from digipoort_msa.smtp import grammar
from digipoort_msa.smtp.envelope import CONTROL, Envelope, MailParameters, Notify, Path, RcptParameters
from digipoort_msa.smtp.extensions import DSN
from digipoort_msa.smtp.reply import Refused
from digipoort_msa.spool.selection import is_queue_id
from digipoort_msa.spool.states import STORED, UNFINISHED, State

FORMAT = "digipoort-msa message"
VERSION = 1
LONGEST = 4 * 1024 * 1024  # octets of a .json that are read

T = TypeVar("T")


class NotAMessage(Exception):
    """A document is no message; the text names the key and what would be right."""


@frozen
class Archived:
    """What a document says."""

    envelope: Envelope  # with every recipient
    states: Mapping[Path, State]
    size: int  # octets of the content
    digest: str  # SHA-256 of the content, in hex

    @property
    def unfinished(self) -> tuple[Path, ...]:
        """The recipients that are still to have it."""
        return tuple(path for path in self.envelope.recipients if self.states[path] in UNFINISHED)


def as_document(archived: Archived) -> dict[str, Any]:
    """A message as JSON has it."""
    envelope = archived.envelope
    parameters = envelope.parameters
    return {
        "format": FORMAT,
        "version": VERSION,
        "id": envelope.queue_id,
        "realm": envelope.realm,
        "account": envelope.account,
        "session": envelope.session_id,
        "received": datetime.fromtimestamp(envelope.received_at, UTC).isoformat().replace("+00:00", "Z"),
        "size": archived.size,
        "sha256": archived.digest,
        "sender": str(envelope.reverse_path),
        "parameters": {
            "size": parameters.size,
            "body-8bitmime": parameters.body_8bitmime,
            "smtputf8": parameters.smtputf8,
            "auth": parameters.auth,
            "ret": parameters.ret,
            "envid": parameters.envid,
        },
        "next-hop": envelope.next_hop,
        "recipients": [_recipient(archived, path) for path in envelope.recipients],
    }


def _recipient(archived: Archived, path: Path) -> dict[str, Any]:
    given = archived.envelope.parameters_of(path)
    return {
        "path": str(path),
        "state": str(archived.states[path]),
        "notify": None if given.notify is None else sorted(given.notify),
        "orcpt": given.orcpt,
    }


def from_document(octets: bytes) -> Archived:
    """Read a document.

    :raise NotAMessage: it is not exactly as it should be.
    """
    try:
        document = json.loads(octets.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise NotAMessage(f"it is not UTF-8: octet {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise NotAMessage(f"it is not JSON: {error}") from None
    top = _Table(document, "")
    top.take("format", _same(FORMAT), f'"{FORMAT}"')
    top.take("version", _same(VERSION), f"{VERSION}: it was written by a later release")
    queue_id = top.take("id", _queue_id, "a queue id, 16 of 0-9 and A-V")
    parameters = _parameters(top.table("parameters"))
    recipients = top.take("recipients", _list, "a list of objects, not empty")
    rows = [
        _read_recipient(_Table(each, f"recipients[{number}]."), parameters.smtputf8)
        for number, each in enumerate(recipients)
    ]
    paths = tuple(path for path, _, _ in rows)
    if len(set(paths)) < len(paths):
        raise NotAMessage("recipients: one of them is there twice")
    envelope = Envelope(
        queue_id=queue_id,
        realm=top.take("realm", _line, "a realm's name"),
        account=top.take("account", _line, "an account's name"),
        session_id=top.take("session", _line, "a session id"),
        reverse_path=top.take("sender", lambda text: _sender(text, parameters.smtputf8), 'an address, or ""'),
        recipients=paths,
        received_at=top.take("received", _time, 'a time such as "2026-11-22T09:30:00Z"'),
        parameters=parameters,
        recipient_parameters={path: given for path, _, given in rows if given != RcptParameters()},
        next_hop=top.take("next-hop", _or_null(_line), '"host:port" or null'),
    )
    size = top.take("size", _number, "a number of octets")
    digest = top.take("sha256", _digest, "64 hex digits in lower case")
    top.end()
    return Archived(envelope, {path: state for path, state, _ in rows}, size, digest)


def _parameters(table: "_Table") -> MailParameters:
    parameters = MailParameters(
        size=table.take("size", _or_null(_number), "a number of octets or null"),
        body_8bitmime=table.take("body-8bitmime", _flag, "true or false"),
        smtputf8=table.take("smtputf8", _flag, "true or false"),
        auth=table.take("auth", _or_null(_text), "a text or null"),
        ret=table.take("ret", _or_null(_dsn("RET")), '"FULL", "HDRS" or null'),
        envid=table.take("envid", _or_null(_dsn("ENVID")), "xtext (RFC 3461) or null"),
    )
    table.end()
    return parameters


def _read_recipient(table: "_Table", smtputf8: bool) -> tuple[Path, State, RcptParameters]:
    path = table.take("path", lambda text: _forward_path(text, smtputf8), "an address")
    state = table.take("state", State, "one of " + ", ".join(STORED))
    if state not in STORED:
        raise NotAMessage(f"{table.where}state: should be one of {', '.join(STORED)}")
    notify = table.take(
        "notify", _or_null(_notify), '["NEVER"], a list of "SUCCESS", "FAILURE" and "DELAY", or null'
    )
    orcpt = table.take("orcpt", _or_null(_dsn("ORCPT")), '"rfc822;" and xtext (RFC 3461) or null')
    table.end()
    return path, state, RcptParameters(notify, orcpt)


class _Table:
    """An object of the document, whose keys are taken out one by one."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise NotAMessage(f"{where.rstrip('.') or 'the document'}: should be an object")
        self.where = where
        self._left = dict(value)

    def take(self, key: str, read: Callable[[Any], T], right: str) -> T:
        if key not in self._left:
            raise NotAMessage(f"{self.where}{key}: missing; should be {right}")
        value = self._left.pop(key)
        try:
            return read(value)
        except (TypeError, ValueError, AttributeError, OverflowError, Refused):
            shown = json.dumps(value)
            raise NotAMessage(
                f"{self.where}{key} = {shown if len(shown) < 100 else shown[:100] + '...'}: should be {right}"
            ) from None

    def table(self, key: str) -> "_Table":
        return self.take(key, lambda value: _Table(value, f"{self.where}{key}."), "an object")

    def end(self) -> None:
        for key in self._left:
            raise NotAMessage(f"{self.where}{json.dumps(key)[1:-1]}: unknown key")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key is there twice")
    return document


def _same(right: object) -> Callable[[object], object]:
    def read(value: object) -> object:
        if type(value) is not type(right) or value != right:
            raise ValueError
        return value

    return read


def _or_null(read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value is None else read(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or CONTROL.search(value):
        raise ValueError
    value.encode()  # no lone surrogate
    return value


def _line(value: object) -> str:
    text = _text(value)
    if not 0 < len(text) <= 1000:
        raise ValueError
    return text


def _queue_id(value: object) -> str:
    text = _text(value)
    if not is_queue_id(text):
        raise ValueError
    return text


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError
    return value


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _digest(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"[0-9a-f]{64}", text, re.ASCII):
        raise ValueError
    return text


def _time(value: object) -> float:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError
    return moment.timestamp()


def _list(value: object) -> list[object]:
    if not isinstance(value, list) or not value:
        raise ValueError
    return value


def _sender(value: object, smtputf8: bool) -> Path:
    given = " SMTPUTF8" if smtputf8 else ""
    path, _ = grammar.mail(f"FROM:<{_text(value)}>{given}", {"SMTPUTF8": lambda _: {"smtputf8": True}})
    return _same_path(path, value)


def _forward_path(value: object, smtputf8: bool) -> Path:
    path, _ = grammar.rcpt(f"TO:<{_text(value)}>", {}, smtputf8=smtputf8)
    return _same_path(path, value)


def _same_path(path: Path, value: object) -> Path:
    if str(path) != value:  # a parameter, or a source route
        raise ValueError
    return path


def _dsn(name: str) -> Callable[[Any], Any]:
    """The value of a parameter of the DSN extension, which is parsed to its letter there."""

    def read(value: object) -> object:
        parsers = {**DSN.mail_parameters, **DSN.rcpt_parameters}
        (parsed,) = parsers[name](_text(value)).values()
        if parsed != value:
            raise ValueError
        return parsed

    return read


def _notify(value: object) -> frozenset[Notify]:
    if not isinstance(value, list):
        raise TypeError
    (parsed,) = DSN.rcpt_parameters["NOTIFY"](",".join(map(_text, value))).values()
    wanted: frozenset[Notify] = parsed  # type: ignore[assignment]
    if sorted(wanted) != sorted(value):
        raise ValueError
    return wanted
