"""Real mail clients, each submitting one message in the ways that it can.

A client is a function ``(server, login, content)`` that returns what the client said, and raises
:class:`Refused` where the server, by its account, did not take the message.
"""

import base64
import shlex
import smtplib
import ssl
import subprocess
import tempfile
from collections.abc import Callable
from threading import Timer

from attrs import frozen

from tests.client_authority import ClientFiles
from tests.digest_client import respond
from tests.installed import ACCOUNT, PASSWORD, REALM, Server, run

SENDER, RECIPIENT = "sender@example.nl", "recipient@core.example"
_SECONDS = 60


class Refused(Exception):
    """The client could not submit; its text is the client's own."""


@frozen
class Login:
    mechanism: str
    implicit: bool = False  # TLS at once; else STARTTLS
    account: str = ACCOUNT
    password: str = PASSWORD

    def port(self, server: Server) -> int:
        return server.ports["implicit" if self.implicit else "starttls"]

    @property
    def plain(self) -> str:
        return base64.b64encode(f"\0{self.account}\0{self.password}".encode()).decode()


Client = Callable[[Server, Login, bytes], str]


def curl(server: Server, login: Login, content: bytes) -> str:
    scheme = "smtps" if login.implicit else "smtp"
    options = ["--ssl-reqd", "--cacert", server.ca, "--user", f"{login.account}:{login.password}"]
    envelope = ["--mail-from", SENDER, "--mail-rcpt", RECIPIENT, "--upload-file", "-"]
    url = f"{scheme}://localhost:{login.port(server)}/client.example"
    mechanism = f"AUTH={login.mechanism}"
    return _submit("curl", "-v", *options, "--login-options", mechanism, *envelope, url, input=content)


def swaks(server: Server, login: Login, content: bytes) -> str:
    with tempfile.NamedTemporaryFile() as file:
        # Left alone by swaks, the content has to be as SMTP wants it.
        file.write(stuffed(content))
        file.flush()
        return _submit(
            "swaks",
            *("--server", f"localhost:{login.port(server)}", "--ehlo", "client.example"),
            *("--tls-on-connect" if login.implicit else "--tls", "--tls-verify", "--tls-ca-path", server.ca),
            *("--auth", login.mechanism, "--auth-user", login.account, "--auth-password", login.password),
            *("--from", SENDER, "--to", RECIPIENT, "--no-data-fixup", "--data", f"@{file.name}"),
        )


def gsasl(server: Server, login: Login, content: bytes) -> str:
    """After the login, gsasl passes lines on, one whenever its input has something: so it must not read
    ahead (stdbuf), and its input stays open until it ends.  It knows STARTTLS only."""
    realm = [f"--realm={REALM}"] if login.mechanism == "DIGEST-MD5" else []
    connection = [f"--connect=localhost:{login.port(server)}", f"--x509-ca-file={server.ca}"]
    mechanism = [f"--mechanism={login.mechanism}", "--quality-of-protection=qop-auth", *realm]
    account = [f"--authentication-id={login.account}", f"--password={login.password}"]
    with subprocess.Popen(
        ["stdbuf", "-i0", "gsasl", "--smtp", *connection, *mechanism, *account],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    ) as process:
        limit = Timer(_SECONDS, process.kill)
        limit.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(_transaction(content))
            process.stdin.flush()
            said = process.stdout.read().decode("utf-8", "replace")
        finally:
            limit.cancel()
    return _taken(said)


def gsasl_external(port: int, ca: object, certificate: ClientFiles, authzid: str) -> str:
    """A login with a client certificate, and no message."""
    connection = [f"--connect=localhost:{port}", f"--x509-ca-file={ca}"]
    shown = [
        f"--x509-cert-file={certificate.certificate}",
        f"--x509-key-file={certificate.private_key}",
    ]
    asked = ["--mechanism=EXTERNAL", f"--authorization-id={authzid}"]
    return _submit("gsasl", "--smtp", *connection, *shown, *asked, "--no-client-first", input=b"QUIT\r\n")


def openssl(server: Server, login: Login, content: bytes) -> str:
    """Everything at once, the login at its head (A6)."""
    starttls = [] if login.implicit else ["-starttls", "smtp"]
    said = _submit(
        *("openssl", "s_client", "-quiet", "-connect", f"localhost:{login.port(server)}", *starttls),
        *("-CAfile", server.ca, "-verify_return_error", "-verify_hostname", "localhost"),
        input=f"EHLO client.example\r\nAUTH PLAIN {login.plain}\r\n".encode() + _transaction(content),
    )
    return _taken(said)


def python(server: Server, login: Login, content: bytes) -> str:
    """smtplib, which leaves DIGEST-MD5 to its callers."""
    context = tls_context(server)
    kind = smtplib.SMTP_SSL if login.implicit else smtplib.SMTP
    more = {"context": context} if login.implicit else {}
    try:
        port = login.port(server)
        with kind("localhost", port, local_hostname="client.example", timeout=_SECONDS, **more) as client:
            if not login.implicit:
                client.starttls(context=context)
            authenticate(client, login)
            client.sendmail(SENDER, [RECIPIENT], content)
    except smtplib.SMTPException as error:
        raise Refused(str(error)) from error
    return ""


def authenticate(client: smtplib.SMTP, login: Login) -> None:
    """Log in with the mechanism that ``login`` names, and no other.

    :raise smtplib.SMTPAuthenticationError: refused.
    """
    client.ehlo()
    if login.mechanism == "DIGEST-MD5":
        _digest_md5(client, login)
        return
    client.user, client.password = login.account, login.password
    answers = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login}
    client.auth(login.mechanism, answers[login.mechanism], initial_response_ok=login.mechanism == "PLAIN")


def _digest_md5(client: smtplib.SMTP, login: Login) -> None:
    """By hand: what smtplib offers for it takes ASCII alone."""
    code, text = client.docmd("AUTH", "DIGEST-MD5")
    if code == 334:
        answer = respond(base64.b64decode(text), login.account, login.password, "smtp/localhost")
        code, text = client.docmd(base64.b64encode(answer).decode())
    if code == 334:
        code, text = client.docmd("")  # that was rspauth
    if code != 235:
        raise smtplib.SMTPAuthenticationError(code, text)


def tls_context(server: Server) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(server.ca))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the tests' authority is a plain one
    return context


_ALL = ("DIGEST-MD5", "PLAIN", "LOGIN")
#: Every client with the mechanisms that it knows, and whether it can begin with TLS.
CLIENTS: dict[Client, tuple[tuple[str, ...], bool]] = {
    curl: (_ALL, True),
    swaks: (_ALL, True),
    gsasl: (_ALL, False),
    openssl: (("PLAIN",), True),
    python: (_ALL, True),
}


def ways() -> list[tuple[Client, Login]]:
    """Every client with every mechanism, over STARTTLS and over implicit TLS, as far as it can."""
    return [
        (client, Login(mechanism, implicit))
        for client, (mechanisms, can_begin_with_tls) in CLIENTS.items()
        for mechanism in mechanisms
        for implicit in ((False, True) if can_begin_with_tls else (False,))
    ]


def stuffed(content: bytes) -> bytes:
    """As DATA wants it, the end of data included."""
    return b"".join(b"." + line if line.startswith(b".") else line for line in _lines(content)) + b".\r\n"


def _lines(content: bytes) -> list[bytes]:
    return [line + b"\r\n" for line in content.removesuffix(b"\r\n").split(b"\r\n")]


def _transaction(content: bytes) -> bytes:
    commands = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode()
    return commands + stuffed(content) + b"QUIT\r\n"


def _submit(*command: object, **options: object) -> str:
    try:
        done = run(*command, timeout=_SECONDS, **options)
    except subprocess.TimeoutExpired as error:
        raise Refused(f"{shlex.join(map(str, command))} did not end: {error.output!r}") from error
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    if done.returncode:
        raise Refused(said)
    return said


def _taken(said: str) -> str:
    if "250 2.0.0 Ok: queued as" not in said:
        raise Refused(said)
    return said
