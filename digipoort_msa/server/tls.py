"""TLS towards clients: one context for every connection, swapped for a new one when files change.

TLS 1.2 and 1.3 only, forward-secret AEAD suites, no compression, no renegotiation (NCSC-NL, RFC 8446).
A pyOpenSSL context that has been used must not be changed, so :meth:`ServerTLS.reload` makes a new one;
where that fails, the old one stays in force.

Where clients are asked for certificates, each is verified in each handshake: against the authorities, for the
purpose (extended key usage), and against the lists of what is revoked, where there are such lists; then each
authority of a chain has to have one that is not out of date.  So no session is resumed there: a resumed one
brings its certificate along, unverified, and with it whatever was revoked meanwhile.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa.server.verification import fault_of, note_fault

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
_TLS12_SUITES = (
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
)
#: What OpenSSL says, and what it means to the person who set the client up.
_MEANINGS = {
    "wrong version number": "the client does not begin with TLS; does it expect STARTTLS?",
    "http request": "the client sends HTTP",
    "unsupported protocol": "the client's TLS version is older than the minimum",
    "no shared cipher": "the client has no forward-secret AEAD suite",
    "tlsv1 alert unknown ca": "the client does not trust our certificate's authority",
    "sslv3 alert bad certificate": "the client turns our certificate down",
    "sslv3 alert certificate unknown": "the client does not trust our certificate",
    "peer did not return a certificate": "the client shows no certificate, and one is required",
}
_CLIENT_CERTIFICATES = {
    "optional": SSL.VERIFY_PEER,
    "required": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}


class TLSFilesError(Exception):
    """The certificate, the key or the client CA cannot be used; says which file and why."""


@frozen
class TLSFiles:
    """What a context is made from."""

    certificate: Path  # PEM: the server's own, then the chain
    private_key: Path  # PEM
    minimum_version: str = "1.2"
    client_certificates: str = "off"  # "optional" or "required": two-way TLS (L3)
    client_ca: Path | None = None
    #: What the authorities have revoked; empty: nobody looks.
    client_crls: tuple[x509.CertificateRevocationList, ...] = ()


@implementer(IOpenSSLServerConnectionCreator)
@define(eq=False)
class ServerTLS:
    """Makes the server's end of each TLS connection."""

    files: TLSFiles
    _own: "_Own" = field(init=False)  # what is shown, though the files may hold another by now
    _context: SSL.Context = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._own = _read_own(self.files)
        self._context = _make_context(self.files, self._own)

    def reload(self) -> None:
        """Read the files again; connections from now on use what they hold.

        :raise TLSFilesError: they cannot be used; nothing has changed.
        """
        self.prepare(self.files)()

    def prepare(self, files: TLSFiles, *, own: bool = True) -> Callable[[], None]:
        """Read ``files``, which are to take the place of those in force.

        :param own: the server's certificate and key too; else those in force stay, whatever the files hold.
        :return: puts them in force; until it is called, nothing has changed.
        :raise TLSFilesError: they cannot be used.
        """
        shown = _read_own(files) if own else self._own
        context = _make_context(files, shown)

        def use() -> None:
            self.files, self._own, self._context = files, shown, context

        return use

    def is_in_force(self, connection: SSL.Connection) -> bool:
        """Were the files the same when ``connection`` began?  It was verified by those of that time."""
        return connection.get_context() is self._context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._context, None)


@frozen
class _Own:
    """What the server shows of itself, as it was read."""

    certificates: tuple[x509.Certificate, ...]  # its own, then the chain
    private_key: Any


def _read_own(files: TLSFiles) -> _Own:
    try:
        certificates = tuple(x509.load_pem_x509_certificates(files.certificate.read_bytes()))
    except ValueError:
        reason = "it holds no certificates in PEM"
    except OSError as error:
        reason = _reason(error)
    else:
        return _Own(certificates, _private_key(files.private_key))
    raise TLSFilesError(f"the certificate cannot be read from {files.certificate}: {reason}")


def _make_context(files: TLSFiles, own: _Own) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_VERSIONS[files.minimum_version])
    context.set_cipher_list(_TLS12_SUITES)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_RENEGOTIATION)
    # An idle connection gives its record buffers back: 34 KiB less for each of thousands.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    first, *others = own.certificates
    try:
        context.use_certificate(first)
        for other in others:
            context.add_extra_chain_cert(other)
    except SSL.Error as error:  # such as a key that is too small
        reason = _describe(error)
        raise TLSFilesError(f"the certificate in {files.certificate} cannot be used: {reason}") from error
    try:
        context.use_privatekey(own.private_key)
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:  # TypeError: a kind of key that no certificate for TLS has
        raise TLSFilesError(
            f"{files.private_key} is not the key of the certificate in {files.certificate}"
        ) from error
    context.set_session_id(b"digipoort-msa")
    if files.client_certificates == "off":
        context.set_verify(SSL.VERIFY_NONE, None)
        # Resumption spares the second handshake of a client that calls again.
        context.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
    else:
        context.set_verify(_CLIENT_CERTIFICATES[files.client_certificates], note_fault)
        context.set_options(SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        _load_authorities(context, files)
    return context


def _load_authorities(context: SSL.Context, files: TLSFiles) -> None:
    """Whose client certificates count, and which of them no more."""
    if files.client_ca is None:
        raise TLSFilesError("client certificates are asked for, but no client-ca is named")
    _load(context.load_verify_locations, files.client_ca, "the client CA")
    # Clients are told whose certificates count, and can choose by it.
    _load(lambda path: context.load_client_ca(os.fsencode(path)), files.client_ca, "the client CA")
    if files.client_crls:
        store = context.get_cert_store()
        if store is None:
            raise TLSFilesError("OpenSSL has no place for lists of revoked certificates")
        try:
            for crl in files.client_crls:
                store.add_crl(crl)
        except (SSL.Error, crypto.Error) as error:
            raise TLSFilesError(f"a list of revoked certificates cannot be used: {error}") from error
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)


def _private_key(path: Path) -> Any:
    """Not read by OpenSSL itself, which asks at the terminal for a passphrase, and blocks."""
    try:
        return load_pem_private_key(path.read_bytes(), None)
    except TypeError:
        reason = "it is encrypted; write it without a passphrase"
    except (ValueError, UnsupportedAlgorithm):
        reason = "it holds no private key in PEM"
    except OSError as error:
        reason = _reason(error)
    raise TLSFilesError(f"the private key cannot be read from {path}: {reason}")


def _load(load: object, path: Path, what: str) -> None:
    try:
        with path.open("rb"):
            pass  # OpenSSL does not say why a file could not be read; this does
        load(str(path))  # type: ignore[operator]
    except (OSError, SSL.Error) as error:
        raise TLSFilesError(f"{what} cannot be read from {path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return _describe(error)


def describe_failure(failure: Failure, connection: SSL.Connection | None = None) -> str:
    """Why a handshake failed, on one line.

    :param connection: what it was to become.
    """
    fault = None if connection is None else fault_of(connection)
    return _describe(failure.value) + (f" ({fault})" if fault else "")


def _describe(error: BaseException | None) -> str:
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        reasons = [str(entry[-1]) for entry in error.args[0] if entry and entry[-1]]
        if reasons:
            return "; ".join(_with_meaning(reason) for reason in dict.fromkeys(reasons))
    return str(error) or type(error).__name__


def describe_connection(connection: SSL.Connection) -> str:
    """Version and suite, such as ``TLSv1.3 TLS_AES_256_GCM_SHA384``."""
    return f"{connection.get_protocol_version_name()} {connection.get_cipher_name()}"


def _with_meaning(reason: str) -> str:
    meaning = _MEANINGS.get(reason)
    return f"{reason} ({meaning})" if meaning else reason
