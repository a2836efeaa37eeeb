"""The ways out (D1): the relay towards the core, and a Maildir that stands in for it.

Downwards: ``relay`` picks a hop, of those that ``routes`` finds, by the ``choice`` among them; ``hops`` knows
each one's ``health`` and its ``pool`` of connections, for which deliveries stand in ``line``; ``session``
makes one ready for mail, ``transaction`` sends a message, ``client`` carries commands and replies.  ``lmtp``
is the same by another protocol.  ``through`` has no spool in front of it: a ``passage`` is one message on its
way to a hop while its client speaks.
"""

from digipoort_msa.delivery.client import Timeouts
from digipoort_msa.delivery.hop import Hop, NextHop
from digipoort_msa.delivery.lmtp import LMTP
from digipoort_msa.delivery.maildir import Maildir
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.session import Credentials
from digipoort_msa.delivery.through import Through, prompt
from digipoort_msa.delivery.tls import ClientTLS

__all__ = [
    "LMTP",
    "ClientTLS",
    "Credentials",
    "Hop",
    "Maildir",
    "NextHop",
    "Relay",
    "Through",
    "Timeouts",
    "prompt",
]
