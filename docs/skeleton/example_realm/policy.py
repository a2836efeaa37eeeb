"""A policy: the recipients of one message all have the same domain."""

from collections.abc import Mapping
from typing import Any

from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import Facilities
from digipoort_msa.policy.rule import Judgement, Rule
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import Envelope, Path, RcptParameters, Trace
from digipoort_msa.smtp.reply import Refused


def make_policy(realm: str, settings: Mapping[str, Any], facilities: Facilities) -> "OneDomain":
    """What the entry point names.

    :param settings: ``[realm.policy.plugin.settings]``, as TOML has it.
    :raise ValueError, OSError: it cannot be used; the operator reads the text.
    """
    exempt = settings.get("exempt", [])
    if set(settings) - {"exempt"} or not isinstance(exempt, list):
        raise ValueError('the only setting is exempt, a list of account names such as ["newsletter"]')
    return OneDomain(frozenset(exempt))


class OneDomain(Rule):
    """One object for all sessions of the realm, so it keeps nothing of one of them."""

    def __init__(self, exempt: frozenset[str]) -> None:
        self._exempt = exempt

    def begin(self, identity: Identity, trace: Trace) -> Judgement:
        """A message begins: whoever judges it is made here, and knows of no other."""
        return Judgement() if identity.name in self._exempt else _SameDomain()


class _SameDomain(Judgement):
    """``Judgement`` agrees to everything; a policy says no at the moments that it is about."""

    def recipient(self, envelope: Envelope, path: Path, parameters: RcptParameters) -> None:
        domains = {accepted.domain.lower() for accepted in envelope.recipients}
        if domains and path.domain.lower() not in domains:
            # The reply is for the client, the cause for the log.
            raise Refused(reply.RECIPIENT_NOT_ALLOWED, f"<{path}> has another domain than {domains.pop()}")
