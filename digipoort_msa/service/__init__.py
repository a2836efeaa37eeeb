"""The one place that picks classes: settings become the services that twistd runs.

``twistd digipoort-msa --config FILE`` finds :class:`Options` and :func:`makeService` here.  To add a store,
a policy or a delivery back end, implement its interface and name it in the module here that builds its kind:
``realms`` or ``deliveries``.
"""

import os
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.python import usage

from digipoort_msa import config
from digipoort_msa.config.settings import Settings

if TYPE_CHECKING:  # the operator's commands take modules of this room, and need not wait for the whole MSA
    from digipoort_msa.service.msa import SubmissionService


class Options(usage.Options):
    """``twistd digipoort-msa``'s own options."""

    optParameters = [["config", "c", "/etc/digipoort-msa/msa.toml", "The configuration file."]]  # noqa: RUF012


def makeService(options: Options) -> IService:
    """What twistd calls.  A configuration that cannot be used ends the program with EX_CONFIG."""
    from twisted.internet import reactor

    from digipoort_msa.server.tls import TLSFilesError
    from digipoort_msa.service.msa import TwistdService

    # Twisted's own choice is the wall clock: with that turned forward every timeout would be over, and with
    # it turned back nothing would happen until it is where it was.  Nothing has been scheduled yet.
    reactor.seconds = monotonic  # type: ignore[method-assign]
    try:
        return TwistdService(config.load(Path(options["config"])), reactor)
    except (config.ConfigError, TLSFilesError, ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(os.EX_CONFIG) from None


def make_service(settings: Settings, reactor: Any) -> "SubmissionService":
    """The whole MSA, not yet started.

    :raise TLSFilesError, ValueError, OSError: a file that the settings name cannot be used.
    """
    from digipoort_msa.service.msa import SubmissionService

    return SubmissionService(settings, reactor)
