"""Names the module that ``twistd digipoort-msa`` loads; nothing else happens here."""

from twisted.application.service import ServiceMaker

digipoortMSA = ServiceMaker(
    "Digipoort MSA",
    "digipoort_msa.service",
    "A Message Submission Agent: ESMTP with TLS and SASL, a durable spool and a relay",
    "digipoort-msa",
)
