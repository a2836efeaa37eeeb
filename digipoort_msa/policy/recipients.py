"""To whom an account may send (M7): recipients held against patterns, the realm's and the account's."""

from collections.abc import Mapping

from attrs import define

from digipoort_msa.identity import Identity
from digipoort_msa.policy.addresses import AddressPatterns
from digipoort_msa.policy.rule import Judgement, Rule
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import Envelope, Path, RcptParameters, Trace
from digipoort_msa.smtp.reply import Refused


@define
class RecipientsRule(Rule):
    """Only recipients that a pattern lists, for everyone or for the account."""

    _allowed: AddressPatterns
    _allowed_to: Mapping[str, AddressPatterns]  # by account, besides

    def begin(self, identity: Identity, trace: Trace) -> Judgement:
        return _Judgement(self, identity)

    def allows(self, identity: Identity, path: Path) -> bool:
        if self._allowed.match(path):
            return True
        return identity.name in self._allowed_to and self._allowed_to[identity.name].match(path)


@define
class _Judgement(Judgement):
    _rule: RecipientsRule
    _identity: Identity

    def recipient(self, envelope: Envelope, path: Path, parameters: RcptParameters) -> None:
        if not self._rule.allows(self._identity, path):
            raise Refused(
                reply.RECIPIENT_NOT_ALLOWED,
                f"<{path}> is no recipient for {self._identity.name}",
            )
