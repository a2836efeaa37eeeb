"""Who a message says it is from (M7, RFC 6409 6.1): the header's From and Sender, bound as the envelope is.

From stands there once, and Sender at most once (RFC 5322 3.6); each of their addresses is the account's own,
or one that a pattern lists.  A header that can be read in two ways is refused: it would show a receiver
something else than it shows here.  Display names are free text, and are not judged.
"""

from attrs import define, field

from digipoort_msa.identity import Identity
from digipoort_msa.policy.addresses import AddressPatterns, OwnAddresses
from digipoort_msa.policy.header_section import HeaderFault, HeaderSection
from digipoort_msa.policy.mailboxes import Unreadable, mailboxes
from digipoort_msa.policy.rule import Judgement, Rule
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import Trace
from digipoort_msa.smtp.reply import Refused

_FIELDS = ("From", "Sender")


@define
class HeaderSenderRule(Rule):
    """See the module."""

    _own: OwnAddresses | None  # None: its own addresses are no reason
    _allowed: AddressPatterns

    def begin(self, identity: Identity, trace: Trace) -> Judgement:
        return _Judgement(self, identity)

    def judge(self, identity: Identity, name: str, bodies: list[str]) -> None:
        """:raise Refused: a field of that name says something that it may not."""
        if len(bodies) > 1:
            raise Refused(reply.header_sender_unclear(name), f"{len(bodies)} {name} fields")
        for body in bodies:
            try:
                paths = mailboxes(body)
            except Unreadable as error:
                raise Refused(reply.header_sender_unclear(name), f"{name}: {error}") from None
            for path in paths:
                own = self._own is not None and self._own.include(identity, path)
                if not (own or self._allowed.match(path)):
                    raise Refused(
                        reply.header_sender_not_yours(name),
                        f"{name}: <{path}> is not an address of {identity.name}",
                    )


@define
class _Judgement(Judgement):
    _rule: HeaderSenderRule
    _identity: Identity
    _section: HeaderSection = field(factory=HeaderSection, init=False)
    _fault: HeaderFault | None = field(default=None, init=False)

    def write(self, octets: bytes) -> None:
        if self._section.fields is None and self._fault is None:
            try:
                self._section.push(octets)
            except HeaderFault as fault:
                self._fault = fault

    def complete(self) -> None:
        try:
            if self._fault is not None:
                raise self._fault
            if self._section.fields is None:
                self._section.close()
        except HeaderFault as fault:
            raise Refused(reply.header_sender_unclear("From"), f"the header section: {fault}") from None
        fields = self._section.fields or ()
        for name in _FIELDS:
            bodies = [each for each in fields if each.name == name.lower()]
            if any(not each.is_utf8 for each in bodies):
                raise Refused(reply.header_sender_unclear(name), f"{name} is neither ASCII nor UTF-8")
            if name == "From" and not bodies:
                raise Refused(reply.header_sender_unclear(name), "no From field")
            self._rule.judge(self._identity, name, [each.text for each in bodies])
