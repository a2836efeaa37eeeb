"""Opening the ``http`` accounts of a realm from its settings."""

import re
from pathlib import Path
from typing import Any

from digipoort_msa.accounts.http.breaker import Breaker
from digipoort_msa.accounts.http.endpoint import ClientTLS, Endpoint
from digipoort_msa.accounts.http.store import HTTPStore, HTTPVerifyingStore, Questions
from digipoort_msa.config.stores.http import Http
from digipoort_msa.secret_files import first_line


def open_http(realm: str, http: Http, reactor: Any) -> HTTPStore:
    """Nothing is connected to yet.

    :raise ValueError, OSError: a file cannot be used; the text says which, and why.
    """
    questions = Questions(
        realm=realm,
        url=http.url or "",
        verify_url=http.verify_url if http.mode == "verify" else None,
        digest_md5=http.digest_md5,
        scram=http.scram,
    )
    endpoint = Endpoint(
        reactor,
        ClientTLS(http.ca, http.certificate, http.private_key),
        token=None if http.token_file is None else _token(http.token_file),
        connect_timeout=http.connect_timeout,
        timeout=http.timeout,
        connections=http.connections,
    )
    breaker = Breaker(
        realm,
        reactor.seconds,
        failures=http.failures,
        first_rest=http.first_rest,
        longest_rest=http.longest_rest,
    )
    kind = HTTPStore if questions.verify_url is None else HTTPVerifyingStore
    return kind(questions, endpoint, breaker, at_once=http.connections)


def _token(file: Path) -> str:
    """Of RFC 6750 2.1: with anything else in it, it would be more than one header field."""
    try:
        token = first_line(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} should hold a token as its first line ({error})") from error
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token):
        raise ValueError(f"{file} should hold a token as its first line: letters, digits and ._~+/-")
    return token
