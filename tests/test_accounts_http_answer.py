"""What an endpoint says, and all that is no answer; the contract's tests have more of the latter."""

import json
from datetime import date
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.http import answer
from digipoort_msa.testing import AccountDescription
from tests.json_endpoint import scram

ALL = frozenset({answer.HASH, answer.DIGEST, answer.SCRAM, answer.REVISION})
SMALLEST = {"realm": "one.nl", "name": "piet", "status": "active"}
PIET = AccountDescription(name="piet")
WHOLE = {
    **SMALLEST,
    "status": "locked",
    "password-hash": "$argon2id$...",
    "digest-secrets": ["00" * 16, "Ff" * 16],
    "scram": scram(PIET),
    "digest-until": "2027-12-31",
    "groups": ["businesses"],
    "addresses": ["*@example.nl"],
    "revision": "7",
}


def read(document: Any, yields: frozenset[str] = ALL) -> Account:
    octets = document if isinstance(document, bytes) else json.dumps(document).encode()
    return answer.account(octets, "one.nl", "piet", yields)


class AccountTests(SynchronousTestCase):
    def test_whole(self) -> None:
        expected = Account(
            name="piet",
            realm="one.nl",
            status=Status.LOCKED,
            password_hash="$argon2id$...",
            digest_secrets=(bytes(16), b"\xff" * 16),
            scram=PIET.scram_keys(),
            digest_until=date(2027, 12, 31),
            groups=frozenset({"businesses"}),
            addresses=("*@example.nl",),
            revision="7",
        )
        self.assertEqual(read(WHOLE), expected)

    def test_smallest(self) -> None:
        self.assertEqual(read(SMALLEST), Account(name="piet", realm="one.nl", status=Status.ACTIVE))

    def test_what_is_not_made_use_of(self) -> None:
        """It may be there, has to be sound, and goes no further."""
        account = read(WHOLE, frozenset())
        self.assertEqual(
            (account.password_hash, account.digest_secrets, account.scram, account.revision),
            ("", (), None, ""),
        )
        self.assertRaises(ValueError, read, {**WHOLE, "scram": "x"}, frozenset())

    def test_every_status(self) -> None:
        for status in Status:
            self.assertIs(read({**SMALLEST, "status": status.value}).status, status)

    def test_cut_anywhere(self) -> None:
        """No part of an answer is one."""
        octets = json.dumps(WHOLE).encode()
        for length in range(len(octets)):
            self.assertRaises(ValueError, read, octets[:length])

    def test_no_key_can_be_left_out_or_null(self) -> None:
        for key in SMALLEST:
            self.assertRaises(ValueError, read, {one: value for one, value in WHOLE.items() if one != key})
        for key in WHOLE:
            for wrong in (None, True, 1, {}, [[]], [1], [""]):
                error = self.assertRaises(ValueError, read, {**WHOLE, key: wrong})
                self.assertNotIn("argon2id", str(error))

    def test_sizes(self) -> None:
        for key, value in {
            "digest-secrets": ["00" * 16] * 9,
            "groups": ["g"] * 1001,
            "password-hash": "x" * 1001,
            "revision": "a\nb",
            "digest-until": "2027-02-30",
        }.items():
            error = self.assertRaises(ValueError, read, {**WHOLE, key: value})
            self.assertIn(key, str(error))


class VerdictTests(SynchronousTestCase):
    """Of a verdict, and of there being no such account."""

    def verdict(self, **said: Any) -> bool:
        return answer.verdict(
            json.dumps({"realm": "one.nl", "name": "piet", **said}).encode(), "one.nl", "piet"
        )

    def test_right(self) -> None:
        self.assertIs(self.verdict(verified=True), True)
        self.assertIs(self.verdict(verified=False), False)
        answer.unknown(b'{"realm": "one.nl", "name": "piet", "unknown": true}', "one.nl", "piet")

    def test_wrong(self) -> None:
        for wrong in ("true", 1, None, [True], {"verified": True}):
            with self.assertRaises(ValueError):
                self.verdict(verified=wrong)
        for said in ({}, {"verified": True, "reason": "x"}, {"verified": True, "name": "jan"}):
            with self.assertRaises(ValueError):
                self.verdict(**said)
        for octets in (b"", b"{}", b'{"realm": "one.nl", "name": "piet", "unknown": false}', b"null"):
            self.assertRaises(ValueError, answer.unknown, octets, "one.nl", "piet")
