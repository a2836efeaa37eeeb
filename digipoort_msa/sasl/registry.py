"""The mechanisms, in the order in which EHLO shows them: the strongest proof first, since clients that do not
weigh them take the first they know.  To add one: a new file, and its name here.
"""

from collections.abc import Mapping
from types import MappingProxyType

from digipoort_msa.sasl.digest_md5 import DIGEST_MD5
from digipoort_msa.sasl.external import EXTERNAL
from digipoort_msa.sasl.login import LOGIN
from digipoort_msa.sasl.mechanism import Mechanism
from digipoort_msa.sasl.plain import PLAIN
from digipoort_msa.sasl.scram import SCRAM_SHA_256, SCRAM_SHA_256_PLUS

MECHANISMS: Mapping[str, Mechanism] = MappingProxyType(
    {
        mechanism.name: mechanism
        for mechanism in (EXTERNAL, SCRAM_SHA_256_PLUS, SCRAM_SHA_256, DIGEST_MD5, PLAIN, LOGIN)
    }
)
