"""Rules across keys."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config import checks, settings_from
from digipoort_msa.config.checks import across
from digipoort_msa.config.problems import Problem
from digipoort_msa.config.settings import Settings
from tests.configurations import document


def found(**tables: Any) -> list[str]:
    """What the rules say, warnings marked."""
    parsed = Settings.model_validate(document(**tables))
    return [("warning: " if problem.warning else "") + str(problem) for problem in across(parsed)]


def hidden(*packages: str) -> Callable[[str], object]:
    """A ``find_spec`` that does not find these."""
    return lambda name: None if name in packages else find_spec(name)


class Listeners(SynchronousTestCase):
    """Endpoints."""

    def test_right(self) -> None:
        """Every kind that the sample names, and IPv6, PROXY protocol and unix sockets."""
        for endpoint in (
            "tcp:587",
            "tcp:0:interface=127.0.0.1",
            "tcp:port=587:backlog=100",
            "tcp6:587:interface=\\:\\:1",
            "haproxy:tcp:587",
            "unix:/run/digipoort-msa.sock",
            "systemd:domain=INET:index=0",
            "systemd:domain=INET6:name=submission",
            "haproxy:systemd:domain=INET:index=1",
        ):
            self.assertEqual(found(listener=[{"endpoint": endpoint, "tls": "starttls"}]), [], endpoint)

    def test_wrong(self) -> None:
        """With what is wrong about it."""
        for endpoint, right in {
            "587": "needs",
            "tcp": "missing 1 required positional argument: 'port'",
            "tcp:submission": "invalid literal",
            "tcp:587:interfce=1": "unexpected keyword argument 'interfce'",
            "tcp:65536": "should name a port from 0 to 65535",
            "quic:1": "Unknown endpoint type: 'quic'",
            "haproxy:quic:1": "Unknown endpoint type: 'quic'",
            "systemd:index=0": 'should be such as "systemd:domain=INET:index=0"',
            "ssl:465:privateKey=/x": 'listener.tls = "implicit" adds the TLS',
        }.items():
            (line,) = found(listener=[{"endpoint": endpoint, "tls": "implicit"}])
            self.assertIn("listener[0].endpoint = ", line)
            if right != "needs":
                self.assertIn(right, line)

    def test_twice(self) -> None:
        """The same place cannot be listened on twice; port 0 is never the same."""
        listener = {"endpoint": "tcp:587", "tls": "implicit"}
        self.assertEqual(
            found(listener=[listener, listener]),
            ['listener[1].endpoint = "tcp:587": should differ from the other listeners\''],
        )
        listener = {"endpoint": "tcp:0:interface=127.0.0.1", "tls": "implicit"}
        self.assertEqual(found(listener=[listener, listener]), [])


class Realms(SynchronousTestCase):
    """Realms."""

    def test_names_differ(self) -> None:
        """By more than case."""
        self.assertEqual(
            found(realm=[{"name": "a.nl"}, {"name": "A.nl"}]),
            ['realm[1].name = "A.nl": should differ from the other realms\' names'],
        )

    def test_mechanisms_once(self) -> None:
        self.assertEqual(
            found(realm=[{"name": "a", "mechanisms": ["PLAIN", "PLAIN"]}]),
            ['realm[0].mechanisms[1] = "PLAIN": should be there once'],
        )

    def test_urls(self) -> None:
        """A URL, of a database whose library is there."""
        self.assertEqual(found(realm=[{"name": "a", "sql": {"url": "sqlite:////tmp/x"}}]), [])
        for url in ("x", "nodb://host/x", "postgresql+nodriver://host/x", "sqlite+pysqlcipher://x"):
            (line,) = found(realm=[{"name": "a", "sql": {"url": url}}])
            self.assertIn(f'realm[0].sql.url = "{url}": ', line)

    def test_rules_of_the_same_name(self) -> None:
        rule = {"rule": "recipients", "recipients": {"patterns": ["*@example.nl"]}}
        (line,) = found(realm=[{"name": "a", "policy": [rule, rule]}])
        self.assertIn('realm[0].policy[1].name = "recipients": should differ', line)
        self.assertEqual(found(realm=[{"name": "a", "policy": [rule, {**rule, "name": "more"}]}]), [])

    def test_a_table_of_another_rule(self) -> None:
        for policy, right in {
            ("sender", "header-sender"): 'should be realm[0].policy[0].sender, or rule = "header-sender"',
            ("header-sender", "sender"): 'should be realm[0].policy[0].header-sender, or rule = "sender"',
        }.items():
            rule, table = policy
            (line,) = found(
                realm=[{"name": "a", "addresses": {"x": ["*@x.nl"]}, "policy": [{"rule": rule, table: {}}]}]
            )
            self.assertIn(f"realm[0].policy[0].{table}: {right}", line)

    def test_groups_that_the_store_does_not_know(self) -> None:
        policy = {"rule": "sender", "groups": ["agents"]}
        for more, problems in (({}, 1), ({"groups-attribute": "memberOf"}, 0)):
            lines = found(realm=[{"name": "a", "store": "ldap", "ldap": more, "policy": [policy]}])
            self.assertEqual(len([line for line in lines if "policy[0].groups" in line]), problems, lines)

    def test_attachments_that_no_message_can_have(self) -> None:
        profile = {"attachments": {"minimum": 2, "maximum": 1}}
        (line,) = found(realm=[{"name": "a", "policy": [{"rule": "profile", "profile": profile}]}])
        self.assertIn("policy[0].profile.attachments.minimum = 2: should be at most maximum (1)", line)

    def test_names_of_accounts_in_any_form(self) -> None:
        """Composed or not, they name the account."""
        policy = {
            "rule": "recipients",
            "accounts": ["cafe\u0301*"],
            "recipients": {"by-account": {"e\u0301": []}},
        }
        parsed = Settings.model_validate(document(realm=[{"name": "a", "policy": [policy]}]))
        (rule,) = parsed.realm[0].policy
        self.assertEqual((rule.accounts, list(rule.recipients.by_account)), (("caf\xe9*",), ["\xe9"]))

    def test_names_of_rules(self) -> None:
        """Replies have them."""
        for name in ("a\nb", "caf\xe9", "x" * 101, ""):
            realm = {"name": "a", "policy": [{"rule": "sender", "name": name}]}
            self.assertRaises(ValueError, Settings.model_validate, document(realm=[realm]))

    def test_plugins_that_are_not_installed(self) -> None:
        (line,) = found(realm=[{"name": "a", "store": "nope"}])
        self.assertIn('realm[0].store = "nope": should be ', line)
        (line,) = found(realm=[{"name": "a", "policy": [{"rule": "plugin", "plugin": {"name": "nope"}}]}])
        self.assertIn('realm[0].policy[0].plugin.name = "nope": should be an installed plug-in', line)

    def senders(self, realm: dict[str, object], **notification: Any) -> list[Problem]:
        tables = document(realm=[{"name": "a", **realm}], notification=notification)
        parsed = Settings.model_validate(tables)
        return [
            problem
            for problem in across(parsed)
            if problem.key.endswith((".addresses", ".recipients", ".policy"))
        ]

    def test_nobody_can_be_told(self) -> None:
        """Where nothing says which senders are an account's own; a realm that goes through tells nobody."""
        (problem,) = self.senders({})
        self.assertTrue(problem.warning)
        self.assertIn("realm[0].addresses: missing", str(problem))
        enough: tuple[dict[str, object], ...] = (
            {"policy": [{"rule": "sender"}]},
            {"addresses": {"a": ["*@example.nl"]}},
            {"notification": {"recipients": ["*@example.nl"]}},
            {"delivery": {"to": "through"}},
        )
        for realm in enough:
            self.assertEqual(self.senders(realm), [], realm)
        self.assertEqual(self.senders({}, recipients=["*@example.nl"]), [])
        for some in ({"mode": "audit"}, {"accounts": ["a*"]}, {"groups": ["g"]}):
            (problem,) = self.senders({"policy": [{"rule": "sender", **some}]})
            self.assertEqual(problem.key, "realm[0].addresses")

    def test_everybody_could_be_told(self) -> None:
        """Patterns that take in strangers."""
        strangers: tuple[tuple[dict[str, object], str], ...] = (
            ({"policy": [{"rule": "sender", "sender": {"patterns": ["*@*"]}}]}, "realm[0].policy"),
            ({"notification": {"recipients": ["info@*"]}}, "realm[0].notification.recipients"),
        )
        for realm, key in strangers:
            (problem,) = self.senders(realm)
            self.assertEqual((problem.key, problem.warning), (key, True))


class Delivery(SynchronousTestCase):
    """Ways out."""

    def relay(self, **keys: object) -> list[str]:
        return found(delivery={"relay": {"next-hops": ["core.example.nl:25"], **keys}})

    def test_hops(self) -> None:
        self.assertEqual(
            found(delivery={"to": "relay"}),
            [
                'delivery.relay.next-hops: missing; delivery.to = "relay" needs a list such as '
                '["core.example.nl:25"]'
            ],
        )
        (line,) = self.relay(**{"next-hops": ["a:1", "a:1"]})
        self.assertEqual(line, 'delivery.relay.next-hops[1] = "a:1": should be there once')

    def test_login(self) -> None:
        """A name needs a password, and the other way round."""
        self.assertEqual(
            self.relay(username="msa"),
            ["delivery.relay.password-file: missing; delivery.relay.username needs a password"],
        )
        self.assertEqual(
            self.relay(**{"password-file": "/x"}),
            ["delivery.relay.username: missing; delivery.relay.password-file needs a name"],
        )

    def test_names(self) -> None:
        """A login's name, and the resolver's address."""
        (line,) = self.relay(username="a\0b", **{"password-file": "/x"})
        self.assertIn("should be a name without NUL", line)
        for resolver in ("dns.example.nl:53", "127.0.0.1", "[::1]"):
            (line,) = self.relay(resolver=resolver)
            self.assertIn("should be an IP address and a port", line)
        for resolver in ("127.0.0.1:53", "[::1]:53"):
            self.assertEqual(self.relay(resolver=resolver), [])

    def test_names_that_anyone_could_forge(self) -> None:
        """A host that the DNS named is no proof, unless something else says who is right."""
        for hop in ("mx:example.nl", "srv:_a._tcp.example.nl"):
            (line,) = self.relay(**{"next-hops": [hop]})
            self.assertIn("warning", line)
            self.assertIn("DNSSEC", line)
            pin = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
            self.assertEqual(self.relay(**{"next-hops": [hop], "public-key-pins": [pin]}), [])

    def test_libraries(self) -> None:
        """What an option needs has to be installed, not only what the option says be right."""
        wanting: tuple[dict[str, object], ...] = (
            {"next-hops": ["mx:example.nl"], "server-name": "core.example.nl"},
            {"next-hops": ["srv:_a._tcp.example.nl"], "server-name": "core.example.nl"},
            {"dane": True},
        )
        for keys in wanting:
            self.assertEqual(self.relay(**keys), [])
        self.patch(checks, "find_spec", hidden("dns", "nacl"))
        for keys in wanting:
            (line,) = self.relay(**keys)
            self.assertIn("needs dnspython, which is not installed", line)
        self.assertEqual(self.relay(), [])
        (line,) = found(spool={"encryption-key-file": "/x"})
        self.assertIn("needs PyNaCl, which is not installed", line)

    def test_in_clear(self) -> None:
        """To this machine it is right; elsewhere a warning; with a login never."""
        for hop in ("localhost:25", "127.0.0.2:25", "[::1]:25"):
            self.assertEqual(self.relay(tls="none", **{"next-hops": [hop]}), [])
        (line,) = self.relay(tls="none")
        self.assertTrue(line.startswith('warning: delivery.relay.next-hops[0] = "core.example.nl:25"'), line)
        lines = self.relay(tls="none", username="msa", **{"password-file": "/x"})
        self.assertIn('delivery.relay.username = "msa": a login in clear is not done', lines[1])

    def test_maildir(self) -> None:
        """It needs a folder, and no hop."""
        self.assertEqual(
            found(delivery={"to": "maildir"}),
            ['delivery.maildir.directory: missing; delivery.to = "maildir" needs a folder'],
        )
        self.assertEqual(found(delivery={"to": "maildir", "maildir": {"directory": "/x"}}), [])


class Others(SynchronousTestCase):
    """The rest."""

    def test_client_ca(self) -> None:
        self.assertEqual(
            found(tls={"client-certificates": "required"}),
            ['tls.client-ca: missing; tls.client-certificates = "required" needs a PEM file'],
        )

    def test_delays(self) -> None:
        self.assertEqual(
            found(queue={"first-delay": 20, "maximum-delay": 10}),
            ["queue.first-delay = 20: should be at most queue.maximum-delay (10)"],
        )

    def test_argon2_memory(self) -> None:
        (line,) = found(passwords={"memory-kib": 8, "parallelism": 2})
        self.assertIn("passwords.memory-kib = 8: should be at least 8 for each", line)

    def test_warnings_do_not_stop(self) -> None:
        tables = document(delivery={"relay": {"next-hops": ["core.example.nl:25"], "tls": "none"}})
        self.assertEqual(settings_from(tables, files=False).delivery.relay.tls, "none")
