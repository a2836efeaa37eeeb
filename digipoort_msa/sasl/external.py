"""EXTERNAL (RFC 4422 appendix A): the proof is the client certificate that TLS has verified.

The response is the authzid: whom to act as, or nothing, for whomever the certificate stands for.  Acting for
another than that is not allowed; the accounts decide, since they know whom it stands for.
"""

from digipoort_msa.sasl.credentials import CertificateCredential
from digipoort_msa.sasl.identity import prepared
from digipoort_msa.sasl.mechanism import Challenge, Channel, Context, Denied, Exchange, Mechanism, Verify


def _exchange(context: Context, initial_response: bytes | None) -> Exchange:
    message = (yield Challenge(b"")) if initial_response is None else initial_response
    authzid = prepared(message, "authzid") if message else ""
    certificate = context.channel.certificate
    if certificate is None:
        raise Denied("the client showed no certificate")
    yield Verify(CertificateCredential(authzid, certificate))


def _has_certificate(channel: Channel) -> bool:
    return channel.certificate is not None


EXTERNAL = Mechanism("EXTERNAL", in_clear=False, start=_exchange, can_succeed=_has_certificate)
