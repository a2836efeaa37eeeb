"""The whole MSA as one service: what runs, and the order in which it starts and stops."""

import gc
import os
import signal
import sys
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure

from digipoort_msa import config, log
from digipoort_msa.config.settings import Settings
from digipoort_msa.server.tls import TLSFilesError
from digipoort_msa.service.certificates import ListenerCertificates
from digipoort_msa.service.deliveries import Deliveries
from digipoort_msa.service.listeners import digest_hosts, make_listeners
from digipoort_msa.service.queues import make_queues, make_spool
from digipoort_msa.service.realms import Accounts
from digipoort_msa.spool.schema import SpoolError

#: Seconds that a thread may keep the interpreter while another wants it.  The spool's commits and the
#: reactor hand over to each other thousands of times a second; Python's 5 ms would be most of a commit.
_SWITCH_INTERVAL = 0.0005


class SubmissionService(MultiService):
    """Everything that runs, and the order in which it starts and stops: what others rely on starts first
    and stops last."""

    def __init__(self, settings: Settings, reactor: Any) -> None:
        super().__init__()
        self._settings = settings
        self._reactor = reactor
        self.certificates = ListenerCertificates(settings, reactor)
        self.certificates.setServiceParent(self)
        self.spool = make_spool(settings, reactor)
        self.deliveries = Deliveries(settings, reactor, lambda realm: self.queues.flush(realm))
        self.queues = make_queues(settings, reactor, self.spool, self.deliveries.of)
        self._accounts = Accounts(
            settings, reactor, lambda realm: self.deliveries.intake_of(realm, self.spool)
        )
        self.listeners = make_listeners(settings, reactor, self._accounts.realms, self.certificates)
        for listener in self.listeners:
            listener.setServiceParent(self)
        self.certificates.taken_up = self._close_revoked

    # -- life ------------------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        os.umask(int(self._settings.server.umask, 8))
        super().privilegedStartService()

    def startService(self) -> None:
        sys.setswitchinterval(_SWITCH_INTERVAL)
        for problem in config.warnings(self._settings):
            log.emit(log.CONFIG_WARNING, problem=str(problem))
        recovery = self.spool.start()
        log.emit(
            log.SPOOL_OPEN,
            directory=str(self.spool.directory),
            messages=recovery.messages,
            half_received=recovery.half_received,
        )
        for queue_id in recovery.missing:
            log.emit(log.BODY_MISSING, queue_id=queue_id)
        self._accounts.start()
        self.deliveries.start()
        self.queues.start()
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.reload))
        super().startService()

    def stopService(self) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        await MultiService.stopService(self)  # the listeners: no new connections, and a word to the open ones
        for stop in (self.queues.stop, self.deliveries.stop, self.spool.stop, self._accounts.close):
            try:
                await stop()
            except Exception:  # noqa: BLE001 -- the next has to stop all the same
                log.failure(log.DEFECT, Failure(), where="stopping")

    def _close_revoked(self) -> None:
        """Who came in with a certificate that is revoked by now has to go."""
        for connection in [each for listener in self.listeners for each in listener.factory.connections]:
            if connection.chain and self.certificates.has_revoked(connection.chain):
                connection.closing_reason = "the client's certificate, or an authority above it, is revoked"
                connection.abort()

    def reload(self) -> None:
        """Take up new certificates (SIGHUP); each that is broken leaves its old one in force."""
        for problem in self.deliveries.reload():
            log.emit(log.CERTIFICATE_KEPT, reason=problem)
        try:
            self.certificates.reload()
            hosts = digest_hosts(self._settings)
        except (TLSFilesError, ValueError, OSError) as error:
            log.emit(log.CERTIFICATE_KEPT, reason=str(error))
        else:
            for listener in self.listeners:
                listener.factory.digest_hosts = hosts
            log.emit(log.CERTIFICATE_LOADED, file=str(self._settings.tls.certificate))


class TwistdService(SubmissionService):
    """The same under twistd: what keeps it from starting is one line, not a traceback."""

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except CannotListenError as error:
            raise SystemExit(str(error)) from None

    def startService(self) -> None:
        try:
            super().startService()
        except (SpoolError, OSError) as error:
            raise SystemExit(str(error)) from None
        # What is there now stays.  To look through all of it for garbage, again and again, would hold up the
        # reactor for a tenth of a second each time, in the middle of everybody's sessions.
        gc.collect()
        gc.freeze()
