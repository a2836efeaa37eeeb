"""What the listeners do TLS with: one context for each way of asking clients for certificates, all made of
the same files and taken up together.

The list of revoked certificates changes more often than anybody sends a signal, so the file is looked at once
a minute.  One that is broken leaves what is there in force: the log says so once, and it is tried again.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import evolve
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from digipoort_msa import log
from digipoort_msa.config.client_authorities import revocation_lists
from digipoort_msa.config.settings import Listener, Settings
from digipoort_msa.server.client_certificate import Chain, distinguished_name
from digipoort_msa.server.tls import ServerTLS, TLSFiles, TLSFilesError

#: Seconds between two looks at the file of what is revoked.
INTERVAL = 60.0

Crls = tuple[x509.CertificateRevocationList, ...]
_Version = tuple[int, int, int]


class ListenerCertificates(Service):
    """The contexts of all listeners."""

    def __init__(self, settings: Settings, reactor: Any) -> None:
        """:raise TLSFilesError: a file cannot be used."""
        self.taken_up: Callable[[], object] = lambda: None  # called after each reload
        self._settings = settings
        modes = {settings.client_certificates_of(listener) for listener in settings.listener}
        self._crl = settings.tls.client_crl if modes - {"off"} else None
        self._version = _version(self._crl)
        self._crls = self._read_crls()
        self._revoked: set[tuple[str, int]] | None = None  # issuer and serial; made where somebody asks
        self._broken: tuple[object, str] | None = None  # what the log has been told of a new file
        self._told: set[bytes] = set()  # of these lists it has been told that they are out of date
        self._watch = LoopingCall(self._look)
        self._watch.clock = reactor
        self._tls: Mapping[str, ServerTLS] = {
            mode: ServerTLS(self._files(mode, self._crls)) for mode in modes
        }

    def has_revoked(self, chain: Chain) -> bool:
        """Any of it, by the lists in force?"""
        if self._revoked is None:
            named = [(distinguished_name(crl.issuer), crl) for crl in self._crls]
            self._revoked = {(issuer, one.serial_number) for issuer, crl in named for one in crl}
        return not self._revoked.isdisjoint(chain.members)

    def of(self, listener: Listener) -> ServerTLS:
        """What a listener does TLS with."""
        return self._tls[self._settings.client_certificates_of(listener)]

    def reload(self) -> None:
        """Read every file again.

        :raise TLSFilesError: one cannot be used; nothing has changed.
        """
        self._take_up(own=True)

    def _take_up(self, *, own: bool) -> None:
        """:param own: the server's certificate and key too."""
        version = _version(self._crl)
        crls = self._read_crls()
        prepared = [tls.prepare(self._files(mode, crls), own=own) for mode, tls in self._tls.items()]
        for use in prepared:
            use()
        self._crls, self._version, self._broken, self._revoked = crls, version, None, None
        self.taken_up()

    # -- life ------------------------------------------------------------------------------------------

    def startService(self) -> None:
        super().startService()
        if self._crl is not None:
            self._watch.start(INTERVAL)

    def stopService(self) -> "Deferred[None] | None":
        super().stopService()
        if self._watch.running:
            self._watch.stop()
        return None

    def _look(self) -> None:
        """Whatever goes wrong, the next look is in a minute: a list that is missed lets somebody in."""
        try:
            self._take_up_what_changed()
            self._tell_of_the_end()
        except Exception:  # noqa: BLE001
            log.failure(log.DEFECT, Failure(), where="the lists of revoked certificates")

    def _take_up_what_changed(self) -> None:
        version = _version(self._crl)
        if version != self._version:
            try:
                # A renewal of the server's certificate that is half done, or a key that cannot be read any
                # more, must not let in whom the new list revokes.
                self._take_up(own=False)
            except TLSFilesError as error:
                broken = (version, str(error))
                if broken != self._broken:
                    log.emit(log.REVOCATIONS_KEPT, reason=str(error))
                self._broken = broken
            else:
                log.emit(
                    log.REVOCATIONS_LOADED, file=str(self._crl), revoked=sum(len(crl) for crl in self._crls)
                )

    def _tell_of_the_end(self) -> None:
        """Once for each list that is in force and out of date."""
        now = datetime.now(UTC)
        for crl in self._crls:
            end = crl.next_update_utc
            if end is None or end > now or crl.signature in self._told:
                continue
            self._told.add(crl.signature)
            log.emit(
                log.REVOCATIONS_OLD,
                issuer=crl.issuer.rfc4514_string(),
                file=str(self._crl),
                end=f"{end:%Y-%m-%d %H:%M}",
            )

    # -- files -----------------------------------------------------------------------------------------

    def _files(self, mode: str, crls: Crls) -> TLSFiles:
        tls = self._settings.tls
        files = TLSFiles(tls.certificate, tls.private_key, tls.minimum_version)
        if mode == "off":
            return files
        return evolve(files, client_certificates=mode, client_ca=tls.client_ca, client_crls=crls)

    def _read_crls(self) -> Crls:
        if self._crl is None:
            return ()
        try:
            return revocation_lists(self._crl.read_bytes())
        except OSError as error:
            reason = error.strerror or str(error)
        except (ValueError, UnsupportedAlgorithm) as error:
            reason = str(error)
        raise TLSFilesError(f"the lists of revoked certificates cannot be read from {self._crl}: {reason}")


def _version(path: Path | None) -> _Version | None:
    """Another one for another file."""
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)
