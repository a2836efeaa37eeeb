"""Configurations as a whole: what is accepted, and every problem told at once."""

import json
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config import ConfigError, as_document, as_toml, load, settings_from, warnings
from digipoort_msa.config.settings import Settings
from tests.configurations import document, with_files
from tests.requirements import proves


def problems(tables: dict[str, object], *, files: bool = False) -> list[str]:
    """The problems of a document, a line each."""
    try:
        settings_from(tables, files=files)
    except ConfigError as error:
        return str(error).split("\n")
    return []


class Documents(SynchronousTestCase):
    """Parsed documents."""

    def test_the_smallest(self) -> None:
        """A name, a listener, a realm and a hop are enough; the rest has the issue's defaults."""
        found = settings_from(document(), files=False)
        self.assertEqual(str(found.server.state_directory), "/var/lib/digipoort-msa")
        self.assertEqual(found.limits.message_size, 52428800)
        self.assertEqual(found.limits.recipients, 1000)
        self.assertEqual(found.limits.idle_timeout, 300)
        self.assertEqual(found.limits.connections_per_address, 100)
        self.assertEqual(found.limits.authentication_failures, 3)
        self.assertEqual(found.realm[0].mechanisms, ("DIGEST-MD5", "PLAIN", "LOGIN"))
        self.assertEqual(found.tls.minimum_version, "1.2")

    @proves("L3", "M2", "M7")
    def test_off_by_default(self) -> None:
        """Client certificates, added headers and bound senders are for who asks for them."""
        found = settings_from(document(realm=[{"name": "a"}]), files=False)
        self.assertEqual(found.tls.client_certificates, "off")
        self.assertFalse(found.realm[0].add_missing_headers)
        self.assertEqual(found.realm[0].policy, ())

    @proves("L5")
    def test_every_problem_at_once(self) -> None:
        """Wrong keys, unknown keys, missing keys and rules across keys, in one go."""
        lines = problems(
            document(
                server={"hostnam": "msa.example.nl"},
                listener=[{"endpoint": "tcp:587", "tls": "starttls"}, {"endpoint": "tcp:abc", "tls": "yes"}],
                limits={"recipients": 10, "message-size": "50 MB", "idle-timeout": True},
                queue={"jitter": 1.0},
                delivery={"to": "maildir"},
                queu={},
            )
        )
        for line in (
            "server.hostname: missing; should be a host name such as msa.example.nl: "
            "what the greeting and Received: show",
            'server.hostnam = "msa.example.nl": unknown key; did you mean hostname?',
            'listener[1].tls = "yes": should be "starttls" (in clear first, port 587) or "implicit" '
            "(TLS at once, port 465)",
            "limits.recipients = 10: should be at least 100 (RFC 5321 4.5.3.1.8): recipients of one message "
            "(at least 100)",
            'limits.message-size = "50 MB": should be octets: the largest message (a whole number)',
            "limits.idle-timeout = true: should be seconds without a word from the client, then 421 "
            "(a number)",
            "queue.jitter = 1: should be from 0 to below 1: the part of a delay, either way, that is drawn "
            "by lot (less than 1)",
            "queu = a table: unknown key; did you mean queue?",
            'delivery.maildir.directory: missing; delivery.to = "maildir" needs a folder',
        ):
            self.assertIn(line, lines)
        self.assertRegex("\n".join(lines), r'listener\[1\].endpoint = "tcp:abc": should be a Twisted')
        self.assertEqual(len(lines), 10)

    def test_a_wrong_key_is_not_echoed(self) -> None:
        """A hop that is wrong is told once, and not as a missing hop as well."""
        lines = problems(document(delivery={"relay": {"next-hops": ["core"]}}))
        self.assertEqual(
            lines,
            [
                'delivery.relay.next-hops[0].hop = "core": should be "host:port", such as '
                '"core.example.nl:25" or "[2001:db8::1]:25"; "mx:example.nl", '
                '"srv:_submission._tcp.example.nl", or "unix:/path"'
            ],
        )

    def test_what_a_realm_inherits_is_told_once(self) -> None:
        """Under the key that is in the file; what is the realm's own is told besides."""
        general = {"next-hops": ["a:25"], "connections": "x", "foo": 1}
        realm = {"name": "a", "delivery": {"relay": {"idle-timeout": 3.0}}}
        tables = {"delivery": {"relay": general}, "realm": [realm]}
        self.assertEqual(
            [line.partition(" ")[0] for line in problems(document(**tables))],
            ["delivery.relay.connections", "delivery.relay.foo"],
        )
        realm = {"name": "a", "delivery": {"relay": {"connections": "y", "next-hops": ["b"]}}}
        self.assertEqual(
            [line.partition(" ")[0] for line in problems(document(**{**tables, "realm": [realm]}))],
            [
                "realm[0].delivery.relay.next-hops[0].hop",
                "realm[0].delivery.relay.connections",
                "delivery.relay.connections",
                "delivery.relay.foo",
            ],
        )
        general = {"next-hops": [{"hop": "a:25"}]}
        self.assertEqual(
            [
                line.partition(" ")[0]
                for line in problems(document(delivery={"relay": general}, realm=[realm]))
            ],
            ["realm[0].delivery.relay.next-hops[0].hop", "realm[0].delivery.relay.connections"],
        )

    def test_nothing_known_is_near(self) -> None:
        """Then the known keys are listed."""
        (line,) = problems(document(tls={"zzz": 1}))
        self.assertEqual(
            line,
            "tls.zzz = 1: unknown key; known here: certificate, private-key, minimum-version, "
            "client-certificates, client-ca, client-crl",
        )

    def test_what_has_moved(self) -> None:
        """A configuration of the release before says what to write instead."""
        realm = {"name": "example.nl", "url": "sqlite:////a", "bind-sender": True}
        self.assertEqual(
            [line.partition(": ")[2] for line in problems(document(realm=[realm]))],
            ["unknown key; now it is sql.url", 'unknown key; now it is a policy with rule = "sender"'],
        )

    def test_underscores(self) -> None:
        """The commonest slip gets its answer."""
        (line,) = problems(document(limits={"message_size": 1}))
        self.assertEqual(line, "limits.message_size = 1: unknown key; did you mean message-size?")

    def test_empty(self) -> None:
        """The empty file needs three tables; the hop and the files are told too."""
        lines = problems({})
        self.assertEqual([line.partition(":")[0] for line in lines[:3]], ["server", "listener", "realm"])
        self.assertTrue(lines[3].startswith("delivery.relay.next-hops: missing"))

    def test_no_listener(self) -> None:
        """There is at least one."""
        self.assertEqual(
            problems(document(listener=[])), ["listener = []: should be at least one [[listener]]"]
        )

    def test_frozen(self) -> None:
        """Settings do not change."""
        found = settings_from(document(), files=False)
        with self.assertRaises(ValueError):
            found.server.hostname = "other.example.nl"

    def test_passwords_are_masked(self) -> None:
        """A database's password is shown neither in a problem nor in the effective settings."""
        realm = {"name": "a", "sql": {"url": "sqlite://user:secret@host/x?y=1"}}
        found = settings_from(document(realm=[realm]), files=False)
        self.assertNotIn("secret", as_toml(found) + json.dumps(as_document(found)))
        self.assertIn("user:***@host", as_toml(found))
        self.assertEqual(found.realm[0].sql.url, "sqlite://user:secret@host/x?y=1")
        bad = problems(document(realm=[{"name": "a", "sql": {"url": "nodb://user:sec:r/et@host/x"}}]))
        self.assertNotIn("et@", "".join(bad))
        self.assertNotIn("sec", "".join(bad))

    def test_no_password_is_shown_wherever_it_stands(self) -> None:
        """In a URL of any form, in its parameters, under a key that is misspelt or misused."""
        realm = {"name": "a"}
        cases: tuple[dict[str, Any], ...] = (
            *(
                {"realm": [{**realm, **keys}]}
                for url in (
                    "postgresql://user@realm:hidden@host/x",
                    "postgresql://us/er:hidden@host/x",
                    "postgresql://user:x\nhidden@host/x",
                    "postgresql:///x?user=u&password=hidden",
                    "mysql://u:hidden@host/x?ssl_key_password=hidden&passwd=hidden",
                    "mysql+pyodbc:///?odbc_connect=PWD%3Dhidden",
                    "postgresql//user:hidden@host/x",
                    "postgresql:user:hidden@host/x",
                    ["postgresql://user:hidden@host/x"],
                )
                for keys in ({"sql": {"url": url}}, {"url": url})
            ),
            {"realm": [{**realm, "urls": "postgresql://user:hidden@host/x"}]},
            {"realm": [{**realm, "plugin": {"password": "hidden", "deep": [{"api-secret": "hidden"}]}}]},
            {"delivery": {"password": "hidden", "relay": {"next-hops": ["a:25"]}}},
            {"delivery": {"relay": {"next-hops": ["a:25"], "password": "hidden"}}},
            {"delivery": {"relay": {"next-hops": ["a:25"], "username": "u", "password-file": "hidden"}}},
            {"delivery": {"relay": {"next-hops": ["a:25"], "username": "u", "password-file": ["hidden"]}}},
            {"spool": {"encryption-key-file": "hidden"}},
            {"spool": {"encryption-key": "hidden"}},
            {"tls": {"private-key": "-----BEGIN PRIVATE KEY-----\nhidden"}},
        )
        for tables in cases:
            tables = document(**tables)
            shown = "\n".join(problems(tables)) or as_toml(settings_from(tables, files=False))
            self.assertIn("***", shown)
            self.assertNotIn("hidden", shown)

    def test_a_url_without_password_is_shown_whole(self) -> None:
        for url in ("postgresql://user@host:5432/x?a=b", "sqlite:////var/lib/x.sqlite", "postgresql:///x"):
            found = settings_from(document(realm=[{"name": "a", "sql": {"url": url}}]), files=False)
            self.assertIn(f'"{url}"', as_toml(found))

    def test_nothing_commands_the_terminal(self) -> None:
        listener = {"endpoint": "\x1b[2J\x07", "tls": "implicit"}
        (line,) = problems(document(listener=[listener]))
        self.assertTrue(line.isprintable(), line)


names = st.sampled_from(
    [
        *("server", "listener", "tls", "realm", "limits", "delivery", "relay", "maildir", "hostname", "name"),
        *("endpoint", "next-hops", "url", "mechanisms", "header-patterns", "message-size", "idle-timeout"),
        *("certificate", "state-directory", "timeouts", "addresses", "username", "ca", "to", "umask"),
    ]
) | st.text(max_size=8)
text = st.text(max_size=20) | st.sampled_from(
    [
        "tcp:587",
        "starttls",
        "implicit",
        "relay",
        "maildir",
        "none",
        "a:1",
        "/x",
        "PLAIN",
        "sqlite://",
        "*",
        "(",
    ]
)
scalars = (
    st.booleans() | st.integers() | st.floats() | st.dates() | text | st.just(10**400) | st.just(date.max)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


class AnyDocument(SynchronousTestCase):
    """Whatever a TOML file holds."""

    @settings(deadline=None, max_examples=400)
    @given(st.dictionaries(names, values, max_size=6))
    def test_from_nothing(self, tables: dict[str, object]) -> None:
        """Settings or a ConfigError with at least one problem; never anything else."""
        self.check(tables)

    @settings(deadline=None, max_examples=400)
    @given(st.sampled_from(list(Settings.model_fields)), values, st.dictionaries(names, values, max_size=4))
    def test_with_a_table_replaced(self, name: str, value: object, table: dict[str, object]) -> None:
        """The same, nearer to what is right."""
        self.check(document(**{name: value}))
        self.check(document(**{name: table}))
        self.check(document(**{name: [table]}))
        self.check(document(**{name: {**document().get(name, {}), **table}} if name == "delivery" else {}))

    def check(self, tables: dict[str, object]) -> None:
        before = repr(tables)
        try:
            found = settings_from(tables)
        except ConfigError as error:
            self.assertTrue(error.problems)
            self.assertTrue(all(str(problem) for problem in error.problems))
        else:
            self.assertEqual(settings_from(tomllib.loads(as_toml(found))), found)
        self.assertEqual(repr(tables), before, "the document was changed")


class Files(SynchronousTestCase):
    """Configuration files."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "msa.toml"

    def refused(self) -> str:
        return str(self.assertRaises(ConfigError, load, self.path))

    def test_round_trip(self) -> None:
        """What as_toml writes, load reads."""
        tables, _ = with_files(self.folder)
        found = settings_from(tables)
        self.path.write_text(as_toml(found))
        self.assertEqual(load(self.path), found)
        self.assertEqual(warnings(found), ())

    def test_not_there(self) -> None:
        """The system's reason is told."""
        self.assertEqual(self.refused(), f"{self.path}: cannot be read: No such file or directory")

    def test_a_folder(self) -> None:
        self.path.mkdir()
        self.assertEqual(self.refused(), f"{self.path}: cannot be read: Is a directory")

    def test_syntax(self) -> None:
        """With line and column."""
        self.path.write_text('[server]\nhostname "x"\n')
        self.assertRegex(self.refused(), r"not TOML: .*line 2, column 10")

    def test_not_utf_8(self) -> None:
        self.path.write_bytes(b'[server]\nhostname = "\xe9"\n')
        self.assertEqual(self.refused(), f"{self.path}: line 2, column 13: not UTF-8 text")

    def test_a_byte_order_mark(self) -> None:
        tables, _ = with_files(self.folder)
        found = settings_from(tables)
        self.path.write_text(as_toml(found), encoding="utf-8-sig")
        self.assertEqual(load(self.path), found)

    def test_larger_than_any_configuration(self) -> None:
        """Such as a device: it is not read to its end."""
        self.path.symlink_to("/dev/zero")
        self.assertRegex(self.refused(), "larger than 1048576 octets")

    def test_nested_beyond_reason(self) -> None:
        self.path.write_text("a = " + "[" * 100_000)
        self.assertRegex(self.refused(), "not TOML")

    def test_a_number_beyond_reason(self) -> None:
        self.path.write_text("a = " + "1" * 5000)
        self.assertRegex(self.refused(), "not TOML")
