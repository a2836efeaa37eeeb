"""The base of our policies: a rule that has nothing to say at a moment says nothing."""

from digipoort_msa.smtp.envelope import Envelope, MailParameters, Path, RcptParameters


class Rule:
    """Passes everything; a rule overrides the moment it is about."""

    def sender(self, account: str, path: Path, parameters: MailParameters) -> None:
        return None

    def recipient(self, account: str, envelope: Envelope, path: Path, parameters: RcptParameters) -> None:
        return None

    def content(self, account: str, envelope: Envelope, head: bytes) -> None:
        return None
