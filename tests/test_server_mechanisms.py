"""EHLO shows exactly what can succeed here and now, and AUTH takes exactly that."""

import base64
import re
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.certificates import CertificateRule
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.passwords import Passwords
from digipoort_msa.accounts.realm import Realm, RealmRules, Realms
from digipoort_msa.accounts.throttle import Throttle
from digipoort_msa.sasl.digest_md5 import digest_secrets
from digipoort_msa.sasl.registry import MECHANISMS
from digipoort_msa.smtp import reply
from tests.account_doubles import CountingHashing, Inline, MemoryStore, Submitter, account
from tests.client_authority import ClientAuthority, common_name
from tests.digest_client import respond
from tests.msa import ClockTestCase, Wire
from tests.msa_client import ACCOUNT, PASSWORD, b64
from tests.requirements import proves

LAST_DAY = date(2027, 12, 31)
DAY = timedelta(days=1)
EVERY = frozenset(MECHANISMS)
RULES = {
    "one.nl": CertificateRule(name="common-name", pattern="one-*", account="*"),
    "two.nl": CertificateRule(name="common-name", pattern="*", account="*"),
}
SWITCHED_OFF = reply.MECHANISM_SWITCHED_OFF.octets.decode()
UNKNOWN = reply.UNKNOWN_MECHANISM.octets.decode()
RETIRED = reply.MECHANISM_RETIRED.octets.decode()
INVALID = reply.INVALID_CREDENTIALS.octets.decode()

_authority = ClientAuthority()
_certificates = {
    None: None,
    **{name: _authority.issue(common_name(name)).certificate for name in ("one-mijnbedrijf", "mijnbedrijf")},
}
_subsets = st.frozensets(st.sampled_from(sorted(EVERY)))


class MechanismsTestCase(ClockTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.today = LAST_DAY
        self.passwords = Passwords(CountingHashing(), Inline(), VerifiedPasswords(self.clock.seconds))  # type: ignore[arg-type]

    def realm(
        self,
        name: str,
        listed: Iterable[str] = EVERY,
        can: Iterable[str] = EVERY,
        until: date | None = None,
        account_until: date | None = None,
    ) -> Realm:
        """:param can: what its store can verify."""
        secrets = tuple(digest_secrets(ACCOUNT, name, PASSWORD))
        one = account(ACCOUNT, name, digest_secrets=secrets, digest_until=account_until)
        store = GuardedStore(MemoryStore(one, mechanisms=can), name, self.clock)
        rules = RealmRules(
            name=name,
            mechanisms=frozenset(listed),
            digest_until=until,
            certificates=(RULES[name],) if name in RULES else (),
        )
        return Realm(rules, store, self.passwords, Submitter, self.clock, lambda: self.today)

    def realms(self, *realms: Realm, allowed: frozenset[str] | None = None) -> None:
        throttle = Throttle(self.clock.seconds, longest_delay=0)
        session = {"errors": 1000, "authentication_failures": 1000}
        made = Realms(realms, throttle, self.clock, MECHANISMS, b"nobody")
        self.server(realms=made, session=session).mechanisms = allowed

    def fresh(self, **options: Any) -> Wire:
        wire = self.connect(**options)
        wire.read()
        return wire

    def shown(self, wire: Wire) -> list[str]:
        lines = re.findall(r"(?m)^250[ -]AUTH ?(.*)\r$", wire.ask("EHLO mijnbedrijf.nl"))
        self.assertLessEqual(len(lines), 1)
        return lines[0].split() if lines else []

    def taken(self, wire: Wire) -> list[str]:
        """The mechanisms that AUTH does not turn down."""
        found = []
        for mechanism in MECHANISMS:
            said = wire.ask(f"AUTH {mechanism}")
            if not said.startswith("504 5.5.4 "):
                self.assertTrue(said.startswith("334 "), said)
                self.assertTrue(wire.ask("*").startswith("501 5.7.0 "))
                found.append(mechanism)
        return found


class AgreementTests(MechanismsTestCase):
    @proves("T2", "T3", "A6", "A7")
    @settings(max_examples=120, deadline=None)
    @given(
        st.tuples(_subsets, _subsets, st.none() | st.sampled_from([LAST_DAY - DAY, LAST_DAY])),
        st.tuples(_subsets, _subsets, st.none() | st.sampled_from([LAST_DAY - DAY, LAST_DAY])),
        st.none() | _subsets,
        st.sampled_from(sorted(_certificates, key=str)),
    )
    def test_any_settings(
        self, one: Any, two: Any, allowed: frozenset[str] | None, shows: str | None
    ) -> None:
        self.realms(self.realm("one.nl", *one), self.realm("two.nl", *two), allowed=allowed)
        expected = set()
        for name, (listed, can, until) in (("one.nl", one), ("two.nl", two)):
            offers = set(listed & can) - {"EXTERNAL"}
            knows = shows is not None and (name == "two.nl" or shows.startswith("one-"))
            offers |= {"EXTERNAL"} & listed if knows else set()
            expected |= offers - ({"DIGEST-MD5"} if until and until < self.today else set())
        expected &= EVERY if allowed is None else allowed

        wire = self.fresh(certificate=_certificates[shows])
        shown = self.shown(wire)
        self.assertEqual(shown, [name for name in MECHANISMS if name in expected])
        self.assertEqual(self.taken(wire), shown)

        clear = self.fresh(secure=False)
        self.assertEqual(self.shown(clear), ["DIGEST-MD5"] if "DIGEST-MD5" in expected else [])
        for name in MECHANISMS:
            self.assertTrue(clear.ask(f"AUTH {name}").startswith("530 5.7.0 "))


class ExternalTests(MechanismsTestCase):
    def external(self, *lines: str, certificate: str = "mijnbedrijf", **rules: Any) -> list[str]:
        self.realms(self.realm("two.nl", ["EXTERNAL", "PLAIN"], **rules))
        wire = self.fresh(certificate=_certificates[certificate])
        return [wire.ask(line) for line in lines]

    @proves("A2", "A6")
    def test_on_the_wire(self) -> None:
        """RFC 4422 appendix A: ``=`` is the empty authzid (RFC 4954 4); without any, there is a challenge."""
        for lines in (
            ("AUTH EXTERNAL =",),
            ("AUTH EXTERNAL", ""),
            (f"AUTH EXTERNAL {b64(ACCOUNT.encode())}",),
            ("AUTH EXTERNAL", b64(f"{ACCOUNT}@two.nl".encode())),
        ):
            *before, last = self.external(*lines)
            self.assertEqual(before, ["334 \r\n"] * len(before))
            self.assertEqual(last, "235 2.7.0 Authentication successful\r\n")
        told = self.events("authenticated")[-1]
        self.assertEqual((told["account"], told["realm"], told["mechanism"]), (ACCOUNT, "two.nl", "EXTERNAL"))

    def test_an_answer_with_an_equals_sign(self) -> None:
        """``=`` is empty in an initial response only."""
        self.assertEqual(self.external("AUTH EXTERNAL", "=")[-1][:9], "501 5.5.2")

    @proves("A5")
    def test_nobody_else(self) -> None:
        for authzid in (b"other", b"mijnbedrijf@one.nl", b"\xc2\xad"):
            self.assertEqual(self.external(f"AUTH EXTERNAL {b64(authzid)}"), [INVALID])
        self.assertEqual(self.external("AUTH EXTERNAL =", certificate="one-mijnbedrijf"), [INVALID])
        self.assertIn("no such account", self.events("not-authenticated")[-1]["reason"])

    def test_cancelled(self) -> None:
        self.assertEqual(self.external("AUTH EXTERNAL", "*")[-1][:9], "501 5.7.0")

    def test_the_log_says_what_came_through(self) -> None:
        self.external("NOOP")
        (told,) = self.events("client-certificate")
        self.assertEqual((told["subject"], told["external"]), ("CN=mijnbedrijf", "is offered"))
        for realm, allowed, why in (
            ("one.nl", None, "no rule of realm one.nl fits the certificate of CN=mijnbedrijf"),
            ("other.nl", None, "no realm takes certificates"),
            ("two.nl", frozenset({"PLAIN"}), "the listener's mechanisms leave it out"),
        ):
            self.realms(self.realm(realm), allowed=allowed)
            self.fresh(certificate=_certificates["mijnbedrijf"])
            told = self.events("client-certificate")[-1]
            self.assertEqual(told["external"], f"is not offered: {why}")

    @proves("L3")
    def test_a_certificate_that_expires_while_the_connection_is_open(self) -> None:
        """EHLO and AUTH look at it each time; the log says it once."""
        self.realms(self.realm("two.nl", ["EXTERNAL", "PLAIN"]))
        certificate = _certificates["mijnbedrijf"]
        assert certificate is not None
        wire = self.fresh(certificate=certificate)
        end = certificate.not_valid_after_utc.timestamp()
        self.factory.now = lambda: end - 1
        self.assertEqual(self.shown(wire), ["EXTERNAL", "PLAIN"])
        self.factory.now = lambda: end
        self.assertEqual(wire.ask("AUTH EXTERNAL ="), UNKNOWN)
        self.assertEqual(self.shown(wire), ["PLAIN"])
        (told,) = self.events("client-certificate-unusable")
        self.assertIn("has expired at", told["reason"])

    def test_a_certificate_that_names_nobody(self) -> None:
        self.realms(self.realm("two.nl"))
        wire = self.fresh(certificate=_authority.issue(common_name("mijnbedrijf\0.evil")).certificate)
        self.assertNotIn("EXTERNAL", self.shown(wire))
        self.assertEqual(len(self.events("client-certificate-unusable")), 1)


class RetirementTests(MechanismsTestCase):
    def begin(self, wire: Wire) -> bytes:
        return base64.b64decode(wire.ask("AUTH DIGEST-MD5")[4:])

    def answer(self, challenge: bytes, password: str = PASSWORD) -> str:
        return b64(respond(challenge, ACCOUNT, password, "smtp/localhost"))

    @proves("T2", "T3")
    def test_the_day_after(self) -> None:
        self.realms(self.realm("one.nl", ["DIGEST-MD5", "PLAIN"], until=LAST_DAY))
        for today, shown, in_clear in (
            (LAST_DAY, ["DIGEST-MD5", "PLAIN"], ["DIGEST-MD5"]),
            (LAST_DAY + DAY, ["PLAIN"], []),
        ):
            self.today = today
            self.assertEqual(self.shown(self.fresh()), shown)
            self.assertEqual(self.shown(self.fresh(secure=False)), in_clear)

    def test_auth_says_so(self) -> None:
        self.realms(self.realm("one.nl", ["DIGEST-MD5", "PLAIN"], until=LAST_DAY - DAY))
        wire = self.fresh()
        self.assertEqual(wire.ask("AUTH DIGEST-MD5"), SWITCHED_OFF)
        self.assertIn("switched off", self.events("refused")[-1]["reply"])
        self.assertEqual(wire.ask("AUTH LOGIN"), UNKNOWN)

    def test_auth_says_nothing_of_what_never_was(self) -> None:
        for realm, allowed in (
            (self.realm("one.nl", ["PLAIN"], until=LAST_DAY - DAY), None),
            (self.realm("one.nl", can=["PLAIN"], until=LAST_DAY - DAY), None),
            (self.realm("one.nl", until=LAST_DAY - DAY), frozenset({"PLAIN"})),
        ):
            self.realms(realm, allowed=allowed)
            self.assertEqual(self.fresh().ask("AUTH DIGEST-MD5"), UNKNOWN)

    def test_one_realm_of_two(self) -> None:
        """The challenge names the other alone."""
        self.realms(self.realm("one.nl", until=LAST_DAY - DAY), self.realm("two.nl", until=LAST_DAY))
        wire = self.fresh()
        self.assertIn("DIGEST-MD5", self.shown(wire))
        challenge = self.begin(wire)
        self.assertEqual(re.findall(rb'realm="([^"]*)"', challenge), [b"two.nl"])
        forged = challenge.replace(b"two.nl", b"one.nl")
        self.assertEqual(wire.ask(self.answer(forged)), INVALID)
        self.assertTrue(wire.ask(self.answer(self.begin(wire))).startswith("334 "))

    def test_midnight_in_a_connection(self) -> None:
        """EHLO and AUTH look each time."""
        self.realms(self.realm("one.nl", ["DIGEST-MD5", "PLAIN"], until=LAST_DAY))
        wire, clear = self.fresh(), self.fresh(secure=False)
        self.assertEqual((self.shown(wire), self.shown(clear)), (["DIGEST-MD5", "PLAIN"], ["DIGEST-MD5"]))
        self.today += DAY
        self.assertEqual(wire.ask("AUTH DIGEST-MD5"), SWITCHED_OFF)
        self.assertEqual((self.shown(wire), self.shown(clear)), (["PLAIN"], []))

    def test_midnight_in_an_exchange(self) -> None:
        """Who knows the password is told; who does not, hears what he always hears."""
        self.realms(self.realm("one.nl", ["DIGEST-MD5", "PLAIN"], until=LAST_DAY))
        for password, said in ((PASSWORD, RETIRED), ("fout", INVALID)):
            self.today = LAST_DAY
            wire = self.fresh()
            challenge = self.begin(wire)
            self.today += DAY
            self.assertEqual(wire.ask(self.answer(challenge, password)), said)
            self.assertEqual(wire.ask("MAIL FROM:<a@b.nl>")[:9], "530 5.7.0")
        told = [event["reason"] for event in self.events("not-authenticated")]
        self.assertEqual(told[0], "DIGEST-MD5 is switched off for this account; its last day was 2027-12-31")

    def test_an_account_of_its_own_date(self) -> None:
        """It comes only after the proof, and DIGEST-MD5 is shown: others have it still."""
        self.realms(self.realm("one.nl", account_until=LAST_DAY - DAY))
        wire = self.fresh()
        self.assertIn("DIGEST-MD5", self.shown(wire))
        self.assertEqual(wire.ask(self.answer(self.begin(wire), "fout")), INVALID)
        self.assertEqual(wire.ask(self.answer(self.begin(wire))), RETIRED)
        self.today -= DAY
        self.assertTrue(wire.ask(self.answer(self.begin(wire))).startswith("334 "))
