"""``[realm.http]``: accounts behind a JSON endpoint."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from digipoort_msa.config.problems import Problem
from digipoort_msa.config.tables import AbsolutePath, Count, Flag, SecretFile, Table, Text

Seconds = Annotated[float, Field(ge=0.1, le=8)]
Rest = Annotated[float, Field(ge=0.1, le=3600)]


class Http(Table):
    """``[realm.http]``: accounts behind a JSON endpoint that is asked with POST, over HTTPS."""

    url: Text | None = Field(
        default=None,
        description='where an account is asked for, such as "https://accounts.example.nl/msa/account"',
    )
    mode: Literal["hash", "verify"] = Field(
        default="hash",
        description='"hash": the answer has a password hash; "verify": verify-url is asked whether a '
        "password is right",
    )
    verify_url: Text | None = Field(
        default=None, description='with mode = "verify": where a password is verified'
    )
    ca: AbsolutePath | None = Field(
        default=None,
        description="a PEM file: the authorities of the endpoint's certificate; unset means the system's",
    )
    certificate: AbsolutePath | None = Field(
        default=None, description="a PEM file: the certificate that we show; unset means none"
    )
    private_key: AbsolutePath | None = Field(default=None, description="a PEM file: its key")
    token_file: SecretFile | None = Field(
        default=None,
        description='a file whose first line is the token for "Authorization: Bearer", or "credential:NAME"',
    )
    digest_md5: Flag = Field(
        default=False, description="true or false: the answers have digest-secrets, for DIGEST-MD5"
    )
    scram: Flag = Field(default=False, description="true or false: the answers have scram, for SCRAM-SHA-256")
    connections: Count = Field(
        default=8, description="how many questions are under way at once, and connections are kept"
    )
    connect_timeout: Seconds = Field(
        default=2.0, description="from 0.1 to 8 seconds: for connecting to the endpoint"
    )
    timeout: Seconds = Field(default=4.0, description="from 0.1 to 8 seconds: for an answer, in all")
    failures: Count = Field(
        default=5, description="times in a row without an answer, after which the endpoint is left alone"
    )
    first_rest: Rest = Field(default=1.0, description="from 0.1 to 3600 seconds: how long, the first time")
    longest_rest: Rest = Field(
        default=60.0, description="from 0.1 to 3600 seconds: each rest is twice the one before, up to this"
    )


def problems(key: str, http: Http, mechanisms: tuple[str, ...]) -> Iterator[Problem]:
    """What reaches beyond one key.

    :param key: of the table.
    :param mechanisms: of the realm.
    """
    if find_spec("treq") is None:
        yield Problem(key, "needs treq, which is not installed: install digipoort-msa[http]")
    if http.url is None:
        right = 'missing; should be such as "https://accounts.example.nl/msa/account"'
        yield Problem(f"{key}.url", right)
    if http.mode == "verify" and http.verify_url is None:
        yield Problem(f"{key}.verify-url", f'missing; {key}.mode = "verify" needs it')
    if http.mode == "hash" and http.verify_url is not None:
        yield Problem(f"{key}.verify-url", f'has no effect without {key}.mode = "verify"', http.verify_url)
    for name, url in (("url", http.url), ("verify-url", http.verify_url)):
        if url is not None:
            yield from _url(f"{key}.{name}", url)
    if (http.certificate is None) != (http.private_key is None):
        missing = "certificate" if http.certificate is None else "private-key"
        yield Problem(f"{key}.{missing}", "missing; a certificate and its key go together")
    for lesser, greater in (("connect_timeout", "timeout"), ("first_rest", "longest_rest")):
        value, most = getattr(http, lesser), getattr(http, greater)
        if value > most:
            right = f"should be at most {key}.{greater.replace('_', '-')} ({most:g})"
            yield Problem(f"{key}.{lesser.replace('_', '-')}", right, value)
    for mechanism, setting, value in (
        ("DIGEST-MD5", "digest-md5", http.digest_md5),
        ("SCRAM-SHA-256", "scram", http.scram),
        ("SCRAM-SHA-256-PLUS", "scram", http.scram),
    ):
        if mechanism in mechanisms and not value:
            right = f"should be true where the answers have what {mechanism} needs; else it is not offered"
            yield Problem(f"{key}.{setting}", right, value, warning=True)


def _url(key: str, url: str) -> Iterator[Problem]:
    """Hosts are ASCII, and there is nothing in a URL that would have to be secret."""
    try:
        parts = urlsplit(url)
        sound = (
            parts.scheme in {"https", "http"}
            and re.fullmatch(r"[!-~]+", url)
            and re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", parts.hostname or "")
            and parts.port != 0
        )
    except ValueError:  # a port, or brackets
        sound = False
    if not sound or parts.fragment:
        yield Problem(key, 'should be such as "https://accounts.example.nl/msa/account"', url)
    elif parts.username is not None or parts.password is not None:
        yield Problem(key, "should have no name or password in it; token-file and certificate are for that")
    elif parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        yield Problem(key, "passwords do not go to another machine in clear: should begin with https://", url)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
