"""Rules that reach beyond one key: across tables, and the syntax of endpoints, URLs and patterns.

Nothing is opened here.
"""

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from twisted.internet.endpoints import serverFromString

from digipoort_msa.config.problems import Problem
from digipoort_msa.config.settings import Realm, Relay, Settings, host_and_port


def across(settings: Settings) -> Iterator[Problem]:
    """Every problem of settings whose keys are each right on their own."""
    yield from _listeners(settings)
    yield from _realms(settings.realm)
    yield from _delivery(settings)
    if settings.tls.client_certificates != "off" and settings.tls.client_ca is None:
        right = f'missing; tls.client-certificates = "{settings.tls.client_certificates}" needs a PEM file'
        yield Problem("tls.client-ca", right)
    passwords = settings.passwords
    if passwords.memory_kib < 8 * passwords.parallelism:  # RFC 9106 3.1
        right = f"should be at least 8 for each of passwords.parallelism ({passwords.parallelism})"
        yield Problem("passwords.memory-kib", right, passwords.memory_kib)
    if settings.queue.first_delay > settings.queue.maximum_delay:
        right = f"should be at most queue.maximum-delay ({settings.queue.maximum_delay:g})"
        yield Problem("queue.first-delay", right, settings.queue.first_delay)


def _repeated(values: Iterable[str]) -> Iterator[int]:
    """The indices of values that stood before."""
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value.lower() in seen:
            yield index
        seen.add(value.lower())


def _listeners(settings: Settings) -> Iterator[Problem]:
    endpoints = [listener.endpoint for listener in settings.listener]
    for index, endpoint in enumerate(endpoints):
        if right := _endpoint_fault(endpoint):
            yield Problem(f"listener[{index}].endpoint", right, endpoint)
    for index in _repeated(endpoints):
        if not re.search(r"\btcp6?:(port=)?0\b", endpoints[index]):  # port 0 is a new one each time
            yield Problem(
                f"listener[{index}].endpoint", "should differ from the other listeners'", endpoints[index]
            )


def _endpoint_fault(endpoint: str) -> str | None:
    """What would be right for a listener's endpoint, or ``None`` where it is."""
    inner = endpoint.removeprefix("haproxy:")
    if inner.startswith(("ssl:", "tls:", "autotls:", "txacme:")):
        return 'should be a plain endpoint such as "tcp:465"; listener.tls = "implicit" adds the TLS'
    if inner.startswith("systemd:"):
        # Twisted would look for the inherited socket, which a check outside the unit does not have.
        if re.fullmatch(r"systemd:domain=(INET6?|UNIX):(index=[0-9]{1,4}|name=[^:]+)", inner):
            return None
        return 'should be such as "systemd:domain=INET:index=0"'
    port = re.match(r"tcp6?:(?:port=)?([0-9]+)(?::|$)", inner)
    if port and (len(port[1]) > 5 or int(port[1]) > 65535):
        return "should name a port from 0 to 65535"
    try:
        serverFromString(None, endpoint)
    except Exception as error:  # noqa: BLE001 (each endpoint type has a parser, and errors, of its own)
        detail = re.sub(r"_parse\w+\(\) ", "", str(error)).encode("unicode_escape").decode("ascii")
        return f'should be a Twisted server endpoint such as "tcp:587" or "tcp6:587" ({detail})'
    return None


def _realms(realms: tuple[Realm, ...]) -> Iterator[Problem]:
    for index in _repeated(realm.name for realm in realms):
        yield Problem(
            f"realm[{index}].name", "should differ from the other realms' names", realms[index].name
        )
    for index, realm in enumerate(realms):
        key = f"realm[{index}]"
        for repeated in _repeated(realm.mechanisms):
            right = "should be there once"
            yield Problem(f"{key}.mechanisms[{repeated}]", right, realm.mechanisms[repeated])
        if realm.url is not None and (fault := _url_fault(realm.url)):
            yield Problem(f"{key}.url", fault, realm.url)
        for name, pattern in realm.header_patterns.items():
            try:
                re.compile(pattern)
            except (re.error, OverflowError, RecursionError) as error:
                right = f"should be a regular expression ({error})"
                yield Problem(f"{key}.header-patterns.{name}", right, pattern)
        if realm.sender_addresses and not realm.bind_sender:
            right = f"has no effect unless {key}.bind-sender is true"
            yield Problem(f"{key}.sender-addresses", right, warning=True)


def _url_fault(url: str) -> str | None:
    try:
        dialect = make_url(url).get_dialect()
        dialect.import_dbapi()
    except (ArgumentError, ValueError):
        return "should be a SQLAlchemy URL such as postgresql+psycopg://user@host/database"
    except ImportError as error:
        return f"needs a database library that is not installed ({error})"
    except Exception as error:  # noqa: BLE001 (a dialect that is not known, or one with faults of its own)
        return f"should name a database that SQLAlchemy knows ({error})"
    return None


def _delivery(settings: Settings) -> Iterator[Problem]:
    delivery = settings.delivery
    if delivery.to == "maildir":
        if delivery.maildir.directory is None:
            yield Problem("delivery.maildir.directory", 'missing; delivery.to = "maildir" needs a folder')
        return
    relay = delivery.relay
    if not relay.next_hops:
        right = 'missing; delivery.to = "relay" needs a list such as ["core.example.nl:25"]'
        yield Problem("delivery.relay.next-hops", right)
    for index in _repeated(relay.next_hops):
        right = "should be there once"
        yield Problem(f"delivery.relay.next-hops[{index}]", right, relay.next_hops[index])
    if relay.username is not None and relay.password_file is None:
        yield Problem("delivery.relay.password-file", "missing; delivery.relay.username needs a password")
    if relay.username is None and relay.password_file is not None:
        yield Problem("delivery.relay.username", "missing; delivery.relay.password-file needs a name")
    if relay.tls == "none":
        yield from _in_clear(relay)


def _in_clear(relay: Relay) -> Iterator[Problem]:
    for index, hop in enumerate(relay.next_hops):
        if not _is_loopback(host_and_port(hop)[0]):
            right = 'goes there in clear, for delivery.relay.tls = "none"; that is right inside a VPN only'
            yield Problem(f"delivery.relay.next-hops[{index}]", right, hop, warning=True)
    if relay.username is not None:
        right = 'a login in clear is not done; set delivery.relay.tls to "verify" or "implicit"'
        yield Problem("delivery.relay.username", right, relay.username)
    if relay.ca is not None:
        right = 'has no effect with delivery.relay.tls = "none"'
        yield Problem("delivery.relay.ca", right, relay.ca, warning=True)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
