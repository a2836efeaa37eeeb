"""DIGEST-MD5 as a conversation: RFC 2831's examples, every directive's check, and what never verifies."""

import re

from attrs import evolve
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.sasl import (
    Challenge,
    Context,
    Denied,
    DigestCredential,
    Exchange,
    Malformed,
    Verify,
    digest_secrets,
    saslprep,
)
from digipoort_msa.sasl.digest_md5 import DIGEST_MD5, MAXIMUM_OCTETS, exchange
from digipoort_msa.sasl.directives import parse
from tests.digest_client import check_rspauth, respond
from tests.requirements import proves

REALM = "overheidstransactiepoort.nl"
NONCE = "OA6MG9tEQGm2hh"
CONTEXT = Context((REALM, "example.nl"), frozenset({"msa.example.nl", "127.0.0.1"}), NONCE)
USER, PASSWORD = "chris", "secret"
URI = "smtp/msa.example.nl"


def started(context: Context = CONTEXT) -> tuple[Exchange, bytes]:
    """A fresh exchange and its challenge."""
    conversation = DIGEST_MD5.start(context, None)
    challenge = next(conversation)
    assert isinstance(challenge, Challenge)
    return conversation, challenge.octets


CHALLENGE = started()[1]
VALID = respond(CHALLENGE, USER, PASSWORD, URI)


def credential(response: bytes, context: Context = CONTEXT) -> DigestCredential:
    """What the exchange wants verified after ``response``."""
    step = started(context)[0].send(response)
    assert isinstance(step, Verify)
    assert isinstance(step.credential, DigestCredential)
    return step.credential


def verifies(response: bytes, context: Context = CONTEXT) -> bool:
    """Does ``response`` prove USER's password, in whichever realm it names?"""
    presented = credential(response, context)
    return presented.username == USER and any(
        presented.verify(secret) for secret in digest_secrets(USER, presented.realm, PASSWORD)
    )


def replaced(pattern: bytes, by: bytes) -> bytes:
    """VALID with one thing changed."""
    changed, count = re.subn(pattern, by, VALID)
    assert count == 1, pattern
    return changed


@proves("A3")
class ExampleTests(SynchronousTestCase):
    """RFC 2831 4, word for word."""

    def converse(self, service: bytes, nonce: str, response: bytes, rspauth: bytes) -> None:
        host = "elwood.innosoft.com"
        conversation = exchange(service, Context((host,), frozenset({host}), nonce), None)
        next(conversation)
        step = conversation.send(response)
        assert isinstance(step, Verify)
        assert isinstance(step.credential, DigestCredential)
        self.assertTrue(step.credential.verify(digest_secrets("chris", host, "secret")[0]))
        self.assertEqual(conversation.send(b""), Challenge(rspauth))
        self.assertRaises(StopIteration, conversation.send, b"")

    def test_imap(self) -> None:
        self.converse(
            b"imap",
            "OA6MG9tEQGm2hh",
            b'charset=utf-8,username="chris",realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",'
            b'nc=00000001,cnonce="OA6MHXh6VqTrRk",digest-uri="imap/elwood.innosoft.com",'
            b"response=d388dad90d4bbd760a152321f2143af7,qop=auth",
            b"rspauth=ea40f60335c427b5527b84dbabcdfffd",
        )

    def test_acap(self) -> None:
        self.converse(
            b"acap",
            "OA9BSXrbuRhWay",
            b'username="chris",realm="elwood.innosoft.com",nonce="OA9BSXrbuRhWay",nc=00000001,'
            b'cnonce="OA9BSuZWMSpW8m",digest-uri="acap/elwood.innosoft.com",'
            b"response=6084c6db3fede7352c551284490fd0fc",
            b"rspauth=2f0b3d7c3c2e486600ef710726aa2eae",
        )

    def test_the_service_must_be_smtp(self) -> None:
        response = respond(CHALLENGE, USER, PASSWORD, "imap/msa.example.nl")
        self.assertRaisesRegex(Denied, "another service", credential, response)


@proves("A2", "A3")
class ConversationTests(SynchronousTestCase):
    def test_the_challenge(self) -> None:
        expected = (
            b'realm="overheidstransactiepoort.nl",realm="example.nl",nonce="OA6MG9tEQGm2hh",'
            b'qop="auth",charset=utf-8,algorithm=md5-sess'
        )
        self.assertEqual(CHALLENGE, expected)

    def test_a_realm_is_quoted_in_the_challenge(self) -> None:
        context = evolve(CONTEXT, realms=('the "\u00e9\\" realm',))
        challenge = started(context)[1]
        self.assertTrue(challenge.startswith(b'realm="the \\"\xc3\xa9\\\\\\" realm",nonce='))
        self.assertTrue(verifies(respond(challenge, USER, PASSWORD, URI), context))

    def test_success_counts_only_after_the_empty_answer(self) -> None:
        for username, password in ((USER, PASSWORD), ("Ang\u00e9lique", "\u20ac 100"), ('a"\\b', "\u00fc")):
            with self.subTest(username):
                conversation, challenge = started()
                response = respond(challenge, username, password, URI)
                step = conversation.send(response)
                assert isinstance(step, Verify)
                assert isinstance(step.credential, DigestCredential)
                self.assertEqual(step.credential.username, username)
                self.assertTrue(step.credential.verify(digest_secrets(username, REALM, password)[0]))
                rspauth = conversation.send(b"")
                assert isinstance(rspauth, Challenge)
                self.assertTrue(check_rspauth(rspauth.octets, response, password))
                self.assertFalse(check_rspauth(rspauth.octets, response, "another"))
                self.assertRaises(StopIteration, conversation.send, b"")

    def test_the_answer_to_rspauth_must_be_empty(self) -> None:
        conversation, _ = started()
        step = conversation.send(VALID)
        assert isinstance(step, Verify)
        assert isinstance(step.credential, DigestCredential)
        step.credential.verify(digest_secrets(USER, REALM, PASSWORD)[0])
        conversation.send(b"")
        self.assertRaises(Malformed, conversation.send, b" ")

    def test_an_initial_response_never_authenticates(self) -> None:
        for response in (b"", VALID):
            with self.subTest(response=response):
                self.assertRaises(Malformed, next, DIGEST_MD5.start(CONTEXT, response))

    def test_no_rspauth_without_a_verified_secret(self) -> None:
        """Were the accounts ever to say yes without having asked the credential, it is still a no."""
        conversation, _ = started()
        conversation.send(VALID)
        self.assertRaises(Denied, conversation.send, b"")

    def test_a_wrong_password(self) -> None:
        self.assertFalse(verifies(respond(CHALLENGE, USER, "Secret", URI)))

    def test_either_realm(self) -> None:
        self.assertEqual(credential(VALID).realm, REALM)
        response = respond(CHALLENGE, USER, PASSWORD, URI, realm="example.nl")
        self.assertEqual(credential(response).realm, "example.nl")
        self.assertTrue(verifies(response))

    def test_replay_into_another_exchange(self) -> None:
        other = evolve(CONTEXT, nonce="OA9BSXrbuRhWay")
        self.assertRaisesRegex(Denied, "nonce", credential, VALID, other)


@proves("A4")
class HashFormTests(SynchronousTestCase):
    """ISO-8859-1 where it fits, each on its own; clients that only know UTF-8 are recognised too."""

    def test_mixed_forms(self) -> None:
        for username, password in (
            ("Ang\u00e9lique", "gehe\u00efm"),
            ("Ang\u00e9lique", "\u20ac 100"),
            ("\u0141ukasz", "gehe\u00efm"),
            ("\u0141ukasz", "\u20ac 100"),
        ):
            secrets = digest_secrets(username, REALM, password)
            for utf8_hash in (False, True):
                with self.subTest(username=username, password=password, utf8_hash=utf8_hash):
                    response = respond(CHALLENGE, username, password, URI, utf8_hash=utf8_hash)
                    presented = credential(response)
                    self.assertEqual(presented.username, username)
                    self.assertIn(True, [presented.verify(secret) for secret in secrets])
                    assert presented.rspauth is not None
                    rspauth = b"rspauth=" + presented.rspauth
                    self.assertTrue(check_rspauth(rspauth, response, password, utf8_hash=utf8_hash))

    def test_without_charset_the_name_is_iso_8859_1(self) -> None:
        response = respond(CHALLENGE, "Ang\u00e9lique", "gehe\u00efm", URI)
        old = response.replace(b",charset=utf-8", b"").replace(b"\xc3\xa9", b"\xe9")
        presented = credential(old)
        self.assertEqual(presented.username, "Ang\u00e9lique")
        self.assertTrue(presented.verify(digest_secrets("Ang\u00e9lique", REALM, "gehe\u00efm")[0]))

    def test_without_charset_utf_8_is_seen_for_what_it_is(self) -> None:
        response = respond(CHALLENGE, "Ang\u00e9lique", "gehe\u00efm", URI, utf8_hash=True)
        presented = credential(response.replace(b",charset=utf-8", b""))  # as curl sends it
        self.assertEqual(presented.username, "Ang\u00e9lique")
        secrets = digest_secrets("Ang\u00e9lique", REALM, "gehe\u00efm")
        self.assertIn(True, [presented.verify(secret) for secret in secrets])

    def test_with_charset_the_name_is_utf_8(self) -> None:
        self.assertRaisesRegex(Malformed, "username", credential, replaced(b'"chris"', b'"chr\xefs"'))

    def test_saslprep(self) -> None:
        self.assertEqual(credential(replaced(b'"chris"', b'"ch\xc2\xadris"')).username, USER)
        self.assertRaises(Denied, credential, replaced(b'"chris"', b'"\xee\x80\x80"'))


@proves("A3")
class DirectiveTests(SynchronousTestCase):
    """Each directive: what is taken, what is Malformed, what is Denied."""

    def test_the_forms_of_old_clients(self) -> None:
        for pattern, by in (
            (b"qop=auth", b'qop="auth"'),
            (b"charset=utf-8", b'charset="UTF-8"'),
            (b"nc=00000001", b'nc="00000001"'),
            (b"response=([0-9a-f]+)", rb'response="\1"'),
            (b'realm="([^"]+)"', rb"realm=\1"),
            (b'username="([^"]+)"', rb"username=\1"),
            (b"$", b',algorithm="md5-sess"'),
            (b"$", b",algorithm=MD5-sess"),
            (b"$", b",maxbuf=65536"),
            (b"$", b', x-unknown = "1", x-unknown=2, '),
            (b",qop=auth", b""),
            (b",charset=utf-8", b""),
            (b"username=", b"UserName="),
        ):
            with self.subTest(by=by):
                self.assertTrue(verifies(replaced(pattern, by)))

    def test_malformed(self) -> None:
        for pattern, by in (
            (b"nc=00000001", b"nc=1"),
            (b"nc=00000001", b"nc=0000000A"),
            (b"response=[0-9a-f]", b"response="),
            (b"response=[0-9a-f]", b"response=F"),
            (b'cnonce="[^"]+"', b'cnonce=""'),
            (b'username="[^"]+"', b'username=""'),
            (b'username="[^"]+"', b'username="' + b"c" * 1025 + b'"'),
            (b"charset=utf-8", b"charset=iso-8859-1"),
            (b'realm="', b'realm="\xff'),
            (b"smtp/msa.example.nl", b"smtp"),
            (b"smtp/msa.example.nl", b"smtp/msa.example.nl/127.0.0.1/x"),
            (b"$", b",maxbuf=many"),
            (b"$", b",maxbuf=-1"),
            (b"$", b',authzid="\xff"'),
            (b"$", b",x"),
            (b",", b""),
        ):
            with self.subTest(by=by):
                changed = re.sub(pattern, by, VALID, count=1)
                self.assertNotEqual(changed, VALID)
                self.assertRaises(Malformed, credential, changed)

    def test_denied(self) -> None:
        for pattern, by in (
            (b"nc=00000001", b"nc=00000002"),
            (b"nc=00000001", b"nc=00000000"),
            (b',nonce="', b',nonce="x'),
            (b',nonce="[^"]+"', b',nonce=""'),
            (b'realm="', b'realm="x'),
            (b'realm="[^"]+"', b'realm=""'),
            (b'realm="[^"]+"', b'realm="OVERHEIDSTRANSACTIEPOORT.NL"'),
            (b"smtp/msa.example.nl", b"imap/msa.example.nl"),
            (b"smtp/msa.example.nl", b"smtp/evil.example.nl"),
            (b"smtp/msa.example.nl", b"smtp/msa.example.nl.."),
            (b"smtp/msa.example.nl", b"smtp/"),
            (b"smtp/msa.example.nl", b"smtp/\xff"),
            (b"smtp/msa.example.nl", b"smtp/msa.example.nl/evil.example.nl"),
            (b"smtp/msa.example.nl", b"smtp/msa.example.nl/"),
            (b"qop=auth", b"qop=auth-int"),
            (b"qop=auth", b"qop=auth-conf"),
            (b"qop=auth", b'qop="auth,auth-int"'),
            (b"$", b",cipher=rc4"),
            (b"$", b",algorithm=md5"),
            (b"$", b',authzid="another"'),
        ):
            with self.subTest(by=by):
                self.assertRaises(Denied, credential, replaced(pattern, by))

    def test_required_directives(self) -> None:
        for name in (b"username", b"realm", b"nonce", b"cnonce", b"nc", b"digest-uri", b"response"):
            with self.subTest(name=name):
                without = replaced(b"(^|,)" + name + b'=("[^"]*"|[^,]*)', b"")
                self.assertRaisesRegex(Malformed, f"lacks {name.decode()}$", credential, without)

    def test_duplicates(self) -> None:
        for directive in (*VALID.split(b","), b"maxbuf=1", b"authzid=chris", b"algorithm=md5-sess"):
            with self.subTest(directive=directive):
                twice = b",".join((VALID, directive, directive.replace(b"=", b" = ").upper()))
                self.assertRaisesRegex(Malformed, "twice", credential, twice)

    def test_hosts(self) -> None:
        for uri in (
            "SMTP/msa.example.nl",
            "smtp/MSA.Example.NL",
            "smtp/msa.example.nl.",
            "smtp/127.0.0.1",
            "smtp/127.0.0.1/msa.example.nl",
            "smtp/msa.example.nl/MSA.example.nl.",
        ):
            with self.subTest(uri):
                self.assertTrue(verifies(respond(CHALLENGE, USER, PASSWORD, uri)))

    def test_authzid_is_part_of_a1(self) -> None:
        for authzid in ("", USER):
            with self.subTest(authzid):
                response = respond(CHALLENGE, USER, PASSWORD, URI, authzid=authzid)
                self.assertTrue(verifies(response))
                self.assertFalse(verifies(re.sub(b',authzid="[^"]*"', b"", response)))

    def test_the_longest_response(self) -> None:
        longest = VALID + b",x=" + b"x" * (MAXIMUM_OCTETS - len(VALID) - 3)
        self.assertEqual(len(longest), MAXIMUM_OCTETS)
        self.assertTrue(verifies(longest))
        self.assertRaisesRegex(Malformed, "4097 octets", credential, longest + b",")

    def test_errors_say_what_is_wrong_in_printable_ascii(self) -> None:
        error = self.assertRaises(
            Denied, credential, replaced(b"smtp/msa", b"smtp/\xc3\xa9\xff" + b"x" * 500)
        )
        self.assertTrue(str(error).isascii() and str(error).isprintable())
        self.assertIn("ours are: 127.0.0.1, msa.example.nl", str(error))
        self.assertTrue(len(str(error)) < 300)


HASHED = frozenset(("nonce", "cnonce", "nc", "qop", "digest-uri", "response", "authzid"))


def hashed(response: bytes) -> dict[str, bytes]:
    return {name: value for name, value in parse(response) if name in HASHED}


@proves("A3")
class PropertyTests(SynchronousTestCase):
    def refused_or_the_same(self, response: bytes) -> None:
        """``response`` is no VALID one unless it says the same in other words."""
        try:
            accepted = verifies(response)
        except (Malformed, Denied):
            return
        if accepted:
            self.assertEqual(hashed(response) | {"qop": b"auth"}, hashed(VALID))

    def test_cut_at_every_octet(self) -> None:
        for end in range(len(VALID)):
            with self.assertRaises((Malformed, Denied)):
                credential(VALID[:end])

    @settings(deadline=None, max_examples=200)
    @given(st.permutations(VALID.split(b",")))
    def test_the_order_of_directives_does_not_matter(self, directives: list[bytes]) -> None:
        self.assertTrue(verifies(b",".join(directives)))

    @settings(deadline=None, max_examples=300)
    @given(st.integers(0, len(VALID) - 1), st.integers(0, 255))
    def test_one_octet_changed(self, position: int, octet: int) -> None:
        self.refused_or_the_same(VALID[:position] + bytes([octet]) + VALID[position + 1 :])

    @settings(deadline=None, max_examples=300)
    @given(st.integers(0, len(VALID)), st.integers(0, 8), st.binary(max_size=8))
    def test_a_stretch_changed(self, position: int, length: int, octets: bytes) -> None:
        self.refused_or_the_same(VALID[:position] + octets + VALID[position + length :])

    @settings(deadline=None, max_examples=200)
    @given(st.sampled_from(sorted(HASHED - {"authzid"})), st.binary(max_size=40))
    def test_one_value_changed(self, name: str, value: bytes) -> None:
        written = b'"' + re.sub(rb'(["\\])', rb"\\\1", value) + b'"'

        def write(match: re.Match[bytes]) -> bytes:
            return match[1] + written

        pattern = b"((?:^|,)" + name.encode() + b'=)(?:"[^"]*"|[^,]*)'
        self.refused_or_the_same(re.sub(pattern, write, VALID))

    @settings(deadline=None, max_examples=300)
    @given(
        st.binary(max_size=60)
        | st.lists(
            st.tuples(
                st.sampled_from([pair.partition(b"=")[0] for pair in VALID.split(b",")] + [b"authzid", b"x"]),
                st.sampled_from([pair.partition(b"=")[2] for pair in VALID.split(b",")])
                | st.binary(max_size=6),
            ).map(b"=".join),
            max_size=12,
        ).map(b",".join)
    )
    def test_raises_nothing_else(self, response: bytes) -> None:
        self.refused_or_the_same(response)

    @settings(deadline=None, max_examples=100)
    @given(
        st.text(st.characters(min_codepoint=33, max_codepoint=0xFF, exclude_categories=["Cc"]), min_size=1),
        st.text(st.characters(min_codepoint=33, max_codepoint=0x17F, exclude_categories=["Cc"]), min_size=1),
    )
    def test_every_prepared_name_and_password(self, username: str, password: str) -> None:
        username, password = saslprep(username), saslprep(password)
        assume(username and password)  # a soft hyphen alone leaves nothing
        presented = credential(respond(CHALLENGE, username, password, URI))
        self.assertEqual(presented.username, username)
        self.assertTrue(presented.verify(digest_secrets(username, REALM, password)[0]))
