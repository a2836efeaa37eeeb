"""The rules of a realm, as the settings order them: to add one, write it and name it in ``RULES``."""

from collections.abc import Callable, Mapping

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from digipoort_msa.config.policy import Policy
from digipoort_msa.config.realm import Realm
from digipoort_msa.config.tables import host_and_port
from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import Facilities, IPolicy
from digipoort_msa.policy.addresses import AddressPatterns, OwnAddresses, wildcards
from digipoort_msa.policy.applied import Applied, Report
from digipoort_msa.policy.header_sender import HeaderSenderRule
from digipoort_msa.policy.milter.judgement import MilterRule
from digipoort_msa.policy.milter.milter import Milter, Times
from digipoort_msa.policy.profile import Attachments, Bounds, Pattern, Profile, ProfileRule, Types
from digipoort_msa.policy.rate import Limit, RateRule, Unit
from digipoort_msa.policy.recipients import RecipientsRule
from digipoort_msa.policy.sender import SenderRule
from digipoort_msa.service.plugins import open_plugin


def make_policies(realm: Realm, facilities: Facilities, report: Report) -> tuple[IPolicy, ...]:
    """A realm's rules, in the order in which they are asked.

    :param report: is told what the rules on trial would refuse.
    :raise ValueError, OSError: one cannot be used; the text says why.
    """
    return tuple(
        Applied(
            policy.label,
            RULES[policy.rule](policy, realm, facilities),
            _concerns(policy),
            report if policy.mode == "audit" else None,
        )
        for policy in realm.policy
    )


def _concerns(policy: Policy) -> Callable[[Identity], bool]:
    """Whom is a rule about?"""
    if not (policy.accounts or policy.groups):
        return lambda _: True
    names = wildcards(policy.accounts)
    groups = frozenset(policy.groups)

    def concerns(identity: Identity) -> bool:
        return bool(names.fullmatch(identity.name) or groups & identity.groups)

    return concerns


def _sender(policy: Policy, realm: Realm, _: Facilities) -> IPolicy:
    table = policy.sender
    own = OwnAddresses.of(realm.addresses) if table.own else None
    return SenderRule(own, AddressPatterns.of(table.patterns), table.null_sender)


def _header_sender(policy: Policy, realm: Realm, _: Facilities) -> IPolicy:
    table = policy.header_sender
    own = OwnAddresses.of(realm.addresses) if table.own else None
    return HeaderSenderRule(own, AddressPatterns.of(table.patterns))


def _rate(policy: Policy, realm: Realm, facilities: Facilities) -> IPolicy:
    limits = [
        Limit(unit, most, limit.window, limit.per == "account")
        for limit in policy.rate.limits
        for unit in Unit
        if (most := getattr(limit, unit.value)) is not None
    ]
    return RateRule(limits, facilities.reactor.seconds)


def _recipients(policy: Policy, realm: Realm, _: Facilities) -> IPolicy:
    table = policy.recipients
    by_account = {name: AddressPatterns.of(patterns) for name, patterns in table.by_account.items()}
    return RecipientsRule(AddressPatterns.of(table.patterns), by_account)


def _profile(policy: Policy, realm: Realm, facilities: Facilities) -> IPolicy:
    table, attachments = policy.profile, policy.profile.attachments
    profile = Profile(
        name=policy.label,
        required_headers=table.required_headers,
        forbidden_headers=table.forbidden_headers,
        single_headers=table.single_headers,
        header_patterns=table.header_patterns,
        decoded_header_patterns=table.decoded_header_patterns,
        bounds=Bounds(
            header_size=table.maximum_header_size,
            header_fields=table.maximum_fields,
            depth=table.maximum_depth,
            parts=table.maximum_parts,
            outside=table.maximum_outside,
        ),
        content_types=Types(table.content_types),
        multipart_types=Types(table.multipart_types),
        text_types=Types(table.text_types),
        charsets=table.charsets or None,
        encodings=table.encodings,
        attachments=Attachments(
            minimum=attachments.minimum,
            maximum=attachments.maximum,
            types=Types(attachments.types),
            names=None if attachments.names is None else Pattern(attachments.names),
            maximum_size=attachments.maximum_size,
            maximum_total=attachments.maximum_total,
        ),
    )
    return ProfileRule(profile, facilities.threads)


def _external(policy: Policy, _: Realm, facilities: Facilities) -> IPolicy:
    table = policy.external
    reactor, socket = facilities.reactor, table.socket or ""
    endpoint: IStreamClientEndpoint
    if socket.startswith("unix:"):
        endpoint = UNIXClientEndpoint(reactor, socket.removeprefix("unix:"), timeout=table.connect_timeout)
    else:
        endpoint = HostnameEndpoint(reactor, *host_and_port(socket), timeout=table.connect_timeout)
    times = Times(table.connect_timeout, table.timeout, table.maximum_time)
    milter = Milter(socket, endpoint, reactor, times)
    return MilterRule(milter, table.on_failure == "pass", table.maximum_size)


def _plugin(policy: Policy, realm: Realm, facilities: Facilities) -> IPolicy:
    name = policy.plugin.name or ""
    return open_plugin("policies", name, IPolicy, realm.name, policy.plugin.settings, facilities)


RULES: Mapping[str, Callable[[Policy, Realm, Facilities], IPolicy]] = {
    "sender": _sender,
    "header-sender": _header_sender,
    "recipients": _recipients,
    "profile": _profile,
    "rate": _rate,
    "external": _external,
    "plugin": _plugin,
}
