"""A configuration that is right, for tests to change; its certificate files are real."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from digipoort_msa.admin.certificates import CertificateFiles, certificate_files


def document(**tables: Any) -> dict[str, Any]:
    """The smallest document that is right but for its files; ``tables`` replace or add."""
    return {
        "server": {"hostname": "localhost"},
        "listener": [{"endpoint": "tcp:587", "tls": "starttls"}],
        "realm": [{"name": "overheidstransactiepoort.nl"}],
        "notification": {"recipients": ["*@example.nl"]},
        "delivery": {"relay": {"next-hops": ["core.example.nl:25"]}},
        **tables,
    }


def with_files(folder: Path, **tables: Any) -> tuple[dict[str, Any], CertificateFiles]:
    """The same with a certificate and a key in ``folder``."""
    files = certificate_files(folder / "tls", datetime.now(UTC))
    tls = {"certificate": str(files.certificate), "private-key": str(files.private_key)}
    server = {"hostname": "localhost", "state-directory": str(folder / "state")}
    return document(**{"server": server, "tls": tls, **tables}), files
