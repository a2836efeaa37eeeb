"""``[queue]`` and ``[notification]``: of each realm its own, merged over the general ones."""

from typing import Annotated, Literal

from pydantic import Field, Strict, StringConstraints

from digipoort_msa.config.tables import AbsolutePath, AddressPattern, Count, Flag, Seconds, Table, Text


class Queue(Table):
    """``[queue]``: when a message is tried, and tried again; of each realm its own, as ``[realm.queue]``."""

    active: Count = Field(default=20, description="messages being delivered at once")
    first_delay: Seconds = Field(default=60, description="seconds from the first try to the second")
    delay_factor: Annotated[float, Strict(), Field(ge=1, le=100)] = Field(
        default=2, description="a number from 1: each delay is this many times the one before"
    )
    maximum_delay: Seconds = Field(default=7200, description="seconds: the longest delay")
    jitter: Annotated[float, Strict(), Field(ge=0, lt=1)] = Field(
        default=0.2,
        description="from 0 to below 1: the part of a delay, either way, that is drawn by lot",
    )
    give_up_after: Seconds = Field(
        default=259200, description="seconds after receipt: then the message has failed"
    )
    tell_of_delay_after: Seconds = Field(
        default=14400, description="seconds after receipt: then the sender is told once that it takes long"
    )
    in_sequence: Flag = Field(
        default=False,
        description="true or false: of one account, a message is tried only when the one before it has ended",
    )


_FROM = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,255}$"


class Notification(Table):
    """``[notification]`` and ``[realm.notification]``: what senders are told of their messages (RFC 3464)."""

    languages: tuple[Literal["en", "nl"], ...] = Field(
        default=("nl", "en"),
        min_length=1,
        description='a list of "en" and "nl": the texts, one after another',
    )
    templates: AbsolutePath | None = Field(
        default=None,
        description="a folder: its files failed.nl.txt, delayed.en.txt and so on take the place of our texts",
    )
    sender: Annotated[str, StringConstraints(pattern=_FROM)] | None = Field(
        default=None,
        description="the address in the notification's From field, in ASCII and without quotes; unset means "
        "MAILER-DAEMON at the hostname",
    )
    contact: Text | None = Field(default=None, description="a line such as a telephone number, for the texts")
    full_size: Annotated[int, Strict(), Field(ge=0, le=262144)] = Field(
        default=65536,
        description="octets: up to this size the message comes back whole where its sender asked for that",
    )
    recipients: tuple[AddressPattern, ...] = Field(
        default=(),
        description="a list of patterns: senders that may be told though nothing says that they are the "
        "account's own",
    )
