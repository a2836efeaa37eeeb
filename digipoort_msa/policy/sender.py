"""Who may send (M7, RFC 6409 6.1): the envelope's sender, bound to the account or to the realm's patterns."""

from attrs import define

from digipoort_msa.identity import Identity
from digipoort_msa.policy.addresses import AddressPatterns, OwnAddresses
from digipoort_msa.policy.rule import Judgement, Rule
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import MailParameters, Path, Trace
from digipoort_msa.smtp.reply import Refused


@define
class SenderRule(Rule):
    """An account sends from the addresses that are its own, and from those that a pattern lists for all."""

    _own: OwnAddresses | None  # None: its own addresses are no reason
    _allowed: AddressPatterns
    _null_allowed: bool  # the null reverse-path; nothing that a business submits is without a sender

    def begin(self, identity: Identity, trace: Trace) -> Judgement:
        return _Judgement(self, identity)

    def allows(self, identity: Identity, path: Path) -> bool:
        if path.is_null:
            return self._null_allowed
        if self._allowed.match(path):
            return True
        return self._own is not None and self._own.include(identity, path)


@define
class _Judgement(Judgement):
    _rule: SenderRule
    _identity: Identity

    def sender(self, path: Path, parameters: MailParameters) -> None:
        if not self._rule.allows(self._identity, path):
            raise Refused(reply.SENDER_NOT_YOURS, f"<{path}> is not an address of {self._identity.name}")
