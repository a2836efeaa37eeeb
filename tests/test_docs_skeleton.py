"""The skeleton package of ``docs/skeleton``, and the page that leads from it to a realm: as an engineer
follows them, with the page's own commands."""

import atexit
import functools
import os
import re
import shlex
import shutil
import smtplib
import ssl
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config import toml_document
from tests.authority import Authority
from tests.installed import ROOT, Programs, Server, environment, run
from tests.requirements import proves

DOCS = ROOT / "docs"
PAGE = DOCS / "extending" / "realm-in-an-afternoon.rst"
SKELETON = DOCS / "skeleton"
PASSWORD = "Sesame, open wide!"


@frozen
class Engineer:
    """Somebody with a copy of the skeleton, which is installed; the network is far away."""

    folder: Path
    programs: Programs

    def run(self, command: str, folder: Path) -> "subprocess.CompletedProcess[bytes]":
        """A command as it is typed, with the programs of the engineer's environment."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return run("sh", "-c", command, cwd=folder, env={**environment(), "PATH": path})

    @property
    def copy(self) -> Path:
        return self.folder / "my-realm"


@functools.cache
def engineer() -> Engineer:
    """Made once in a process.

    The programs are those of the environment that runs the tests, which is not written to: packages are
    installed into a folder before it on the path.
    """
    folder = Path(tempfile.mkdtemp(prefix="digipoort-msa-skeleton-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "bin").mkdir()
    # What git does not know of must not decide how this ends.
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info", "_trial_temp*", ".pytest_cache")
    shutil.copytree(SKELETON, folder / "docs" / "skeleton", ignore=ignored)
    packages = folder / "packages"

    def program(code: str) -> tuple[str, ...]:
        paths = [str(packages), str(ROOT)]
        return sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; {code}"

    programs = Programs(
        program("from twisted.scripts.twistd import run; run()"),
        program("from digipoort_msa.admin.commands import main; main()"),
        folder,
    )
    offline = "--quiet --disable-pip-version-check install --no-index --no-build-isolation --no-deps"
    python = shlex.quote(sys.executable)
    for name, script in {
        "pip": f'test "$1" = install && shift && exec {python} -m pip {offline} --target {packages} "$@"',
        "python": f'PYTHONPATH={packages}:{shlex.quote(str(ROOT))} exec {python} "$@"',
        "digipoort-msa": f'exec {shlex.join(programs.msa)} "$@"',
    }.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin" / name).chmod(0o755)
    return Engineer(folder, programs)


@functools.cache
def blocks() -> tuple[str, ...]:
    """The page's blocks of commands."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"\.\. code-block:: console\n\n((?:   .*\n)+)", text)
    return tuple("\n".join(re.findall(r"(?m)^   \$ (.+)$", block)) for block in found)


@functools.cache
def installing() -> "subprocess.CompletedProcess[bytes]":
    """The page's first block: copy, install, test."""
    return engineer().run(f"set -e\n{blocks()[0]}", engineer().folder)


class PageTests(SynchronousTestCase):
    """The page's commands, in its order."""

    def setUp(self) -> None:
        self.engineer = engineer()
        done = installing()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    def test_the_tests_pass(self) -> None:
        """Under pytest, as the page runs them, none skipped; and under trial."""
        said = installing().stdout.decode().splitlines()[-1]
        self.assertRegex(said, r"\b[2-9]\d passed in ")
        self.assertNotRegex(said, "skipped|warning")
        done = self.engineer.run("python -m twisted.trial tests", self.engineer.copy)
        self.assertRegex(done.stdout.decode().splitlines()[-1], r"^PASSED \(successes=\d+\)$")

    def server(self) -> Server:
        """The MSA by the page's configuration, with paths and ports of this test."""
        tables = tomllib.loads((SKELETON / "msa.toml").read_text())
        accounts = self.folder / "accounts.json"
        shutil.copy(SKELETON / "accounts.json", accounts)
        tables["realm"][0]["plugin"]["file"] = str(accounts)
        tables["realm"][0]["refusal-time"] = 0.0
        tables["delivery"]["maildir"]["directory"] = str(self.folder / "maildir")
        settings = {name: tables[name] for name in ("realm", "delivery")}
        server = Server(self.folder / "msa", Authority(), settings, self.engineer.programs)
        self.addCleanup(server.kill)
        return server

    def client(self, server: Server) -> smtplib.SMTP:
        client = smtplib.SMTP("localhost", server.ports["starttls"], timeout=30)
        self.addCleanup(client.close)
        client.starttls(context=ssl.create_default_context(cafile=str(server.ca)))
        return client

    @proves("A7")
    def test_a_client_logs_in_and_submits(self) -> None:
        server = self.server()
        check, start = blocks()[1].splitlines()
        done = self.engineer.run(check.replace("msa.toml", str(server.config)), self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn(b"realm", done.stderr)  # of the key's file there is a warning here
        self.assertEqual(start, "twistd --nodaemon digipoort-msa --config msa.toml")
        server.start()
        client = self.client(server)
        client.ehlo()
        self.assertEqual(client.esmtp_features["auth"].split(), ["PLAIN", "LOGIN"])
        for name, password, code in (
            ("business", "wrong", 535),
            ("newsletter", PASSWORD, 535),  # it is disabled
            ("nobody", PASSWORD, 535),
        ):
            self.assertEqual(self.refusal(server, name, password), code, name)
        self.assertEqual(client.login("business", PASSWORD)[0], 235)
        refused = client.sendmail("me@business.example.nl", ["you@example.org"], "Subject: one\n\nText\n")
        self.assertEqual(refused, {})
        with self.assertRaises(smtplib.SMTPSenderRefused):
            client.sendmail("me@elsewhere.nl", ["you@example.org"], "")
        refused = client.sendmail(
            "me@business.example.nl", ["a@example.org", "b@example.net"], "Subject: b\n\n"
        )
        self.assertEqual({name: said[0] for name, said in refused.items()}, {"b@example.net": 550})
        server.await_log("rule one domain: <b@example.net> has another domain than example.org")
        self.back_end_fails_and_comes_back(server)

    def back_end_fails_and_comes_back(self, server: Server) -> None:
        """454 meanwhile, and the log says why."""
        accounts = self.folder / "accounts.json"
        text = accounts.read_text()
        accounts.write_text(text[:-20])
        self.assertEqual(self.refusal(server, "business", PASSWORD), 454)
        server.await_log(f"the accounts of realm example.nl cannot be asked: {accounts}: ")
        accounts.write_text(text)
        self.assertEqual(self.client(server).login("business", PASSWORD)[0], 235)

    def refusal(self, server: Server, name: str, password: str) -> int:
        """The code of the reply that refuses a login."""
        with self.assertRaises(smtplib.SMTPAuthenticationError) as caught:
            self.client(server).login(name, password)
        return int(caught.exception.smtp_code)

    def test_what_is_wrong_is_one_line(self) -> None:
        """Of ``check``, and at the start: both with the status that keeps systemd from trying again."""
        server = self.server()
        tables: dict[str, Any] = tomllib.loads(server.config.read_text())
        tables["realm"][0]["plugin"] = {"file": "accounts.json"}
        server.config.write_text(toml_document(tables))
        check = blocks()[1].splitlines()[0].replace("msa.toml", str(server.config))
        for done in (
            self.engineer.run(check, self.folder),
            run(*server.twistd("-n"), cwd=self.engineer.folder),
        ):
            self.assertEqual(done.returncode, os.EX_CONFIG, done.stderr)
            (line,) = done.stderr.decode().splitlines()
            self.assertIn("the plug-in 'json-file' of realm example.nl: file: should be the path", line)
