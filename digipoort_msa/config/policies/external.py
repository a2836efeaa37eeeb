"""``[realm.policy.external]``."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from digipoort_msa.config.tables import Octets, Seconds, Table, host_and_port

_LONGEST_SOCKET = 107  # octets of a path


def _socket(text: str) -> str:
    """Where a milter listens: a unix socket, or a host and port."""
    kind, _, path = text.partition(":")
    if kind == "unix" and path.startswith("/") and "\0" not in path:
        if len(path.encode()) > _LONGEST_SOCKET:
            raise ValueError(f"a socket whose path has at most {_LONGEST_SOCKET} octets (unix(7))")
        return text
    try:
        host_and_port(text)
    except ValueError:
        raise ValueError(
            '"unix:/path" or "host:port", such as "127.0.0.1:8891" (which milters write inet:8891@127.0.0.1)'
        ) from None
    return text


class ExternalTable(Table):
    """``rule = "external"``: a milter is asked, such as ClamAV's or rspamd."""

    socket: Annotated[str, AfterValidator(_socket)] | None = Field(
        default=None,
        description='where the milter listens: "unix:/path", or "host:port" such as 127.0.0.1:11332',
    )
    on_failure: Literal["refuse", "pass"] = Field(
        default="refuse",
        description='"refuse" (451) or "pass": what becomes of a message where the milter fails',
    )
    connect_timeout: Seconds = Field(default=10, description="seconds for the connection")
    timeout: Seconds = Field(
        default=30,
        description="seconds for each answer but the last, and for the milter to take what it is told",
    )
    maximum_time: Annotated[Seconds, Field(le=540)] = Field(
        default=300,
        description="seconds, at most 540 (a client waits 600): from the end of a message to the verdict",
    )
    maximum_size: Octets | None = Field(
        default=None,
        description="octets: what becomes of a larger message is as on-failure says; unset means no limit",
    )
