"""Commands that submit a message to the sandbox, to be copied into a shell.

Each is run by the test-suite as it is printed.
"""

import base64
import json
import shlex
from pathlib import Path

from attrs import frozen


@frozen
class Sandbox:
    """What a client has to know.  ``sandbox.json`` holds the same."""

    host: str
    starttls_port: int
    implicit_port: int
    account: str
    password: str
    realm: str
    ca: Path
    maildir: Path

    def document(self, pid: int) -> dict[str, object]:
        """The content of ``sandbox.json``."""
        return {
            "host": self.host,
            "ports": {"starttls": self.starttls_port, "implicit": self.implicit_port},
            "account": self.account,
            "password": self.password,
            "realm": self.realm,
            "ca": str(self.ca),
            "maildir": str(self.maildir),
            "pid": pid,
        }


SENDER = "sender@example.nl"
RECIPIENT = "recipient@example.nl"


def recipes(sandbox: Sandbox) -> dict[str, str]:
    """A command for each client, by the client's name."""
    ca, account, password = (
        shlex.quote(str(text)) for text in (sandbox.ca, sandbox.account, sandbox.password)
    )
    login = shlex.quote(f"{sandbox.account}:{sandbox.password}")
    starttls, implicit = sandbox.starttls_port, sandbox.implicit_port
    plain = base64.b64encode(f"\0{sandbox.account}\0{sandbox.password}".encode()).decode()
    message = rf"printf 'From: {SENDER}\r\nTo: {RECIPIENT}\r\nSubject: a test\r\n\r\nHello.\r\n'"
    return {
        "swaks": f"swaks --server localhost:{starttls} -tls --tls-verify --tls-ca-path {ca} "
        f"--auth PLAIN --auth-user {account} --auth-password {password} "
        f"--from {SENDER} --to {RECIPIENT}",
        "curl (STARTTLS, DIGEST-MD5)": f"{message} | curl --ssl-reqd --cacert {ca} --user {login} "
        f"--login-options AUTH=DIGEST-MD5 --mail-from {SENDER} --mail-rcpt {RECIPIENT} "
        f"--upload-file - smtp://localhost:{starttls}",
        "curl (implicit TLS)": f"{message} | curl --cacert {ca} --user {login} "
        f"--mail-from {SENDER} --mail-rcpt {RECIPIENT} --upload-file - smtps://localhost:{implicit}",
        "gsasl (logs in, sends nothing)": f"gsasl --smtp --connect=localhost:{starttls} --x509-ca-file={ca} "
        f"--mechanism=DIGEST-MD5 --quality-of-protection=qop-auth --realm={shlex.quote(sandbox.realm)} "
        f"--authentication-id={account} --password={password} </dev/null",
        "gsasl with SCRAM (logs in, sends nothing)": f"gsasl --smtp --connect=localhost:{starttls} "
        f"--x509-ca-file={ca} --mechanism=SCRAM-SHA-256-PLUS "
        f"--authentication-id={account} --password={password} </dev/null",
        "Python's smtplib": f"python3 -c {shlex.quote(_smtplib(sandbox))}",
        f"openssl s_client (then type: AUTH PLAIN {plain})": "openssl s_client -starttls smtp -crlf -quiet "
        f"-verify_return_error -verify_hostname localhost -CAfile {ca} -connect localhost:{starttls}",
    }


def _smtplib(sandbox: Sandbox) -> str:
    ca, account, password = map(json.dumps, (str(sandbox.ca), sandbox.account, sandbox.password))
    return f"""
import smtplib, ssl
context = ssl.create_default_context(cafile={ca})
with smtplib.SMTP("localhost", {sandbox.starttls_port}) as client:
    client.starttls(context=context)
    client.login({account}, {password})
    client.sendmail("{SENDER}", ["{RECIPIENT}"], "Subject: a test\\r\\n\\r\\nHello.\\r\\n")
"""
