"""To be described."""

from digipoort_msa.delivery.client import Timeouts
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.maildir import Maildir
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.session import Credentials
from digipoort_msa.delivery.tls import ClientTLS

__all__ = ["ClientTLS", "Credentials", "Hop", "Maildir", "Relay", "Timeouts"]
