"""The ``ldap`` store: the contract over a real slapd, and what is of a directory alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.trial.unittest import TestCase

from digipoort_msa.accounts.ldap.directory import Login
from digipoort_msa.accounts.ldap.store import LDAPAccountStore
from digipoort_msa.testing import AccountDescription, AccountStoreContract
from tests.ldap_realm import REALM, LDAPRealm
from tests.ldap_server import LDAPServer, entry, referral, result

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
        return LDAPRealm().store("ldap://127.0.0.1:9", in_clear=True)

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
