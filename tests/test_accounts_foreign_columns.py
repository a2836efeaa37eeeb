from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts import foreign_columns as columns
from digipoort_msa.accounts.account import Status
from digipoort_msa.sasl.scram_keys import ScramKeys

KEYS = ScramKeys(b"salt of sixteen!", 4096, bytes(range(32)), bytes(range(32, 64)))


class ForeignColumnsTests(SynchronousTestCase):
    def assert_fault(self, words, call, *arguments):
        error = self.assertRaises(ValueError, call, *arguments)
        self.assertIn(words, str(error))

    def test_name(self):
        self.assertEqual(columns.as_name("zo\u00eb"), "zo\u00eb")
        self.assertEqual(columns.as_name("zo\u00eb".encode()), "zo\u00eb")
        for value, words in ((None, "NULL"), (12, "is int"), (b"\xff", "UTF-8")):
            self.assert_fault(words, columns.as_name, value)

    def test_status(self):
        for row, status in (
            ({"active": True}, Status.ACTIVE),
            ({"active": 1, "disabled": 0}, Status.ACTIVE),
            ({"active": b"\1"}, Status.ACTIVE),
            ({"active": b"\0"}, Status.DISABLED),
            ({"active": "f"}, Status.DISABLED),
            ({"active": Decimal(0)}, Status.DISABLED),
            ({"disabled": "Yes"}, Status.DISABLED),
            ({"disabled": "1", "active": "1"}, Status.DISABLED),
            ({"status": "ACTIVE", "active": 0}, Status.DISABLED),
            ({"status": "locked", "active": 1}, Status.LOCKED),
            ({"status": b"expired"}, Status.EXPIRED),
        ):
            self.assertIs(columns.as_status(row, False), status, row)
        self.assertIs(columns.as_status({"active": 1}, True), Status.EXPIRED)
        self.assertIs(columns.as_status({"active": 0}, True), Status.DISABLED)

    def test_no_status_is_guessed(self):
        for value in (None, 2, -1, "", "on", "maybe", b"1x", b"\2", 1.0, Decimal("0.5")):
            for column in ("active", "disabled"):
                self.assert_fault(column, columns.as_status, {column: value}, False)
        for value in (None, "", "enabled", 1, "active "):
            self.assert_fault("status", columns.as_status, {"status": value}, False)

    def test_hash(self):
        self.assertEqual(columns.as_hash(None), "")
        self.assertEqual(columns.as_hash(b"$6$x"), "$6$x")
        self.assert_fault("password_hash", columns.as_hash, 3)

    def test_secrets(self):
        one, two = bytes(range(16)), bytes(16)
        self.assertEqual(columns.as_secrets(None), ())
        self.assertEqual(columns.as_secrets(" "), ())
        self.assertEqual(columns.as_secrets(one.hex().upper()), (one,))
        self.assertEqual(columns.as_secrets(f"{one.hex()}, {two.hex()}"), (one, two))
        for value in ("x" * 32, "00" * 15, "00" * 17, " ".join(["00" * 16] * 9), 5):
            self.assert_fault("digest_ha1", columns.as_secrets, value)

    def test_scram(self):
        self.assertIsNone(columns.as_scram_keys(None))
        written = columns.as_keys_text(KEYS)
        self.assertEqual(columns.as_scram_keys(written), KEYS)
        for value in (
            "md5abc",
            written.replace("256$4096", "1$4096"),
            written.replace("4096", "4095"),
            written.replace("4096", "99999999"),
            written.replace("4096", "\u0664096"),
            written[:-6],
            written.replace(":", "$"),
            written + "=",
            written + "\n",
        ):
            self.assert_fault("scram", columns.as_scram_keys, value)

    def test_texts(self):
        for value in ("a b", "a,b", '["a", "b"]', ["a", "b"], ("a", "b"), b"a  ,\nb"):
            self.assertEqual(columns.as_texts("groups", value), ("a", "b"))
        for value in (None, "", " ", "[]", []):
            self.assertEqual(columns.as_texts("groups", value), ())
        for value in ("[1]", "[", '["a", null]', [""], 7, {"a": 1}):
            self.assert_fault("groups", columns.as_texts, "groups", value)

    def test_patterns(self):
        self.assertEqual(columns.as_patterns("addresses", "*@a.nl b@b.nl"), ("*@a.nl", "b@b.nl"))
        for value in ("a.nl", "*", "a@b@c"):
            self.assert_fault("addresses", columns.as_patterns, "addresses", value)

    def test_moments(self):
        noon = datetime(2027, 1, 2, 12, tzinfo=UTC)
        for value in (
            noon,
            noon.replace(tzinfo=None),
            noon.astimezone(timezone(timedelta(hours=2))),
            "2027-01-02T12:00:00",
            "2027-01-02 14:00:00+02:00",
            int(noon.timestamp()),
            Decimal(noon.timestamp()),
            noon.timestamp(),
        ):
            self.assertEqual(columns.as_moment("expires", value), noon, repr(value))
        midnight = datetime(2027, 1, 3, tzinfo=UTC)
        self.assertEqual(columns.as_moment("expires", date(2027, 1, 2)), midnight)
        self.assertEqual(columns.as_moment("expires", "2027-01-02"), midnight)
        self.assertIsNone(columns.as_moment("expires", None))
        for value in (True, "soon", "", b"x", 10**18, float("nan"), date.max, "2027-13-01"):
            self.assert_fault("expires", columns.as_moment, "expires", value)

    def test_dates(self):
        day = date(2027, 1, 2)
        for value in (day, datetime(2027, 1, 2, 23), "2027-01-02", "2027-01-03T00:30:00+02:00"):
            self.assertEqual(columns.as_date("digest_until", value), day)
        self.assertIsNone(columns.as_date("digest_until", None))
        for value in (5, "x", b"2027-01-02"):
            self.assert_fault("digest_until", columns.as_date, "digest_until", value)
