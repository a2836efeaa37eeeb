"""Apache's files: what the tools write, and what nobody should."""

import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.apache_files import Entries, read_htdigest, read_htpasswd
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.sasl.digest_hash import digest_secrets
from tests.requirements import proves

HASHING = PasswordHashing(memory_kib=8, time_cost=1)
BCRYPT = "$2y$05$0YwnoDti29uGuEAdd.0JDeWv.3IIdy9X3RAp9k3IX2nZhgmGpEiUG"
H_A1 = "0123456789abcdef0123456789ABCDEF"


def htpasswd(*lines: str) -> Entries:
    return read_htpasswd("\n".join(lines).encode(), HASHING)


def htdigest(*lines: str) -> Entries:
    return read_htdigest("\n".join(lines).encode(), "one.nl")


class ToolTests(SynchronousTestCase):
    """The programs of Debian's apache2-utils."""

    def htpasswd(self, option: str, name: str, password: str = "geheim") -> None:
        command = ["htpasswd", "-b", option, self.file, name, password]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    def setUp(self) -> None:
        self.file = Path(self.mktemp()).absolute()
        self.file.touch()

    @proves("A7")
    def test_htpasswd(self) -> None:
        for option in "B25mdsp":
            self.htpasswd(f"-{option}", f"zoë-{option}", "g€heim")
        entries = read_htpasswd(self.file.read_bytes(), HASHING)
        for option in "B25m":
            verifier = entries.accounts[f"zoë-{option}"].verifier
            self.assertTrue(HASHING.verify("g€heim", verifier), option)
            self.assertFalse(HASHING.verify("geheim", verifier), option)
            self.assertTrue(HASHING.outdated(verifier), option)
        for option in "dsp":
            self.assertEqual(entries.accounts[f"zoë-{option}"].verifier, "", option)
        self.assertEqual(
            entries.refused,
            {"{SHA} has no salt": ("zoë-s",), "it is a DES hash, or the password itself": ("zoë-d", "zoë-p")},
        )
        self.assertEqual(entries.weak, ("zoë-m",))

    def test_beyond_what_bcrypt_looks_at(self) -> None:
        """htpasswd cuts the password off; whoever knows the beginning does not know it."""
        self.htpasswd("-B", "piet", "x" * 80)
        self.htpasswd("-B", "jan", "x" * 72)
        accounts = read_htpasswd(self.file.read_bytes(), HASHING).accounts
        self.assertFalse(HASHING.verify("x" * 80, accounts["piet"].verifier))
        self.assertFalse(HASHING.verify("x" * 73, accounts["jan"].verifier))
        self.assertTrue(HASHING.verify("x" * 72, accounts["jan"].verifier))

    def test_htdigest(self) -> None:
        for realm in ("one.nl", "other.nl"):
            asked = b"geheim\ngeheim\n"
            command = ["htdigest", self.file, realm, "piet"]
            subprocess.run(command, check=True, capture_output=True, timeout=30, input=asked)
        entries = read_htdigest(self.file.read_bytes(), "one.nl")
        self.assertEqual(
            (bytes.fromhex(entries.accounts["piet"].verifier),), digest_secrets("piet", "one.nl", "geheim")
        )
        self.assertEqual(entries.other_realms, {"other.nl"})


class HtpasswdTests(SynchronousTestCase):
    def test_lines(self) -> None:
        entries = htpasswd(
            "# comment", "", "  ", f"piet:{BCRYPT}\r", f"a b:{BCRYPT}  ", f"\ufeffjan:{BCRYPT}"
        )
        self.assertEqual(list(entries.accounts), ["piet", "a b", "jan"])
        self.assertEqual({entry.verifier for entry in entries.accounts.values()}, {BCRYPT})
        self.assertEqual((entries.refused, entries.weak), ({}, ()))
        self.assertEqual(htpasswd().accounts, {})

    def test_disabled(self) -> None:
        entries = htpasswd(f"piet:!{BCRYPT}", "jan:!")
        self.assertTrue(all(entry.disabled and not entry.verifier for entry in entries.accounts.values()))
        self.assertEqual(entries.refused, {})

    def test_hashes_that_are_never_right(self) -> None:
        for found in ("", "{SHA}kGByAB793z4R5tK1eC9Hd/4Dhzk=", "geheim", "znd5VjNBu3zvw", "$1$a$b", "$y$x"):
            entries = htpasswd(f"piet:{found}")
            self.assertEqual(entries.accounts["piet"].verifier, "", found)
            self.assertEqual(sum(entries.refused.values(), ()), ("piet",), found)

    def test_what_is_wrong(self) -> None:
        for line, text in (
            ("piet", "should be name:hash"),
            (f"piet:one.nl:{H_A1}", "should be name:hash"),
            (f":{BCRYPT}", "should begin with a name"),
            (f"\u200b:{BCRYPT}", "should begin with a name"),
            (f"{'x' * 256}:{BCRYPT}", "255 octets"),
            (f"a\0b:{BCRYPT}", "should be name:hash"),
            (f"a\u2028b:{BCRYPT}", "cannot be a name"),
            (f"jan:{BCRYPT}", "there is a line for 'jan' before this one"),
            (f"ja\u00adn:{BCRYPT}", "there is a line for 'jan' before this one"),
            (f"\u2168:{BCRYPT}", "there is a line for 'IX' before this one"),
            (f"piet:{BCRYPT[:-1]}", "the hash of 'piet' is damaged"),
            ("piet:$6$salt", "the hash of 'piet' is damaged"),
            ("piet:$apr1$abc$x", "the hash of 'piet' is damaged"),
            ("piet:$2y$05$é", "the hash of 'piet' is damaged"),
        ):
            error = self.assertRaises(ValueError, htpasswd, f"jan:{BCRYPT}", f"IX:{BCRYPT}", line)
            self.assertTrue(str(error).startswith("line 3: "), error)
            self.assertIn(text, str(error))
            self.assertNotIn(BCRYPT[7:20], str(error))
        self.assertIn("UTF-8", str(self.assertRaises(ValueError, read_htpasswd, b"zo\xeb:x", HASHING)))

    @given(st.binary(max_size=200))
    def test_any_octets(self, octets: bytes) -> None:
        """They are an error that says where, or no password of theirs is right."""
        for read in (lambda: read_htpasswd(octets, HASHING), lambda: read_htdigest(octets, "one.nl")):
            try:
                entries = read()
            except ValueError as error:
                self.assertTrue(str(error).startswith("line "), error)
            else:
                self.assertFalse(any(entry.verifier for entry in entries.accounts.values()))


class HtdigestTests(SynchronousTestCase):
    def test_lines(self) -> None:
        entries = htdigest("#", f"piet:one.nl:{H_A1}", f"piet:ONE.NL:{H_A1}", f"jan:one.nl:!{H_A1}")
        self.assertEqual(entries.accounts["piet"].verifier, H_A1)
        self.assertTrue(entries.accounts["jan"].disabled)
        self.assertEqual(entries.other_realms, {"ONE.NL"})

    def test_what_is_wrong(self) -> None:
        for line, text in (
            (f"piet:{BCRYPT}", "should be name:realm:hash"),
            (f"piet:one.nl:{H_A1[1:]}", "32 hex digits"),
            (f"piet:one.nl:{H_A1[1:]}x", "32 hex digits"),
            (f"jan:one.nl:{H_A1}", "before this one"),
        ):
            error = self.assertRaises(ValueError, htdigest, f"jan:one.nl:{H_A1}", line)
            self.assertTrue(str(error).startswith("line 2: "), error)
            self.assertIn(text, str(error))
            self.assertNotIn(H_A1[1:], str(error))
