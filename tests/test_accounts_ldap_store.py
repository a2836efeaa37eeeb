"""The ``ldap`` store: the contract over a real slapd, and what is of a directory alone."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.trial.unittest import TestCase

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.ldap.directory import Login
from digipoort_msa.accounts.ldap.entry import Attributes
from digipoort_msa.accounts.ldap.store import LDAPAccountStore
from digipoort_msa.interfaces import Unavailable
from digipoort_msa.testing import AccountDescription, AccountStoreContract
from tests.ldap_realm import ATTRIBUTES, REALM, LDAPRealm
from tests.ldap_server import BIND, SEARCH, LDAPServer, control, entry, reference, referral, result
from tests.requirements import proves

PIET = AccountDescription(name="piet", password="geheim")


class StoreContract(AccountStoreContract, TestCase):
    """A search, and a bind over a connection of its own."""

    realm = REALM
    verifies = True

    def make_store(self, accounts: Sequence[AccountDescription]) -> LDAPAccountStore:
        self.ldap = LDAPRealm()
        self.ldap.hold(accounts)
        return self.ldap.store()

    def change(self, accounts: Sequence[AccountDescription]) -> None:
        self.ldap.hold(accounts)

    def make_dead_store(self) -> LDAPAccountStore:
        return LDAPRealm().store("ldapi:///nowhere/ldapi")

    def scripted(self, *script: Any) -> LDAPAccountStore:
        server = LDAPServer(*script)
        self.addCleanup(server.stop)
        return LDAPRealm().store(server.url, in_clear=True, login=Login(), connect_seconds=0.3, seconds=0.3)

    def make_slow_store(self) -> LDAPAccountStore:
        return self.scripted(lambda asked: None)

    def make_lying_stores(self) -> Mapping[str, LDAPAccountStore]:
        found = entry("cn=a", uid="piet")
        lies = {
            "another account's entry": lambda asked: [entry("cn=b", uid="jan"), result(asked)],
            "an entry without a name": lambda asked: [entry("cn=b"), result(asked)],
            "an entry without a DN": lambda asked: [entry("", uid="piet"), result(asked)],
            "two entries": lambda asked: [found, entry("cn=b", uid="piet"), result(asked)],
            "an entry, and an error": lambda asked: [found, result(asked, 80)],
            "a referral": lambda asked: [referral(asked)],
            "success of something else": lambda asked: [result(0x78)],
            "success of another request": lambda asked: [(77, result(asked))],
            "half a message": lambda asked: [b"\x30\x84\x00\x00"],
            "nonsense": lambda asked: [b"\xff" * 100],
            "a message of 4 GiB": lambda asked: [b"\x30\x84\xff\xff\xff\xff" + bytes(1000)],
            "a greeting of another protocol": lambda asked: [b"220 mail.example.nl ESMTP\r\n"],
        }
        return {lie: self.scripted(script) for lie, script in lies.items()}


class SlapdCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.ldap = LDAPRealm()
        self.slapd = self.ldap.slapd

    def store(self, **options: Any) -> LDAPAccountStore:
        store = self.ldap.store(**options)
        self.addCleanup(store.stop)
        return store

    async def found(self, store: LDAPAccountStore, name: str = "piet") -> Account:
        account = await store.account(name)
        assert account is not None
        return account

    async def unavailable(self, store: LDAPAccountStore, name: str = "piet") -> str:
        with self.assertRaises(Unavailable) as caught:
            await store.account(name)
        return str(caught.exception)


class SlapdTests(SlapdCase):
    """What a directory can hold."""

    async def test_two_entries(self) -> None:
        one, two = (self.ldap.add(uid=uid, userPassword="geheim") for uid in ("piet", "Piet"))
        said = await self.unavailable(self.store())
        for dn in (one, two):
            self.assertIn(dn, said)
        self.ldap.add(uid="PIET")
        self.assertIn("more than 2 entries", await self.unavailable(self.store()))

    async def test_settings_that_are_wrong(self) -> None:
        self.ldap.add(uid="piet", userPassword="geheim")
        for options, says in (
            ({"base": "ou=none,dc=example,dc=nl"}, "there is no ou=none,dc=example,dc=nl"),
            ({"base": "nonsense"}, "Invalid DN syntax"),
            ({"base": "dc=elsewhere"}, "dc=elsewhere"),
            ({"filter": "(uid={name}"}, "Bad search filter"),
            ({"filter": "(sn=account)", "attributes": Attributes(name="cn")}, "whose cn is another"),
        ):
            self.assertIn(says, await self.unavailable(self.store(**options)))

    async def test_an_attribute_by_its_number(self) -> None:
        """The directory answers with its name; that the account has expired was overlooked."""
        self.ldap.add(uid="piet", userPassword="geheim", msaExpires="20200101000000Z")
        store = self.store(attributes=Attributes(expiry="1.3.6.1.4.1.99999.2"))
        self.assertIn("came with msaexpires", await self.unavailable(store))

    async def test_scope(self) -> None:
        self.slapd.add(f"ou=deep,{self.ldap.people}", {"objectClass": "organizationalUnit"})
        self.slapd.add(
            f"cn=jan,ou=deep,{self.ldap.people}",
            {"objectClass": "inetOrgPerson", "sn": "a", "uid": "jan"},
        )
        await self.found(self.store(), "jan")
        self.assertIsNone(await self.store(scope="one").account("jan"))

    async def test_filter(self) -> None:
        """What the operator's filter leaves out is unknown."""
        self.ldap.add(uid="piet", employeeType="msa")
        self.ldap.add(uid="jan")
        store = self.store(filter="(&(employeeType=msa)(|(uid={name})(cn={name})))")
        await self.found(store)
        self.assertIsNone(await store.account("jan"))

    async def test_a_name_in_parts_of_a_filter(self) -> None:
        """A name is a value, whatever it looks like; what is not there stays so."""
        self.ldap.add(uid="piet", userPassword="geheim")
        store = self.store(filter="(&(objectClass=inetOrgPerson)(!(uid=x{name}))(uid={name}))")
        await self.found(store)
        for name in (
            "*",
            "p*",
            "piet)(uid=*",
            "*)(|(uid=*",
            "piet\\2a",
            "\\70iet",
            "{name}",
            "{dn}",
            "piet\0",
        ):
            self.assertIsNone(await store.account(name), name)

    async def test_group_search(self) -> None:
        """Members are compared as names: an account whose name is a filter has its own groups."""
        piet = self.ldap.add(uid="piet")
        odd = f"cn=*)(member\\=*,{self.ldap.people}"
        self.slapd.add(odd, {"objectClass": "inetOrgPerson", "sn": "a", "uid": "odd"})
        for group, members in (("one", [piet]), ("two", [piet, odd]), ("three", [odd])):
            dn = f"cn={group},{self.ldap.groups}"
            self.slapd.add(dn, {"objectClass": "groupOfNames", "member": members})
        store = self.store(
            groups_base=self.ldap.groups, groups_filter="(&(objectClass=groupOfNames)(member={dn}))"
        )
        self.assertEqual((await self.found(store)).groups, {"one", "two"})
        self.assertEqual((await self.found(store, "odd")).groups, {"two", "three"})
        self.assertIn("no ou=none", await self.unavailable(self._without_groups()))

    def _without_groups(self) -> LDAPAccountStore:
        return self.store(groups_base=f"ou=none,{self.ldap.branch}", groups_filter="(member={dn})")

    async def test_member_of(self) -> None:
        piet = self.ldap.add(uid="piet")
        for base, group in ((self.ldap.groups, "businesses"), (self.ldap.people, "others")):
            self.slapd.add(f"cn={group},{base}", {"objectClass": "groupOfNames", "member": piet})
        named = Attributes(groups="memberOf", groups_base=self.ldap.groups)
        self.assertEqual((await self.found(self.store(attributes=named))).groups, {"businesses"})
        whole = (await self.found(self.store(attributes=Attributes(groups="memberOf")))).groups
        self.assertEqual(whole, {f"cn=businesses,{self.ldap.groups}", f"cn=others,{self.ldap.people}"})

    async def test_revision(self) -> None:
        """It is another one with each change of the entry."""
        dn = self.ldap.add(uid="piet", userPassword="geheim")
        store = self.store()
        first = (await self.found(store)).revision
        self.assertTrue(first)
        self.assertEqual((await self.found(store)).revision, first)
        self.slapd.change(dn, {"userPassword": "anders"})
        self.assertNotEqual((await self.found(store)).revision, first)
        without = self.store(attributes=Attributes(revision=("entryUUID", "whenChanged")))
        self.assertEqual((await self.found(without)).revision, "")

    async def test_no_password(self) -> None:
        self.ldap.add(uid="piet")
        store = self.store()
        self.assertIs(await store.verify(await self.found(store), "geheim"), False)

    async def test_gone_meanwhile(self) -> None:
        dn = self.ldap.add(uid="piet", userPassword="geheim")
        store = self.store()
        found = await self.found(store)
        self.slapd.delete(dn)
        self.assertIs(await store.verify(found, "geheim"), False)
        self.assertIsNone(await store.account("piet"))
        self.ldap._held.clear()

    async def test_another_stores_account(self) -> None:
        account = Account(name="piet", realm=REALM, status=Status.ACTIVE)
        with self.assertRaises(TypeError):
            await self.store().verify(account, "geheim")

    async def test_references_are_not_followed(self) -> None:
        """They are not in the way either: Active Directory sends them with each answer."""
        server = LDAPServer(lambda asked: None)
        self.addCleanup(server.stop)
        self.slapd.add(
            f"cn=elsewhere,{self.ldap.people}",
            {
                "objectClass": ["referral", "extensibleObject"],
                "cn": "elsewhere",
                "ref": f"{server.url}/dc=nl",
            },
        )
        self.ldap.add(uid="piet", userPassword="geheim")
        store = self.store()
        found = await self.found(store)
        self.assertIs(await store.verify(found, "geheim"), True)
        self.assertIsNone(await store.account("jan"))
        self.assertEqual(server.connections, 0)

    async def test_mechanisms(self) -> None:
        self.assertEqual(self.store(attributes=Attributes()).mechanisms, {"PLAIN", "LOGIN"})
        self.assertEqual(self.store(attributes=ATTRIBUTES).mechanisms, {"PLAIN", "LOGIN", "DIGEST-MD5"})
        scram = self.store(attributes=Attributes(scram="authPassword")).mechanisms
        self.assertEqual(scram, {"PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"})

    async def test_scram_and_digest_keys(self) -> None:
        keys = PIET.scram_keys()
        salt, stored, server = (
            b64encode(each).decode() for each in (keys.salt, keys.stored_key, keys.server_key)
        )
        self.ldap.add(
            uid="piet",
            msaScram=f"SCRAM-SHA-256${keys.iterations}:{salt}${stored}:{server}",
            msaDigest=[secret.hex() for secret in PIET.digest_secrets(REALM)],
        )
        found = await self.found(self.store(attributes=Attributes(scram="msaScram", digest="msaDigest")))
        self.assertEqual(found.scram, keys)
        self.assertEqual(set(found.digest_secrets), set(PIET.digest_secrets(REALM)))


@proves("A7")
class PasswordPolicyTests(SlapdCase):
    """slapd's own password policy (slapo-ppolicy): what it has to say against a login is heard."""

    def setUp(self) -> None:
        super().setUp()
        self.policy = f"cn=policy,{self.ldap.branch}"
        self.slapd.add(
            self.policy,
            {
                "objectClass": ["device", "pwdPolicy"],
                "pwdAttribute": "userPassword",
                "pwdLockout": "TRUE",
                "pwdMaxFailure": "2",
                "pwdMustChange": "TRUE",
                "pwdGraceAuthNLimit": "5",
                "pwdMaxAge": "0",
            },
        )
        self.dn = self.ldap.add(uid="piet", userPassword="geheim", pwdPolicySubentry=self.policy)

    async def verdict(self, password: str = "geheim") -> bool:
        store = self.store()
        return await store.verify(await self.found(store), password)

    async def test_in_order(self) -> None:
        self.assertIs(await self.verdict(), True)

    async def test_locked_after_failures(self) -> None:
        for _ in range(2):
            self.assertIs(await self.verdict("anders"), False)
        self.assertIs(await self.verdict(), False)

    async def test_locked_by_hand(self) -> None:
        self.slapd.change(self.dn, {"pwdAccountLockedTime": "000001010000Z"})
        self.assertIs(await self.verdict(), False)
        store = self.store(statuses=((Status.LOCKED, "(pwdAccountLockedTime=000001010000Z)"),))
        self.assertIs((await self.found(store)).status, Status.LOCKED)

    async def test_to_be_changed(self) -> None:
        """slapd answers the bind with success, and takes nothing from it but a new password."""
        self.slapd.change(self.dn, {"pwdReset": "TRUE"})
        self.assertIs(await self.verdict(), False)

    async def test_expired(self) -> None:
        """Logins of grace are there to choose a new password, which cannot be done here."""
        self.slapd.change(self.policy, {"pwdMaxAge": "86400"})
        self.assertIs(await self.verdict(), True)
        self.slapd.change(self.dn, {"pwdChangedTime": "20200101000000Z"})
        self.assertIs(await self.verdict(), False)


class ScriptedTests(TestCase):
    """What a directory could say."""

    timeout = 60

    def store(self, script: Any) -> LDAPAccountStore:
        self.server = LDAPServer(script)
        self.addCleanup(self.server.stop)
        store = LDAPRealm().store(self.server.url, in_clear=True, login=Login(), statuses=())
        self.addCleanup(store.stop)
        return store

    async def bound(self, *answer: Any) -> bool:
        def script(asked: int) -> list[Any]:
            return [entry("cn=piet", uid="piet"), result(asked)] if asked == SEARCH else list(answer)

        store = self.store(script)
        found = await store.account("piet")
        assert found is not None
        return await store.verify(found, "geheim")

    @proves("A5")
    async def test_results_of_a_bind(self) -> None:
        """Success alone is a yes, and what does not say no is not now."""
        self.assertIs(await self.bound(result(BIND)), True)
        for code in range(1, 124):
            if code in {19, 48, 49, 50, 53}:
                self.assertIs(await self.bound(result(BIND, code)), False, code)
            elif code < 20 or code % 10 == 0:
                with self.assertRaises(Unavailable):
                    await self.bound(result(BIND, code))

    async def test_a_policy_that_cannot_be_read(self) -> None:
        with self.assertRaises(Unavailable):
            await self.bound(result(BIND, controls=control("1.3.6.1.4.1.42.2.27.8.5.1", b"\xff")))

    async def test_an_entry_without_a_name(self) -> None:
        """A bind with an empty name is a success for anyone (RFC 4513 5.1.1)."""
        store = self.store(lambda asked: [entry("", uid="piet"), result(asked)])
        with self.assertRaises(Unavailable):
            await store.account("piet")
        self.assertEqual(self.server.asked, [SEARCH])

    async def test_references_only(self) -> None:
        store = self.store(lambda asked: [reference("ldap://127.0.0.1:9/"), result(asked)])
        self.assertIsNone(await store.account("piet"))

    async def test_results_of_a_search(self) -> None:
        for code in (1, 2, 3, 4, 7, 10, 11, 32, 50, 51, 52, 53, 80):
            store = self.store(lambda asked, code=code: [entry("cn=a", uid="piet"), result(asked, code)])  # type: ignore[misc]
            with self.assertRaises(Unavailable):
                await store.account("piet")
