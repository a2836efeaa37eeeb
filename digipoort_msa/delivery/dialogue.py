"""The two halves of a dialogue with a hop, which make a relay one of SMTP or of LMTP."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from attrs import frozen

from digipoort_msa.delivery.session import Session, open_session
from digipoort_msa.delivery.transaction import transact
from digipoort_msa.smtp.envelope import Outcome, Path


@frozen
class Dialogue:
    """How to talk to a hop."""

    #: (connection, hop, hostname, tls, credentials): as :func:`~digipoort_msa.delivery.session.open_session`.
    open_session: Callable[..., Coroutine[Any, Any, Session]]
    #: (session, envelope, content): as :func:`~digipoort_msa.delivery.transaction.transact`.
    transact: Callable[..., Coroutine[Any, Any, Mapping[Path, Outcome]]]


SMTP = Dialogue(open_session, transact)
