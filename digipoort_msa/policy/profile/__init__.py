"""What a message flow allows (M10, seed 1.3), declared by the operator; looked at while a message comes by.

:mod:`.rules` is what may be declared, :mod:`.judgement` the policy.  The rest reads MIME: :mod:`.scanner`
first.
"""

from digipoort_msa.policy.profile.judgement import ProfileRule
from digipoort_msa.policy.profile.rules import Attachments, Pattern, Profile, Types
from digipoort_msa.policy.profile.scanner import Bounds

__all__ = ["Attachments", "Bounds", "Pattern", "Profile", "ProfileRule", "Types"]
