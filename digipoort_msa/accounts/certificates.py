"""Which account a client certificate stands for (EXTERNAL), by a realm's rules.

TLS has verified the certificate against the operator's authorities; what is in it is what they vouch for.  A
rule takes one kind of name out of it.  The first rule that fits decides, and nobody is let in by chance:

- A pattern is matched whole, never found in the middle of something.  It is literal but for one ``*``, and
  that stands for one part of a name (:data:`_BOUNDARIES`): a certificate for ``a.b.example.nl`` is no
  ``*.example.nl``, and a subject cannot hide a component of its own in it.
- Names are compared as they stand.  Only a domain's case is ignored (RFC 4343).  What looks like another
  name, or would become another by SASLprep, does not fit: an account's name has to come out prepared.
- A subject with two common names, or two of another attribute, has none that counts; a host name with a
  wildcard names no host.
- Where two names in a certificate fit a rule and mean different accounts, it means neither.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from attrs import evolve, frozen
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, inlineCallbacks
from zope.interface import implementer

from digipoort_msa.accounts.account import Account
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.names import local_name
from digipoort_msa.accounts.refusals import refusal
from digipoort_msa.sasl.certificate import ClientCertificate
from digipoort_msa.sasl.credentials import ICertificateCredential
from digipoort_msa.sasl.identity import MAXIMUM_OCTETS
from digipoort_msa.sasl.saslprep import saslprep


def _only(values: tuple[str, ...]) -> tuple[str, ...]:
    return values if len(values) == 1 else ()


def _email(address: str) -> str:
    local_part, _, domain = address.partition("@")
    return f"{local_part}@{domain.lower()}"


def _emails(certificate: ClientCertificate) -> Iterable[str]:
    return (_email(address) for address in certificate.emails if address.count("@") == 1)


def _hosts(certificate: ClientCertificate) -> Iterable[str]:
    return (name.lower() for name in certificate.dns_names if "*" not in name)


#: The kinds of names a rule can go by, and where they are in a certificate.
NAMES: Mapping[str, Callable[[ClientCertificate], Iterable[str]]] = MappingProxyType(
    {
        "san-email": _emails,
        "san-dns": _hosts,
        "san-uri": lambda certificate: certificate.uris,
        "common-name": lambda certificate: _only(certificate.common_names),
        "serial-number": lambda certificate: _only(certificate.serial_numbers),
        "organization-identifier": lambda certificate: _only(certificate.organization_identifiers),
        "subject": lambda certificate: (certificate.subject,),
        "fingerprint": lambda certificate: (certificate.fingerprint,),
    }
)
#: Patterns are brought into the form of the names that they are compared with.
_FORMS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "san-email": lambda pattern: _email(pattern) if "@" in pattern else pattern,
        "san-dns": str.lower,
        "fingerprint": lambda pattern: pattern.replace(":", "").lower(),
    }
)
#: What ``*`` stands for none of, unless it is the whole pattern.
_BOUNDARIES: Mapping[str, str] = MappingProxyType(
    {"san-email": "@", "san-dns": ".", "san-uri": "/?#", "subject": ",+\\"}
)


@frozen(kw_only=True)
class CertificateRule:
    """One rule: the certificates that fit, and the account they stand for."""

    name: str  # one of NAMES
    pattern: str  # at most one ``*``: any run of characters, at least one of them
    account: str  # its ``*`` is what the pattern's stands for
    issuer: str = ""  # the distinguished name (RFC 4514) of the authority that issued it; "" for any

    def __attrs_post_init__(self) -> None:
        form = _FORMS.get(self.name)
        if form is not None:
            object.__setattr__(self, "pattern", form(self.pattern))

    def accounts(self, certificate: ClientCertificate) -> frozenset[str]:
        """The accounts that its names mean: none where it does not fit."""
        if self.issuer and certificate.issuer != self.issuer:
            return frozenset()
        found = (self._account(value) for value in NAMES[self.name](certificate))
        return frozenset(account for account in found if account is not None)

    def _account(self, value: str) -> str | None:
        start, star, end = self.pattern.partition("*")
        if not star:
            return self.account if value and value == start else None
        part = value[len(start) : len(value) - len(end)]
        if not part or value != f"{start}{part}{end}":
            return None
        if self.pattern != "*" and any(boundary in part for boundary in _BOUNDARIES.get(self.name, "")):
            return None
        return self.account.replace("*", part)


class CertificateRules:
    """A realm's rules, in their order."""

    def __init__(self, realm: str, rules: Sequence[CertificateRule]) -> None:
        self._realm = realm
        self._rules = tuple(rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def account_of(self, certificate: ClientCertificate) -> str:
        """The name of the account that a certificate stands for, if there is one of that name.

        :raise UnauthorizedLogin: it stands for none; the text says why, for the log.
        """
        for rule in self._rules:
            accounts = {local_name(account, self._realm) for account in rule.accounts(certificate)}
            if len(accounts) > 1:
                raise UnauthorizedLogin(
                    f"by the {rule.name} rule of realm {self._realm} the certificate of "
                    f"{certificate.subject} stands for more than one account"
                )
            for account in accounts:
                return self._prepared(account, certificate)
        raise UnauthorizedLogin(
            f"no rule of realm {self._realm} fits the certificate of {certificate.subject}"
            + self._but_for_its_issuer(certificate)
        )

    def _but_for_its_issuer(self, certificate: ClientCertificate) -> str:
        """The rest of that sentence, where only the issuer differs: a name is soon written another way."""
        for rule in self._rules:
            if rule.issuer and evolve(rule, issuer="").accounts(certificate):
                return f": its issuer is {certificate.issuer}, where a rule has {rule.issuer}"
        return ""

    @staticmethod
    def _prepared(account: str, certificate: ClientCertificate) -> str:
        try:
            fits = saslprep(account) == account and 0 < len(account.encode()) <= MAXIMUM_OCTETS
        except ValueError:
            fits = False
        if not fits:
            raise UnauthorizedLogin(
                f"what the certificate of {certificate.subject} stands for is no account's name (RFC 4013)"
            )
        return account


@implementer(ICredentialsChecker)
class CertificateChecker:
    """For EXTERNAL.  The account is read afresh, as for every login; any store can serve it."""

    credentialInterfaces = (ICertificateCredential,)

    def __init__(self, realm: str, store: GuardedStore, rules: CertificateRules) -> None:
        self._realm = realm
        self._store = store
        self._rules = rules

    @inlineCallbacks
    def requestAvatarId(self, credentials: ICertificateCredential) -> Generator[Deferred[Any], Any, Any]:
        """
        :return: who it is.
        :raise UnauthorizedLogin: the certificate stands for no account, or not for the one that is asked for,
            or that may not log in.
        :raise Unavailable: the store cannot be asked.
        """
        name = self._rules.account_of(credentials.certificate)
        asked = local_name(credentials.username, self._realm)
        if asked and asked != name:
            raise UnauthorizedLogin(f"the certificate stands for {name}, and may not act for another")
        account: Account | None = yield self._store.account(name)
        if account is None or not account.may_log_in:
            raise UnauthorizedLogin(f"{refusal(account, '')}: {name}, whom the certificate stands for")
        return account.identity
