"""``[[realm.certificate]]``: which accounts client certificates stand for (EXTERNAL)."""

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from digipoort_msa.config.problems import Problem
from digipoort_msa.config.tables import Table, Text


class Certificate(Table):
    """``[[realm.certificate]]``: a client certificate that fits stands for an account; the first rule that
    fits decides.

    ``*`` in a pattern, once at most, stands for any run of characters within one part of a name; a pattern
    that is ``*`` alone fits any name.
    """

    field: Literal[
        "san-email",
        "san-dns",
        "san-uri",
        "common-name",
        "serial-number",
        "organization-identifier",
        "subject",
        "fingerprint",
    ] = Field(
        description="which name in the certificate: san-email, san-dns, san-uri, common-name, serial-number, "
        "organization-identifier, subject (RFC 4514) or fingerprint (SHA-256)"
    )
    pattern: Text = Field(description='what that name has to be, such as "*@clients.example.nl"')
    account: Text = Field(description="the account's name; * in it is what the pattern's stands for")
    issuer: str = Field(
        default="", description="the subject (RFC 4514) of the authority that issued it; empty means any"
    )


def unfit(key: str, rule: Certificate) -> Iterator[Problem]:
    """What is wrong with a rule whose keys are each right on their own."""
    if rule.pattern.count("*") > 1:
        yield Problem(f"{key}.pattern", "should have one * at most", rule.pattern)
    if rule.account.count("*") > rule.pattern.count("*"):
        right = f"should have * only where {key}.pattern has one, and once"
        yield Problem(f"{key}.account", right, rule.account)
    if rule.field == "fingerprint" and not re.fullmatch(r"[0-9a-f]{64}", _plain(rule.pattern)):
        right = "should be the certificate's SHA-256 fingerprint: openssl x509 -noout -fingerprint -sha256"
        yield Problem(f"{key}.pattern", right, rule.pattern)
    if rule.field == "san-email" and rule.pattern != "*" and rule.pattern.count("@") != 1:
        yield Problem(f"{key}.pattern", "should be an address, with one @", rule.pattern)


def _plain(fingerprint: str) -> str:
    return fingerprint.replace(":", "").lower()
