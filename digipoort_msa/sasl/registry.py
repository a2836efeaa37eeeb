"""The mechanisms, in the order in which EHLO shows them.  To add one: a new file, and its name here."""

from collections.abc import Mapping
from types import MappingProxyType

from digipoort_msa.sasl.digest_md5 import DIGEST_MD5
from digipoort_msa.sasl.login import LOGIN
from digipoort_msa.sasl.mechanism import Mechanism
from digipoort_msa.sasl.plain import PLAIN

MECHANISMS: Mapping[str, Mechanism] = MappingProxyType(
    {mechanism.name: mechanism for mechanism in (DIGEST_MD5, PLAIN, LOGIN)}
)
