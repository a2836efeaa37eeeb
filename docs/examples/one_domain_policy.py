"""A policy: the recipients of one message all have the same domain."""

from attrs import define
from zope.interface import implementer

from digipoort_msa.interfaces import IPolicy
from digipoort_msa.policy.rule import Rule
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import Envelope, Path, RcptParameters
from digipoort_msa.smtp.reply import Refused


@implementer(IPolicy)
@define
class OneDomain(Rule):
    """``Rule`` says yes to the moments that are not about recipients."""

    def recipient(self, account: str, envelope: Envelope, path: Path, parameters: RcptParameters) -> None:
        domains = {accepted.domain.lower() for accepted in envelope.recipients}
        if domains and path.domain.lower() not in domains:
            raise Refused(reply.RECIPIENT_NOT_ALLOWED, f"<{path}> has another domain than {domains.pop()}")
