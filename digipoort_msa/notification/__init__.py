"""Delivery status notifications: what senders are told of their messages (RFC 3464, RFC 6522, RFC 6533).

``notifications`` reads what is needed of the message; ``report`` puts the three parts together: the texts of
``templates``, the fields of ``status``, and as much of the ``original`` as may come back.  ``fields`` is
where foreign text becomes harmless.
"""

from digipoort_msa.notification.notifications import MOST_FATES, Notifications
from digipoort_msa.notification.templates import Texts

__all__ = ["MOST_FATES", "Notifications", "Texts"]
