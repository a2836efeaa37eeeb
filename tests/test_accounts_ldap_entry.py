"""What an entry says of an account."""

from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.ldap.codec import Entry
from digipoort_msa.accounts.ldap.entry import (
    Attributes,
    DirectoryAccount,
    check_names,
    escaped,
    is_named,
    read_account,
)
from digipoort_msa.interfaces import Unavailable
from digipoort_msa.sasl.scram_keys import ScramKeys
from tests.requirements import proves

NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)


def entry(dn: str = "uid=piet,dc=nl", **attributes: Any) -> Entry:
    return Entry(
        dn,
        {
            name.lower(): tuple(
                each if isinstance(each, bytes) else each.encode()
                for each in (value if isinstance(value, list) else [value])
            )
            for name, value in attributes.items()
        },
    )


class EscapedTests(SynchronousTestCase):
    def test_nothing_of_it_is_syntax(self) -> None:
        for text, expected in {
            "piet": "piet",
            "*": "\\2a",
            ")(uid=*": "\\29\\28uid\\3d\\2a",
            "a\\b": "a\\5cb",
            "a\0b": "a\\00b",
            "zoë": "zo\\c3\\ab",
            "{dn}": "\\7bdn\\7d",
            "": "",
        }.items():
            self.assertEqual(escaped(text), expected)
        everything = "".join(map(chr, range(0x500)))
        self.assertRegex(escaped(everything), r"^([A-Za-z0-9]|\\[0-9a-f]{2})*$")


class NameTests(SynchronousTestCase):
    def test_exact(self) -> None:
        found = entry(uid=["piet", "Jan  de Boer"])
        for name in ("piet", "Jan  de Boer"):
            self.assertTrue(is_named(found, Attributes(), name))
        for name in ("Piet", "PIET", "piet ", " piet", "jan de boer", "\uff50iet"):
            self.assertFalse(is_named(found, Attributes(), name), name)

    def test_quite_another(self) -> None:
        for name, found in (
            ("jan", entry(uid="piet")),
            ("piet", entry(cn="piet")),
            ("piet", entry(uid=b"\xff")),
        ):
            self.assertRaises(Unavailable, is_named, found, Attributes(), name)

    def test_attributes_under_their_names(self) -> None:
        check_names(
            entry(**{"uid": "piet", "mail": "a@b.nl", "mail;lang-nl": "c@b.nl"}), ["UID", "mail", "sn"]
        )
        for name, says in (("sn", "came with sn"), ("mail;range=0-1499", "more values of mail")):
            with self.assertRaisesRegex(Unavailable, says):
                check_names(entry(**{name: "x"}), ["uid", "mail"])


class ReadTests(SynchronousTestCase):
    def read(self, attributes: Attributes, status: Status = Status.ACTIVE, **values: Any) -> DirectoryAccount:
        return read_account(
            entry(**values),
            attributes,
            name="piet",
            realm="one.nl",
            status=status,
            now=NOW,
            groups=frozenset(),
        )

    def logged(self) -> list[Any]:
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        return events

    def test_the_least(self) -> None:
        found = self.read(Attributes())
        self.assertEqual((found.name, found.realm, found.status), ("piet", "one.nl", Status.ACTIVE))
        self.assertEqual((found.groups, found.addresses, found.revision), (frozenset(), (), ""))
        self.assertEqual(found.dn, "uid=piet,dc=nl")

    def test_wanted(self) -> None:
        attributes = Attributes(addresses="mail", groups="memberOf", revision=("entryCSN", "mail"))
        self.assertEqual(attributes.wanted, ("uid", "mail", "memberOf", "entryCSN"))

    def test_addresses(self) -> None:
        """What is no address or pattern of one is left out."""
        values = ["piet@one.nl", "*@two.nl", "piet", "a b@c", "", b"\xff@one.nl", "a@b@c"]
        found = self.read(Attributes(addresses="mail"), mail=values)
        self.assertEqual(found.addresses, ("piet@one.nl", "*@two.nl"))

    def test_groups_as_they_are(self) -> None:
        found = self.read(Attributes(groups="employeeType"), employeeType=["businesses", "Überall", b"\xff"])
        self.assertEqual(found.groups, {"businesses", "Überall"})

    def test_groups_below_a_base(self) -> None:
        """A group of the same name elsewhere is another group."""
        attributes = Attributes(groups="memberOf", groups_base="ou=Groups, dc=nl")
        members = [
            *("cn=a,ou=groups,dc=nl", "CN=Be\\2C ce,OU=deep,OU=GROUPS,DC=NL", "cn=c,ou=others,dc=nl"),
            *(
                "ou=groups,dc=nl",
                "cn=d,dc=nl",
                "not a name",
                "cn=e,xou=groups,dc=nl",
                "cn=f\\,ou=groups\\,dc=nl",
            ),
        ]
        self.assertEqual(self.read(attributes, memberOf=members).groups, {"a", "Be, ce"})
        nonsense = Attributes(groups="memberOf", groups_base="nonsense")
        self.assertEqual(self.read(nonsense, memberOf=members).groups, frozenset())

    def expiry(self, value: Any, expiry_format: Any = "generalized-time") -> Status:
        return self.read(Attributes(expiry="x", expiry_format=expiry_format), x=value).status

    def test_generalized_time(self) -> None:
        for value, status in {
            "20260615120000Z": Status.EXPIRED,
            "20260615120001Z": Status.ACTIVE,
            "202606151159Z": Status.EXPIRED,
            "20260615120000.5Z": Status.EXPIRED,
            "20260615133000+0200": Status.EXPIRED,
            "20260615143000+0200": Status.ACTIVE,
            "99991231235959Z": Status.ACTIVE,
        }.items():
            self.assertIs(self.expiry(value), status, value)

    def test_filetime(self) -> None:
        now = int((NOW.timestamp() + 11644473600) * 10**7)
        for value, status in {
            0: Status.ACTIVE,
            2**63 - 1: Status.ACTIVE,
            now: Status.EXPIRED,
            now + 10**7: Status.ACTIVE,
        }.items():
            self.assertIs(self.expiry(str(value), "filetime"), status, value)

    def test_days(self) -> None:
        today = int(NOW.timestamp() // 86400)
        for value, status in {-1: Status.ACTIVE, today: Status.EXPIRED, today + 1: Status.ACTIVE}.items():
            self.assertIs(self.expiry(str(value), "days"), status, value)

    @proves("A7")
    def test_what_cannot_be_read_is_no_yes(self) -> None:
        for value in ("", "soon", "20261315000000Z", "2026061512", b"\xff", ["20270101000000Z"] * 2):
            self.assertRaises(Unavailable, self.expiry, value)
        for value in ("", "x", str(2**80), "1.5"):
            self.assertRaises(Unavailable, self.expiry, value, "filetime")
            self.assertRaises(Unavailable, self.expiry, value, "days")

    def test_no_expiry(self) -> None:
        self.assertIs(self.read(Attributes(expiry="x")).status, Status.ACTIVE)

    def test_a_status_that_is_known_stays(self) -> None:
        attributes = Attributes(expiry="x")
        found = self.read(attributes, Status.LOCKED, x="20200101000000Z")
        self.assertIs(found.status, Status.LOCKED)

    def test_revision(self) -> None:
        attributes = Attributes(revision=("entryUUID", "entryCSN"))
        one = self.read(attributes, entryUUID="u", entryCSN="1").revision
        self.assertEqual(one, self.read(attributes, entryUUID="u", entryCSN="1").revision)
        others = [
            self.read(attributes, entryUUID="u", entryCSN="2"),
            self.read(attributes, entryUUID="v", entryCSN="1"),
            self.read(attributes, entryUUID="u1", entryCSN="1"),
            self.read(attributes, entryUUID="u", entryCSN=["1", "1"]),
            self.read(attributes, dn="uid=jan,dc=nl", entryUUID="u", entryCSN="1"),
        ]
        self.assertEqual(len({one, *(other.revision for other in others)}), 6)
        for values in ({"entryUUID": "u"}, {"entryCSN": "1"}, {}):
            self.assertEqual(self.read(attributes, **values).revision, "")  # it cannot be told

    @proves("A7")
    def test_digest_secrets(self) -> None:
        attributes = Attributes(digest="x")
        found = self.read(attributes, x=["00" * 16, "Ff" * 16])
        self.assertEqual(found.digest_secrets, (bytes(16), b"\xff" * 16))
        self.assertNotIn("\\x00", repr(found))
        events = self.logged()
        for value in ("", "00" * 15, "zz" * 16, b"\xff" * 32):
            self.assertEqual(self.read(attributes, x=["00" * 16, value]).digest_secrets, ())
        self.assertEqual({event["event"] for event in events}, {"secrets-unreadable"})

    def test_scram_keys(self) -> None:
        keys = ScramKeys(b"salt", 4096, b"s" * 32, b"v" * 32)
        salt, stored, server = (
            b64encode(each).decode() for each in (keys.salt, keys.stored_key, keys.server_key)
        )
        value = f"SCRAM-SHA-256$4096:{salt}${stored}:{server}"
        attributes = Attributes(scram="x")
        for right in (value, ["SCRAM-SHA-1$x", "MD5$a$b", value], value.replace("$", " $ ")):
            self.assertEqual(self.read(attributes, x=right).scram, keys)
        events = self.logged()
        for wrong in (
            value.replace("4096", ""),
            value.replace("4096", "0"),
            value.replace(stored, "AAAA"),
            value.replace(salt, ""),
            value.replace(server, "!"),
            value + "$",
            "SCRAM-SHA-256",
        ):
            self.assertIsNone(self.read(attributes, x=wrong).scram, wrong)
        self.assertEqual(len(events), 7)
        self.assertIsNone(self.read(attributes, x="SCRAM-SHA-1$x").scram)
        self.assertNotIn(stored, repr(self.read(attributes, x=value)))
