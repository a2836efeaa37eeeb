"""What every ``IAccountStore`` promises.  A store's test inherits this beside ``TestCase``."""

from zope.interface.verify import verifyObject

from digipoort_msa.accounts.account import Status
from digipoort_msa.interfaces import IAccountStore, Unavailable
from tests.requirements import proves


class AccountStoreContract:
    """Tests of one store, which :meth:`make_store` makes."""

    realm = "one.nl"

    def make_store(self, passwords, disabled=()):
        """A store for ``self.realm``.

        :param passwords: ``{name: password}`` of its accounts.
        :param disabled: those of them that may not log in.
        """
        raise NotImplementedError

    def make_unavailable_store(self):
        """A store whose back end does not answer."""
        raise NotImplementedError

    def test_interface(self):
        store = self.make_store({})
        verifyObject(IAccountStore, store)
        self.assertIsInstance(store.mechanisms, frozenset)

    async def test_known(self):
        store = self.make_store({"piet": "geheim", "jan": "anders"})
        found = await store.account("piet")
        self.assertEqual((found.name, found.realm, found.status), ("piet", self.realm, Status.ACTIVE))
        self.assertTrue(found.may_log_in)

    async def test_unknown(self):
        store = self.make_store({"piet": "geheim"})
        self.assertIsNone(await store.account("jan"))

    async def test_names_are_exact(self):
        store = self.make_store({"piet": "geheim", "zoë": "geheim"})
        for name in ("Piet", "PIET", "piet ", " piet", "zoe", "pie", "piet\0", "", "%", "p_et", "p" * 5000):
            self.assertIsNone(await store.account(name), name)

    async def test_no_name_is_code(self):
        store = self.make_store({"piet": "geheim"})
        for name in ("' OR '1'='1", "*", "piet'--", ")(uid=*", "piet\\", ":of_name", "%(name)s"):
            self.assertIsNone(await store.account(name), name)
        self.assertEqual((await store.account("piet")).name, "piet")

    async def test_any_name(self):
        names = ["o'neill", "info@bedrijf.nl", "a b", "zoë", "株式会社", "x" * 255, "名" * 255, 'q"q', "%s"]
        store = self.make_store(dict.fromkeys(names, "geheim"))
        for name in names:
            self.assertEqual((await store.account(name)).name, name)

    @proves("A7")
    async def test_an_account_that_may_not_log_in_says_so(self):
        store = self.make_store({"piet": "geheim"}, disabled=["piet"])
        found = await store.account("piet")
        self.assertFalse(found.may_log_in)

    async def test_unavailable(self):
        store = self.make_unavailable_store()
        with self.assertRaises(Unavailable):
            await store.account("piet")
