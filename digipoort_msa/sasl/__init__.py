"""SASL (RFC 4422) without I/O: the mechanisms as generators, and the credentials they bring forth."""

from digipoort_msa.sasl.credentials import (
    DigestCredential,
    IDigestCredential,
    IPasswordCredential,
    PasswordCredential,
)
from digipoort_msa.sasl.digest_md5 import digest_secrets
from digipoort_msa.sasl.mechanism import Challenge, Context, Denied, Exchange, Malformed, Mechanism, Verify
from digipoort_msa.sasl.registry import MECHANISMS
from digipoort_msa.sasl.saslprep import saslprep

__all__ = [
    "MECHANISMS",
    "Challenge",
    "Context",
    "Denied",
    "DigestCredential",
    "Exchange",
    "IDigestCredential",
    "IPasswordCredential",
    "Malformed",
    "Mechanism",
    "PasswordCredential",
    "Verify",
    "digest_secrets",
    "saslprep",
]
