"""Which account a client certificate stands for, and that nobody gets another's by it."""

from datetime import date
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides
from zope.interface.verify import verifyObject

from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.certificates import NAMES, CertificateChecker, CertificateRule, CertificateRules
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.passwords import Passwords
from digipoort_msa.accounts.realm import Realm, RealmRules, Realms
from digipoort_msa.accounts.throttle import Throttle
from digipoort_msa.accounts.usage import Usage
from digipoort_msa.config.certificate import Certificate as CertificateTable
from digipoort_msa.interfaces import INamelessStore, Throttled, Unavailable
from digipoort_msa.sasl.certificate import ClientCertificate
from digipoort_msa.sasl.credentials import CertificateCredential
from digipoort_msa.sasl.mechanism import Channel
from digipoort_msa.sasl.registry import MECHANISMS
from tests.account_doubles import (
    CountingHashing,
    Inline,
    MemoryStore,
    Submitter,
    account,
    password_credential,
)
from tests.requirements import proves

HERE = "192.0.2.1"


def rule(name: str, pattern: str, means: str, **more: str) -> CertificateRule:
    return CertificateRule(name=name, pattern=pattern, account=means, **more)


def certificate(**names: Any) -> ClientCertificate:
    return ClientCertificate(**{"subject": "CN=x", "issuer": "CN=CA", **names})


class RuleTests(SynchronousTestCase):
    def accounts(self, name: str, pattern: str, means: str, **names: Any) -> set[str]:
        return set(rule(name, pattern, means).accounts(certificate(**names)))

    def test_the_names_are_those_of_the_settings(self) -> None:
        self.assertEqual(tuple(NAMES), get_args(CertificateTable.model_fields["field"].annotation))

    def test_literal(self) -> None:
        for name, names, value in (
            ("common-name", {"common_names": ("b",)}, "b"),
            ("serial-number", {"serial_numbers": ("00000001234567890000",)}, "00000001234567890000"),
            ("organization-identifier", {"organization_identifiers": ("NTRNL-1",)}, "NTRNL-1"),
            ("san-email", {"emails": ("b@c.nl",)}, "b@c.nl"),
            ("san-dns", {"dns_names": ("b.nl",)}, "b.nl"),
            ("san-uri", {"uris": ("urn:b",)}, "urn:b"),
            ("subject", {"subject": "CN=b"}, "CN=b"),
            ("fingerprint", {"fingerprint": "0a" * 32}, ":".join(["0A"] * 32)),
        ):
            self.assertEqual(self.accounts(name, value, "a", **names), {"a"}, name)
            self.assertEqual(self.accounts(name, value, "a"), set(), name)
            self.assertEqual(self.accounts(name, f"{value}0", "a", **names), set(), name)
            self.assertEqual(self.accounts(name, value[1:], "a", **names), set(), name)

    def test_a_star(self) -> None:
        emails = ("piet@clients.example.nl", "jan@other.example.nl")
        self.assertEqual(self.accounts("san-email", "*@clients.example.nl", "*", emails=emails), {"piet"})
        self.assertEqual(self.accounts("san-email", "*@clients.example.nl", "team", emails=emails), {"team"})
        self.assertEqual(self.accounts("san-uri", "urn:oin:*", "oin-*", uris=("urn:oin:12",)), {"oin-12"})
        self.assertEqual(
            self.accounts("common-name", "*", "*", common_names=("Bedrijf B.V.",)), {"Bedrijf B.V."}
        )

    def test_a_star_is_something_and_stays_within_one_part(self) -> None:
        for name, pattern, names in (
            ("san-email", "*@example.nl", {"emails": ("@example.nl", "a@b@example.nl", "a@example.nl.evil")}),
            ("san-email", "a@*", {"emails": ("a@", "a@b@c")}),
            ("san-dns", "*.example.nl", {"dns_names": (".example.nl", "a.b.example.nl", "example.nl")}),
            (
                "san-uri",
                "https://example.nl/*",
                {"uris": ("https://example.nl/a/b", "https://example.nl/?a")},
            ),
            ("subject", "CN=*,O=Us", {"subject": "CN=a,OU=b,O=Us"}),
            ("subject", "CN=*,O=Us", {"subject": "CN=a\\,O=Us,O=Us"}),
            ("subject", "CN=*,O=Us", {"subject": "CN=a+UID=b,O=Us"}),
            ("common-name", "aa*aa", {"common_names": ("aaa",)}),
        ):
            self.assertEqual(self.accounts(name, pattern, "*", **names), set(), (name, pattern))

    def test_case(self) -> None:
        """A domain's does not matter (RFC 4343); all other does."""
        self.assertEqual(
            self.accounts("san-email", "*@Example.NL", "*", emails=("Piet@eXample.nl",)), {"Piet"}
        )
        self.assertEqual(
            self.accounts("san-email", "piet@example.nl", "a", emails=("PIET@example.nl",)), set()
        )
        self.assertEqual(
            self.accounts("san-dns", "*.Example.nl", "*", dns_names=("MSA.example.NL",)), {"msa"}
        )
        self.assertEqual(self.accounts("common-name", "piet", "a", common_names=("Piet",)), set())

    def test_two_names_of_a_subject_are_none(self) -> None:
        """Which of them the authority has looked at, nobody knows."""
        for name, names in (
            ("common-name", "common_names"),
            ("serial-number", "serial_numbers"),
            ("organization-identifier", "organization_identifiers"),
        ):
            self.assertEqual(self.accounts(name, "a", "a", **{names: ("a", "b")}), set())
            self.assertEqual(self.accounts(name, "a", "a", **{names: ("a", "a")}), set())

    def test_a_wildcard_names_no_host(self) -> None:
        for pattern in ("*", "*.example.nl"):
            self.assertEqual(self.accounts("san-dns", pattern, "a", dns_names=("*.example.nl",)), set())

    def test_empty_names(self) -> None:
        names = {"common_names": ("",), "emails": ("",), "uris": ("",), "subject": "", "fingerprint": ""}
        for name in NAMES:
            self.assertEqual(self.accounts(name, "*", "a", **names), set(), name)

    def test_the_issuer(self) -> None:
        of_one = rule("common-name", "*", "*", issuer="CN=One CA,O=Us")
        for issuer, found in (("CN=One CA,O=Us", {"b"}), ("CN=One CA,O=us", set()), ("", set())):
            self.assertEqual(of_one.accounts(certificate(common_names=("b",), issuer=issuer)), found)

    @given(st.text(max_size=8), st.text("ab.@*,", max_size=8))
    def test_what_a_star_stood_for_makes_the_name_again(self, start: str, value: str) -> None:
        pattern = start.replace("*", "") + "*"
        for found in self.accounts("common-name", pattern, "*", common_names=(value,)):
            self.assertEqual(pattern.replace("*", found), value)


class RulesTests(SynchronousTestCase):
    def account_of(self, *rules: CertificateRule, **names: Any) -> str:
        return CertificateRules("one.nl", rules).account_of(certificate(**names))

    def refused(self, *rules: CertificateRule, **names: Any) -> str:
        error: UnauthorizedLogin = self.assertRaises(UnauthorizedLogin, self.account_of, *rules, **names)
        return str(error)

    def test_all_but_the_issuer(self) -> None:
        of_one = rule("common-name", "*", "*", issuer="CN=CA,O=Us")
        self.assertEqual(
            self.refused(of_one, common_names=("b",), issuer="O=Us,CN=CA"),
            "no rule of realm one.nl fits the certificate of CN=x: its issuer is O=Us,CN=CA, where a rule "
            "has CN=CA,O=Us",
        )

    def test_the_first_that_fits(self) -> None:
        rules = (
            rule("san-dns", "a.nl", "first"),
            rule("san-email", "*@a.nl", "*"),
            rule("subject", "*", "last"),
        )
        self.assertEqual(self.account_of(*rules, dns_names=("a.nl",), emails=("b@a.nl",)), "first")
        self.assertEqual(self.account_of(*rules, emails=("b@a.nl",)), "b")
        self.assertEqual(self.account_of(*rules), "last")
        self.assertIn("no rule of realm one.nl fits", self.refused(*rules[:2]))

    def test_two_accounts_are_none(self) -> None:
        """And the rules behind it are not asked: the certificate did fit."""
        by_email, last = rule("san-email", "*@a.nl", "*"), rule("subject", "*", "last")
        self.assertIn("more than one account", self.refused(by_email, last, emails=("b@a.nl", "c@a.nl")))
        self.assertEqual(self.account_of(by_email, last, emails=("b@a.nl", "b@A.nl", "c@d.nl")), "b")
        self.assertEqual(self.account_of(rule("san-email", "*@a.nl", "t"), emails=("b@a.nl", "c@a.nl")), "t")

    def test_the_realm_in_a_name(self) -> None:
        """As in every login: ``piet@one.nl`` is piet of one.nl."""
        self.assertEqual(self.account_of(rule("san-email", "*", "*"), emails=("piet@ONE.nl",)), "piet")
        self.assertEqual(self.account_of(rule("san-email", "*", "*"), emails=("piet@two.nl",)), "piet@two.nl")

    @proves("A4")
    def test_what_only_looks_like_a_name(self) -> None:
        """By SASLprep the first of these would be mijnbedrijf; an authority may not know that it is."""
        for name in ("ｍijnbedrijf", "mijn\u00adbedrijf", "a\u0378", "x" * 1025, "mijn\u2060bedrijf"):
            words = self.refused(rule("common-name", "*", "*"), common_names=(name,))
            self.assertIn("no account's name", words)
        cyrillic = self.account_of(rule("common-name", "*", "*"), common_names=("mіjnbedrijf",))
        self.assertNotEqual(cyrillic, "mijnbedrijf")


class CheckerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryStore(account("piet"), account("old", status=Status.EXPIRED), mechanisms=())
        store = GuardedStore(self.store, "one.nl", Clock())
        rules = CertificateRules("one.nl", [rule("common-name", "*", "*")])
        self.checker = CertificateChecker("one.nl", store, rules)

    def check(self, username: str, name: str) -> Any:
        return self.checker.requestAvatarId(
            CertificateCredential(username, certificate(common_names=(name,)))  # type: ignore[arg-type]
        )

    def test_interface(self) -> None:
        verifyObject(ICredentialsChecker, self.checker)

    def test_right(self) -> None:
        for username in ("", "piet", "piet@one.nl", "piet@ONE.NL"):
            self.assertEqual(self.successResultOf(self.check(username, "piet")).name, "piet")

    def test_wrong(self) -> None:
        for username, name, words in (
            ("jan", "piet", "may not act for another"),
            ("piet@two.nl", "piet", "may not act for another"),
            ("piet", "jan", "may not act for another"),
            ("", "jan", "there is no such account: jan"),
            ("", "old", "the account is expired: old"),
        ):
            failure = self.failureResultOf(self.check(username, name), UnauthorizedLogin)
            self.assertIn(words, failure.getErrorMessage())

    def test_another_is_not_even_looked_up(self) -> None:
        self.store.failure = Unavailable("down")
        self.failureResultOf(self.check("jan", "piet"), UnauthorizedLogin)
        self.failureResultOf(self.check("piet", "piet"), Unavailable)


class RealmsTests(SynchronousTestCase):
    """Two realms with rules, and one that lists EXTERNAL without."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.hashing = CountingHashing()
        self.passwords = Passwords(self.hashing, Inline(), VerifiedPasswords(self.clock.seconds))
        one = MemoryStore(account("piet", "one.nl", password_hash=self.hashing.hash("een")))
        two = MemoryStore(account("piet", "two.nl"), account("jan", "two.nl"))
        self.usage = Usage(lambda: 1.0)
        throttle = Throttle(self.clock.seconds, per_account_and_source=2, longest_delay=0)
        self.realms = Realms(
            [
                self.realm("one.nl", ("PLAIN", "EXTERNAL"), one, rule("san-email", "*@one.example", "*")),
                self.realm("two.nl", ("EXTERNAL",), two, rule("common-name", "*", "*")),
                self.realm("three.nl", ("EXTERNAL",), two),
                self.realm("four.nl", ("PLAIN",), two, rule("common-name", "*", "*")),
            ],
            throttle,
            self.clock,
            MECHANISMS,
            b"nobody",
            self.usage,
        )

    def realm(self, name: str, mechanisms: Any, store: MemoryStore, *rules: CertificateRule) -> Realm:
        settings = RealmRules(name=name, mechanisms=frozenset(mechanisms), certificates=rules)
        guarded = GuardedStore(store, name, self.clock)
        return Realm(settings, guarded, self.passwords, Submitter, self.clock, lambda: date(2026, 1, 5))

    def login(self, username: str, **names: Any) -> Any:
        credential = CertificateCredential(username, certificate(**names))
        return self.realms.login(credential, HERE, "EXTERNAL")

    def who(self, username: str, **names: Any) -> tuple[str, str]:
        submitter = self.successResultOf(self.login(username, **names))
        return submitter.account, submitter.realm

    def test_offered_where_it_stands_for_somebody(self) -> None:
        for names, shown in (
            ({"emails": ("piet@one.example",)}, True),
            (
                {"common_names": ("nobody at all",)},
                True,
            ),  # whether there is such an account, EHLO does not tell
            ({"emails": ("piet@other.example",)}, False),
            ({"emails": ("piet@one.example", "jan@one.example")}, False),
            ({}, False),
        ):
            offered = self.realms.offered(Channel(certificate=certificate(**names)))
            self.assertEqual(offered, ("EXTERNAL", "PLAIN") if shown else ("PLAIN",), names)
        self.assertEqual(self.realms.offered(Channel()), ("PLAIN",))
        self.assertEqual(self.realms.offered(None), ())
        both = Channel(certificate=certificate(common_names=("piet",)))
        self.assertEqual(self.realms.offered(both, frozenset({"PLAIN"})), ("PLAIN",))
        self.assertEqual(self.realms.offered(both, frozenset({"EXTERNAL"})), ("EXTERNAL",))
        self.assertEqual(self.realms.realms_offering("EXTERNAL"), ("one.nl", "two.nl"))

    def test_the_first_realm_that_knows_it(self) -> None:
        self.assertEqual(self.who("", emails=("piet@one.example",)), ("piet", "one.nl"))
        self.assertEqual(self.who("", common_names=("piet",)), ("piet", "two.nl"))
        both = {"emails": ("piet@one.example",), "common_names": ("jan",)}
        self.assertEqual(self.who("", **both), ("piet", "one.nl"))
        self.assertEqual(self.who("piet", **both), ("piet", "one.nl"))
        self.assertEqual(self.who("jan@two.nl", **both), ("jan", "two.nl"))

    def test_a_store_that_knows_no_names(self) -> None:
        """Whatever mechanisms it says it has: it would give an account for any name."""
        store = MemoryStore(account("piet", "five.nl"), mechanisms=["PLAIN", "EXTERNAL"])
        knowing = self.realm("five.nl", ("EXTERNAL",), store, rule("common-name", "*", "*"))
        alsoProvides(store, INamelessStore)
        nameless = self.realm("five.nl", ("EXTERNAL",), store, rule("common-name", "*", "*"))
        piet = certificate(common_names=("piet",))
        for realm, knows in ((knowing, True), (nameless, False)):
            self.assertEqual((realm.offers("EXTERNAL"), realm.knows(piet)), (knows, knows))

    def test_no_other_realm(self) -> None:
        """The same name elsewhere is somebody else's."""
        for username in ("piet@one.nl", "jan@one.nl", "piet@three.nl", "piet@four.nl"):
            self.failureResultOf(self.login(username, common_names=("piet",)), UnauthorizedLogin)
        self.failureResultOf(self.login("jan", emails=("piet@one.example",)), UnauthorizedLogin)
        self.failureResultOf(self.login(""), UnauthorizedLogin)

    @proves("A8")
    def test_nothing_is_counted(self) -> None:
        """Failures shut nobody out, and strangers' failures do not shut out who has a certificate."""
        for _ in range(5):
            self.failureResultOf(self.login("jan", emails=("piet@one.example",)), UnauthorizedLogin)
            self.failureResultOf(self.login("", common_names=("nobody",)), UnauthorizedLogin)
        for _ in range(2):
            wrong = self.realms.login(password_credential("piet", "fout"), HERE, "PLAIN")
            self.failureResultOf(wrong, UnauthorizedLogin)
        right = self.realms.login(password_credential("piet", "een"), HERE, "PLAIN")
        self.failureResultOf(right, Throttled)
        self.assertEqual(self.who("", emails=("piet@one.example",)), ("piet", "one.nl"))

    def test_its_use_is_noted(self) -> None:
        self.who("", emails=("piet@one.example",))
        self.assertEqual(list(self.usage.take()), [("one.nl", "piet", "EXTERNAL")])

    def test_a_password_is_no_certificate(self) -> None:
        login = self.realms.login(password_credential("piet@two.nl", "een"), HERE, "PLAIN")
        self.failureResultOf(login, UnauthorizedLogin)
