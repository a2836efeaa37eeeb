"""The store, by the contract of all stores, and what is its own.

To be run with ``python -m pytest tests`` or ``python -m twisted.trial tests``.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from example_realm.store import JSONFile, open_store
from twisted.trial.unittest import TestCase

from digipoort_msa.testing import AccountDescription, AccountStoreContract


class JSONFileTests(AccountStoreContract, TestCase):
    """The suite asks for stores in every state; each method below makes one.

    The attributes of ``AccountStoreContract`` say what a back end cannot do.  This one can do all.
    """

    def make_store(self, accounts: Sequence[AccountDescription]) -> JSONFile:
        self.file = Path(self.mktemp()).absolute()
        self.change(accounts)
        return open_store(self.realm, {"file": str(self.file)}, self.facilities())

    def change(self, accounts: Sequence[AccountDescription]) -> None:
        self.file.write_text(json.dumps({account.name: record(account) for account in accounts}))

    def make_dead_store(self) -> JSONFile:
        store = self.make_store([])
        self.file.unlink()
        return store

    def make_slow_store(self) -> JSONFile:
        """A FIFO that nobody writes to: whoever reads it waits."""
        store = self.make_store([])
        self.file.unlink()
        os.mkfifo(self.file)
        # Cleanups run last first, so this one comes before the threads are waited for.
        self.addCleanup(lambda: os.close(os.open(self.file, os.O_RDWR)))
        return store

    def make_lying_stores(self) -> Mapping[str, JSONFile]:
        piet = record(AccountDescription(name="piet"))
        without_hash = {"status": "active"}
        lies = {
            "half a file": json.dumps({"piet": piet})[:-5],
            "no file of accounts": json.dumps([piet]),
            "no hash": json.dumps({"piet": without_hash}),
            "a status of its own": json.dumps({"piet": {**piet, "status": "fine"}}),
            "no status": json.dumps({"piet": {**piet, "status": None}}),
            "a key of its own": json.dumps({"piet": {**piet, "locked": True}}),
            "the same name twice": f'{{"piet": {json.dumps(piet)}, "piet": {json.dumps(piet)}}}',
            "addresses that are none": json.dumps({"piet": {**piet, "addresses": "*@one.nl"}}),
        }
        return {lie: self.make_lying_store(text) for lie, text in lies.items()}

    def make_lying_store(self, text: str) -> JSONFile:
        store = self.make_store([])
        self.file.write_text(text)
        return store


def record(account: AccountDescription) -> dict[str, Any]:
    return {
        "password-hash": account.password_hash(),
        "status": account.status.value,
        "groups": sorted(account.groups),
        "addresses": list(account.addresses),
    }


class SettingsTests(TestCase):
    """What is wrong with the settings is told when the store is opened."""

    def test_wrong(self) -> None:
        broken = Path(self.mktemp()).absolute()
        broken.write_text('{"piet": {"password-hash": "secret", "status": "fine"}}')
        for settings, text in (
            ({}, "file: should be the path"),
            ({"file": 5}, "file: should be the path"),
            ({"file": "accounts.json"}, "file: should be the path"),
            ({"file": str(broken), "realm": "x"}, "realm: this store has one setting"),
            ({"file": str(broken)}, "the status of 'piet' should be active, disabled, expired, locked"),
        ):
            with self.assertRaises(ValueError) as caught:
                open_store("one.nl", settings, None)  # type: ignore[arg-type]
            self.assertIn(text, str(caught.exception))
            self.assertNotIn("secret", str(caught.exception))

    def test_missing(self) -> None:
        with self.assertRaises(FileNotFoundError):
            open_store("one.nl", {"file": "/no/such/file"}, None)  # type: ignore[arg-type]
