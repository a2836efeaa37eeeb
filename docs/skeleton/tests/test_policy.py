"""The policy, by the contract of all policies."""

from example_realm.policy import OneDomain, make_policy
from twisted.trial.unittest import TestCase

from digipoort_msa.identity import Identity
from digipoort_msa.testing import MessageDescription, PolicyContract


class OneDomainTests(PolicyContract, TestCase):
    """The suite sends each message in every way, beside the others, and cut off anywhere."""

    def make_policy(self) -> OneDomain:
        return make_policy("one.nl", {"exempt": ["newsletter"]}, None)  # type: ignore[arg-type]

    def messages(self) -> list[MessageDescription]:
        two_domains = ["jan@two.nl", "kees@three.nl"]
        newsletter = Identity(name="newsletter", realm="one.nl")
        return [
            MessageDescription(),
            MessageDescription(recipients=["jan@two.nl", "kees@TWO.nl"]),
            MessageDescription(recipients=two_domains, refused="RCPT"),
            MessageDescription(recipients=two_domains, identity=newsletter),
        ]

    def test_settings(self) -> None:
        for settings in ({"exempt": "newsletter"}, {"except": []}):
            with self.assertRaisesRegex(ValueError, "the only setting is exempt"):
                make_policy("one.nl", settings, None)  # type: ignore[arg-type]
