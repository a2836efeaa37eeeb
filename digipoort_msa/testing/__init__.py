"""The suites that stores and policies pass: ours do, and whoever writes one runs them against it.

They are mixins for ``twisted.trial.unittest.TestCase``, and run under trial and pytest alike::

    class MyStoreTests(AccountStoreContract, TestCase):
        def make_store(self, accounts): ...

A suite skips nothing.  What a store cannot do, its test declares in an attribute, and the suite then checks
that the store indeed does not do it.
"""

from digipoort_msa.testing.account_store import AccountStoreContract
from digipoort_msa.testing.accounts import ODD_NAMES, AccountDescription
from digipoort_msa.testing.logins import Logins
from digipoort_msa.testing.policy import MessageDescription, PolicyContract

__all__ = [
    "ODD_NAMES",
    "AccountDescription",
    "AccountStoreContract",
    "Logins",
    "MessageDescription",
    "PolicyContract",
]
