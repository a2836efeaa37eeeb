"""Rules that reach beyond one key: across tables, and the syntax of endpoints, URLs and patterns.

Nothing is opened here.  Of libraries that some settings need, it is looked whether they are installed.
"""

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from ipaddress import ip_address

from twisted.internet.endpoints import serverFromString

from digipoort_msa.config.delivery import Delivery, Hops
from digipoort_msa.config.mechanisms import logins
from digipoort_msa.config.policy import RULES, Policy
from digipoort_msa.config.problems import Problem
from digipoort_msa.config.queue import Notification, Queue
from digipoort_msa.config.realm import Realm
from digipoort_msa.config.settings import Settings
from digipoort_msa.config.stores import cred, http, ldap, passwd, sql
from digipoort_msa.config.tables import host_and_port


def across(settings: Settings) -> Iterator[Problem]:
    """Every problem of settings whose keys are each right on their own."""
    yield from _listeners(settings)
    yield from _realms(settings.realm)
    yield from _senders(settings)
    for key, delivery in deliveries(settings):
        yield from _delivery(key, delivery)
    for key, queue in _queues(settings):
        yield from _queue(key, queue)
    yield from logins(settings)
    if settings.spool.encryption_key_file is not None and find_spec("nacl") is None:
        right = "needs PyNaCl, which is not installed: install digipoort-msa[encryption]"
        yield Problem("spool.encryption-key-file", right)
    passwords = settings.passwords
    if passwords.memory_kib < 8 * passwords.parallelism:  # RFC 9106 3.1
        right = f"should be at least 8 for each of passwords.parallelism ({passwords.parallelism})"
        yield Problem("passwords.memory-kib", right, passwords.memory_kib)


def deliveries(settings: Settings) -> Iterator[tuple[str, Delivery]]:
    """Each way out that some realm uses, with its key."""
    if any(realm.delivery is None for realm in settings.realm):
        yield "delivery", settings.delivery
    for index, realm in enumerate(settings.realm):
        if realm.delivery is not None:
            yield f"realm[{index}].delivery", realm.delivery


def notifications(settings: Settings) -> Iterator[tuple[str, Notification]]:
    """Each ``[notification]`` table that some realm uses, with its key."""
    if any(realm.notification is None for realm in settings.realm):
        yield "notification", settings.notification
    for index, realm in enumerate(settings.realm):
        if realm.notification is not None:
            yield f"realm[{index}].notification", realm.notification


def _queues(settings: Settings) -> Iterator[tuple[str, Queue]]:
    yield "queue", settings.queue
    for index, realm in enumerate(settings.realm):
        if realm.queue is not None:
            yield f"realm[{index}].queue", realm.queue


def _queue(key: str, queue: Queue) -> Iterator[Problem]:
    if queue.first_delay > queue.maximum_delay:
        right = f"should be at most {key}.maximum-delay ({queue.maximum_delay:g})"
        yield Problem(f"{key}.first-delay", right, queue.first_delay)


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
        yield from _store(key, realm)
        for number, policy in enumerate(realm.policy):
            yield from _policy(f"{key}.policy[{number}]", policy)
            yield from _idle(f"{key}.policy[{number}]", policy, realm)
        for number in _repeated(policy.label for policy in realm.policy):
            right = "should differ from the names of the realm's other rules; give one of them a name"
            yield Problem(f"{key}.policy[{number}].name", right, realm.policy[number].label)


def _store(key: str, realm: Realm) -> Iterator[Problem]:
    if realm.store == "sql":
        if realm.sql.url is not None and (fault := _url_fault(realm.sql.url)):
            yield Problem(f"{key}.sql.url", fault, realm.sql.url)
        yield from sql.problems(f"{key}.sql", realm.sql)
    elif realm.store == "ldap":
        yield from ldap.problems(f"{key}.ldap", realm.ldap, realm.mechanisms)
    elif realm.store == "http":
        yield from http.problems(f"{key}.http", realm.http, realm.mechanisms)
    elif realm.store == "passwd":
        yield from passwd.problems(f"{key}.passwd", realm.passwd)
    elif realm.store == "cred":
        yield from cred.problems(f"{key}.cred", realm.cred)
    elif realm.store not in (installed := plugins("stores")):
        names = f" ({', '.join(installed)})" if installed else ""
        right = f"should be sql, passwd, ldap, cred, http or an installed plug-in{names}"
        yield Problem(f"{key}.store", right, realm.store)


def _policy(key: str, policy: Policy) -> Iterator[Problem]:
    if policy.rule == "external" and policy.external.socket is None:
        right = 'missing; it says where the milter listens: "unix:/path" or "host:port"'
        yield Problem(f"{key}.external.socket", right)
    elif policy.rule == "rate":
        if not policy.rate.limits:
            yield Problem(f"{key}.rate.limits", 'missing; such as [{per = "account", messages = 100}]')
        for index, limit in enumerate(policy.rate.limits):
            if limit.messages is limit.octets is limit.recipients is None:
                right = "should have messages, octets or recipients, of which it says how many"
                yield Problem(f"{key}.rate.limits[{index}]", right)
    elif policy.rule == "profile":
        least, most = policy.profile.attachments.minimum, policy.profile.attachments.maximum
        if most is not None and least > most:
            yield Problem(f"{key}.profile.attachments.minimum", f"should be at most maximum ({most})", least)
    elif policy.rule == "plugin" and policy.plugin.name not in (installed := plugins("policies")):
        right = f"should be an installed plug-in ({', '.join(installed) or 'there is none'})"
        yield Problem(f"{key}.plugin.name", right, policy.plugin.name or "")


def _idle(key: str, policy: Policy, realm: Realm) -> Iterator[Problem]:
    """What is said of a rule, and would change nothing."""
    for name in RULES:
        if name != policy.rule and name.replace("-", "_") in policy.model_fields_set:
            right = (
                f'should be {key}.{policy.rule}, or rule = "{name}": a rule goes by the table of its own name'
            )
            yield Problem(f"{key}.{name}", right)
    says_groups = (realm.ldap.groups_attribute, realm.ldap.groups_filter)
    if policy.groups and realm.store in {"passwd", "cred"}:
        yield Problem(f"{key}.groups", f"are unknown to the {realm.store} store; name the accounts instead")
    elif policy.groups and realm.store == "ldap" and not any(says_groups):
        right = "are unknown until ldap.groups-attribute or ldap.groups-filter says where they are"
        yield Problem(f"{key}.groups", right)


def plugins(kind: str) -> tuple[str, ...]:
    """The names that installed packages register.

    :param kind: "stores" or "policies".
    """
    return tuple(sorted({point.name for point in entry_points(group=f"digipoort_msa.{kind}")}))


def _senders(settings: Settings) -> Iterator[Problem]:
    """Is it known which senders are an account's own?  No others are told what became of their messages."""
    for index, realm in enumerate(settings.realm):
        key = f"realm[{index}]"
        told = settings.notification_of(realm).recipients
        if settings.delivery_of(realm).to == "through":
            continue  # the client itself has heard all there is to tell
        bound = [
            policy.sender
            for policy in realm.policy
            if (policy.rule, policy.mode) == ("sender", "enforce") and not (policy.accounts or policy.groups)
        ]
        if not (bound or realm.addresses or told):
            right = (
                "missing, and so are a sender rule in force and notification.recipients: that a sender is "
                "the account's own is known only where its name is the address; what fails of others is held "
                "for an operator, and they are told nothing"
            )
            yield Problem(f"{key}.addresses", right, warning=True)
        everyone = {pattern for table in bound for pattern in table.patterns}
        for pattern in sorted({*everyone, *told}):
            if not pattern.rpartition("@")[2].strip("*"):
                right = "is every address there is: notifications could be sent to strangers"
                where = "notification.recipients" if pattern in told else "policy"
                yield Problem(f"{key}.{where}", right, pattern, warning=True)


def _url_fault(url: str) -> str | None:
    # Where there is no URL, nobody need wait for SQLAlchemy.
    from digipoort_msa.database_urls import database_url

    try:
        database_url(url)
    except ValueError as error:
        return f"should be {error}"
    return None


def _delivery(key: str, delivery: Delivery) -> Iterator[Problem]:
    if delivery.to == "maildir":
        if delivery.maildir.directory is None:
            yield Problem(f"{key}.maildir.directory", f'missing; {key}.to = "maildir" needs a folder')
    elif delivery.to == "lmtp":
        yield from _hops(f"{key}.lmtp", f'{key}.to = "lmtp"', "unix:/run/dovecot/lmtp", delivery.lmtp)
    else:
        yield from _hops(f"{key}.relay", f'{key}.to = "{delivery.to}"', "core.example.nl:25", delivery.relay)


def _hops(key: str, reason: str, example: str, hops: Hops) -> Iterator[Problem]:
    if not hops.next_hops:
        yield Problem(f"{key}.next-hops", f'missing; {reason} needs a list such as ["{example}"]')
    for index in _repeated(hop.hop for hop in hops.next_hops):
        right = "should be there once"
        yield Problem(f"{key}.next-hops[{index}]", right, hops.next_hops[index].hop)
    if hops.username is not None and hops.password_file is None:
        yield Problem(f"{key}.password-file", f"missing; {key}.username needs a password")
    if hops.username is None and hops.password_file is not None:
        yield Problem(f"{key}.username", f"missing; {key}.password-file needs a name")
    if hops.username is not None and "\0" in hops.username:
        yield Problem(f"{key}.username", "should be a name without NUL", hops.username)
    if hops.certificate is not None and hops.private_key is None:
        yield Problem(f"{key}.private-key", f"missing; {key}.certificate needs its key")
    if hops.certificate is None and hops.private_key is not None:
        yield Problem(f"{key}.certificate", f"missing; {key}.private-key needs its certificate")
    if hops.first_rest > hops.longest_rest:
        right = f"should be at most {key}.longest-rest ({hops.longest_rest:g})"
        yield Problem(f"{key}.first-rest", right, hops.first_rest)
    yield from _look_ups(key, hops)
    if hops.tls == "none":
        yield from _in_clear(key, hops)


def _look_ups(key: str, hops: Hops) -> Iterator[Problem]:
    """What the DNS is asked, and by which resolver."""
    names = [hop.hop for hop in hops.next_hops if hop.hop.startswith(("mx:", "srv:"))]
    if (names or hops.dane) and find_spec("dns") is None:
        where = f'{key}.next-hops = "{names[0]}"' if names else f"{key}.dane"
        yield Problem(where, "needs dnspython, which is not installed: install digipoort-msa[dns]")
    if hops.tls != "none" and hops.server_name is None and not hops.public_key_pins:
        for index, hop in enumerate(hops.next_hops):
            if hop.hop.startswith(("mx:", "srv:")):
                right = (
                    "is used only where the resolver authenticates the answer (DNSSEC), since whoever forged "
                    f"it could name a host of his own; {key}.server-name or public-key-pins says who is right"
                )
                yield Problem(f"{key}.next-hops[{index}]", right, hop.hop, warning=True)
    if hops.resolver is not None:
        try:
            ip_address(host_and_port(hops.resolver)[0])
        except ValueError:
            right = 'should be an IP address and a port, such as "127.0.0.1:53" or "[::1]:53"'
            yield Problem(f"{key}.resolver", right, hops.resolver)


def _in_clear(key: str, hops: Hops) -> Iterator[Problem]:
    for index, hop in enumerate(hops.next_hops):
        if not _is_near(hop.hop):
            right = f'goes there in clear, for {key}.tls = "none"; that is right inside a VPN only'
            yield Problem(f"{key}.next-hops[{index}]", right, hop.hop, warning=True)
    if hops.username is not None:
        right = f'a login in clear is not done; set {key}.tls to "verify" or "implicit"'
        yield Problem(f"{key}.username", right, hops.username)
    idle = {
        "ca": hops.ca,
        "server-name": hops.server_name,
        "certificate": hops.certificate,
        "public-key-pins": hops.public_key_pins or None,
        "dane": hops.dane or None,
    }
    for name, value in idle.items():
        if value is not None:
            yield Problem(
                f"{key}.{name}", f'has no effect with {key}.tls = "none"', value, warning=name == "ca"
            )


def _is_near(hop: str) -> bool:
    """Does what goes there stay on this machine?"""
    return hop.startswith("unix:") or (
        not hop.startswith(("mx:", "srv:")) and _is_loopback(host_and_port(hop)[0])
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
