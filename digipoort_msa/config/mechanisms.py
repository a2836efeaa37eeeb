"""Rules on what clients can log in with: mechanisms, their end, and client certificates."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from digipoort_msa.config.certificate import unfit
from digipoort_msa.config.problems import Problem
from digipoort_msa.config.realm import Realm
from digipoort_msa.config.settings import Listener, Settings

_SOON = timedelta(days=30)


def logins(settings: Settings) -> Iterator[Problem]:
    """Every problem of what is offered, where and how long."""
    today = datetime.now(UTC).date()
    for index, realm in enumerate(settings.realm):
        yield from _end(f"realm[{index}]", realm, today)
        yield from _rules(f"realm[{index}]", realm, settings)
    for index, listener in enumerate(settings.listener):
        yield from _listener(f"listener[{index}]", listener, settings, today)
    yield from _authorities(settings)


def asks(settings: Settings, listener: Listener) -> bool:
    """Are clients asked for certificates there?"""
    return settings.client_certificates_of(listener) != "off"


def _end(key: str, realm: Realm, today: date) -> Iterator[Problem]:
    """DIGEST-MD5's last day."""
    until = realm.digest_md5_until
    if until is None:
        return
    if "DIGEST-MD5" not in realm.mechanisms:
        right = f"has no effect: {key}.mechanisms does not list DIGEST-MD5"
        yield Problem(f"{key}.digest-md5-until", right, until, warning=True)
    elif realm.mechanisms == ("DIGEST-MD5",):
        right = f"leaves nothing to log in with after it; {key}.mechanisms should list another"
        yield Problem(f"{key}.digest-md5-until", right, until, warning=True)
    elif today > until:
        right = f"is over: DIGEST-MD5 is off; take it out of {key}.mechanisms"
        yield Problem(f"{key}.digest-md5-until", right, until, warning=True)
    elif until - today <= _SOON:
        right = f"is near ({(until - today).days} days); account report tells who uses DIGEST-MD5"
        yield Problem(f"{key}.digest-md5-until", right, until, warning=True)


def _rules(key: str, realm: Realm, settings: Settings) -> Iterator[Problem]:
    """EXTERNAL."""
    for number, rule in enumerate(realm.certificate):
        yield from unfit(f"{key}.certificate[{number}]", rule)
    if "EXTERNAL" not in realm.mechanisms:
        if realm.certificate:
            right = f"has no effect: {key}.mechanisms does not list EXTERNAL"
            yield Problem(f"{key}.certificate", right, warning=True)
        return
    if not realm.certificate:
        right = f"missing; EXTERNAL in {key}.mechanisms needs rules for which certificate is whose"
        yield Problem(f"{key}.certificate", right)
    shown = [one for one in settings.listener if not one.mechanisms or "EXTERNAL" in one.mechanisms]
    if not any(asks(settings, listener) for listener in shown):
        right = "EXTERNAL is offered nowhere: no listener for it asks clients for certificates"
        yield Problem(f"{key}.mechanisms", right, warning=True)
    elif settings.tls.client_crl is None:
        right = f"missing; EXTERNAL in {key}.mechanisms lets in revoked certificates until they expire"
        yield Problem("tls.client-crl", right, warning=True)


def _listener(key: str, listener: Listener, settings: Settings, today: date) -> Iterator[Problem]:
    offered = {mechanism for realm in settings.realm for mechanism in _offered(realm, today)}
    for number, mechanism in enumerate(listener.mechanisms):
        if mechanism in listener.mechanisms[:number]:
            yield Problem(f"{key}.mechanisms[{number}]", "should be there once", mechanism)
        elif mechanism not in offered:
            right = "has no effect: no realm offers it"
            yield Problem(f"{key}.mechanisms[{number}]", right, mechanism, warning=True)
    usable = offered & set(listener.mechanisms or offered)
    if not asks(settings, listener):
        usable -= {"EXTERNAL"}
    if not usable:
        yield Problem(key, "offers nothing to log in with", warning=True)


def _offered(realm: Realm, today: date) -> set[str]:
    over = realm.digest_md5_until is not None and today > realm.digest_md5_until
    return {mechanism for mechanism in realm.mechanisms if not (over and mechanism == "DIGEST-MD5")}


def _authorities(settings: Settings) -> Iterator[Problem]:
    """``[tls]``'s part of it."""
    tls = settings.tls
    asking = [index for index, listener in enumerate(settings.listener) if asks(settings, listener)]
    if asking and tls.client_ca is None:
        own = settings.listener[asking[0]].client_certificates
        where = f"listener[{asking[0]}]" if own else "tls"
        mode = own or tls.client_certificates
        yield Problem("tls.client-ca", f'missing; {where}.client-certificates = "{mode}" needs a PEM file')
    if not asking and tls.client_crl is not None:
        yield Problem("tls.client-crl", "has no effect: no listener asks for certificates", warning=True)
