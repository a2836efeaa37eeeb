"""What ``--json`` prints of messages and of the spool: values that ``json`` can write."""

from typing import Any

from digipoort_msa.admin.queue.printing import moment
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.statistics import Statistics, Tally
from digipoort_msa.spool.views import Message, Recipient, Summary, Unreadable


def _reply_document(reply: Reply | None) -> str | None:
    return None if reply is None else str(reply)


def summary_document(one: Summary | Unreadable) -> dict[str, Any]:
    if isinstance(one, Unreadable):
        return {"id": one.queue_id, "unreadable": one.why}
    return {
        "id": one.queue_id,
        "received": moment(one.received_at),
        "size": one.size,
        "sender": f"<{one.sender}>",
        "realm": one.realm,
        "account": one.account,
        "recipients": {str(state): count for state, count in one.states.items()},
        "recipient": str(one.recipient),
        "reply": _reply_document(one.reply),
        "reason": one.reason,
        "next-try": moment(one.next_attempt) or None,
        "wish": one.wish,
        "next-hop": one.next_hop,
        "encrypted": one.sealed,
    }


def message_document(inspection: Inspection, message: Message) -> dict[str, Any]:
    summary, envelope = message.summary, message.envelope
    parameters = envelope.parameters
    return {
        "id": summary.queue_id,
        "received": moment(summary.received_at),
        "size": summary.size,
        "eight-bit": message.eight_bit,
        "sender": f"<{summary.sender}>",
        "parameters": {
            "size": parameters.size,
            "body-8bitmime": parameters.body_8bitmime,
            "smtputf8": parameters.smtputf8,
            "auth": parameters.auth,
            "ret": parameters.ret,
            "envid": parameters.envid,
        },
        "realm": summary.realm,
        "account": summary.account,
        "session": envelope.session_id,
        "location": str(inspection.location(message)),
        "sha256": message.digest,
        "encrypted-with": message.sealed_by,
        "next-hop": summary.next_hop,
        "next-try": moment(summary.next_attempt) or None,
        "waits-for": message.waits_for if in_line(message) else None,
        "wish": summary.wish,
        "recipients": [
            {
                "path": str(one.path),
                "state": str(one.state),
                "attempts": one.attempts,
                "hop": one.hop,
                "reply": _reply_document(one.reply),
                "reason": one.reason,
                "told-of-delay": one.told_of_delay,
                "notify": _notify_document(message, one),
                "orcpt": envelope.parameters_of(one.path).orcpt,
            }
            for one in message.recipients
        ],
        "attempts": [
            {
                "at": moment(one.at),
                "hop": one.hop,
                "reply": str(one.reply),
                "recipients": list(one.recipients),
            }
            for one in message.attempts
        ],
    }


def _notify_document(message: Message, one: Recipient) -> list[str] | None:
    notify = message.envelope.parameters_of(one.path).notify
    return None if notify is None else sorted(notify)


def statistics_document(found: Statistics, watermark: int, now: float) -> dict[str, Any]:
    def tally_document(tally: Tally) -> dict[str, Any]:
        return {
            "realm": tally.realm,
            "state": str(tally.state),
            "messages": tally.messages,
            "recipients": tally.recipients,
            "octets": tally.octets,
            "oldest-seconds": round(now - tally.oldest),
            "median-seconds": round(now - tally.median),
        }

    return {
        "messages": found.messages,
        "octets": found.octets,
        "unreadable": found.unreadable,
        "states": [tally_document(tally) for tally in found.tallies],
        "next-due": moment(found.next_due) or None,
        "waiting-in-sequence": found.in_line,
        "orders-not-carried-out": found.wishes,
        "disk-free": found.disk_free,
        "watermark": watermark,
        "running": found.running,
    }


def in_line(message: Message) -> bool:
    """Does it wait for an earlier message of its sequence?"""
    summary = message.summary
    return bool(message.waits_for and summary.next_attempt is None and summary.waits and not summary.wish)
