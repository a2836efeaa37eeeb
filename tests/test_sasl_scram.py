"""SCRAM-SHA-256 as a conversation: the RFC's example and others', every check, and what never verifies."""

import base64
import contextlib
from collections.abc import Iterator

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramClient as TheirClient
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.sasl import Challenge, Context, Denied, Exchange, Malformed, Verify, saslprep
from digipoort_msa.sasl.credentials import ScramCredential
from digipoort_msa.sasl.mechanism import Channel, Lookup, Mechanism
from digipoort_msa.sasl.scram import MAXIMUM_OCTETS, SCRAM_SHA_256, SCRAM_SHA_256_PLUS
from digipoort_msa.sasl.scram_keys import ScramKeys
from tests.requirements import proves
from tests.scram_client import ScramClient

NAMES = frozenset({"msa.example.nl"})
NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
EXPORTED = bytes(range(32))
CHANNEL = Channel({"tls-exporter": EXPORTED, "tls-server-end-point": b"\xff" * 32})
CONTEXT = Context(("example.nl",), NAMES, NONCE, CHANNEL, ("SCRAM-SHA-256",))
BOTH_SHOWN = evolve(CONTEXT, mechanisms=("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"))
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
PENCIL = ScramKeys.of("pencil", SALT, 4096)
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"


def looked_up(
    first: bytes, mechanism: Mechanism = SCRAM_SHA_256, context: Context = CONTEXT
) -> tuple[Exchange, str]:
    """An exchange that waits for keys, and whose."""
    exchange = mechanism.start(context, first)
    step = next(exchange)
    assert isinstance(step, Lookup)
    return exchange, step.username


def credential(exchange: Exchange, final: bytes) -> ScramCredential:
    step = exchange.send(final)
    assert isinstance(step, Verify)
    assert isinstance(step.credential, ScramCredential)
    return step.credential


def presented(
    client: ScramClient,
    mechanism: Mechanism = SCRAM_SHA_256,
    context: Context = CONTEXT,
    keys: ScramKeys = PENCIL,
) -> tuple[Exchange, ScramCredential]:
    """A client's whole way, up to what the accounts have to judge."""
    exchange, _ = looked_up(client.first(), mechanism, context)
    challenge = exchange.send(keys)
    assert isinstance(challenge, Challenge)
    return exchange, credential(exchange, client.final(challenge.octets))


def verifies(
    client: ScramClient,
    mechanism: Mechanism = SCRAM_SHA_256,
    context: Context = CONTEXT,
    keys: ScramKeys = PENCIL,
) -> bool:
    """Does the client get in, and the server's proof to it?"""
    exchange, judged = presented(client, mechanism, context, keys)
    if not judged.verify(keys):
        return False
    last = exchange.send(b"")
    assert isinstance(last, Challenge)
    assert client.knows(last.octets)
    with contextlib.suppress(StopIteration):
        exchange.send(b"")
        raise AssertionError("it does not end")
    return True


@proves("A2")
class ExampleTests(SynchronousTestCase):
    """The same password, salt and nonces with three channels."""

    def converse(
        self, mechanism: Mechanism, context: Context, first: bytes, binding: bytes, proof: str, signature: str
    ) -> None:
        exchange, username = looked_up(first, mechanism, context)
        self.assertEqual(username, "user")
        self.assertEqual(exchange.send(PENCIL), Challenge(SERVER_FIRST))
        nonce = SERVER_FIRST.partition(b",")[0]
        final = b"c=%b,%b,p=%b" % (base64.b64encode(binding), nonce, proof.encode())
        self.assertTrue(credential(exchange, final).verify(PENCIL))
        self.assertEqual(exchange.send(b""), Challenge(b"v=" + signature.encode()))
        self.assertRaises(StopIteration, exchange.send, b"")

    def test_rfc_7677(self) -> None:
        self.converse(
            SCRAM_SHA_256,
            CONTEXT,
            b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            b"n,,",
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        )

    def test_tls_exporter(self) -> None:
        """What other authors' clients compute for eight octets of channel."""
        self.converse(
            SCRAM_SHA_256_PLUS,
            evolve(BOTH_SHOWN, channel=Channel({"tls-exporter": bytes(range(8))})),
            b"p=tls-exporter,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            b"p=tls-exporter,," + bytes(range(8)),
            "QAd7eifevIt6X/f2Cv9W4HLXcFLw7OayX8dQ2scckyI=",
            "8dbpxwe4DaC4ESpY8u6aAvFeP2ks9+LClF/ADCxyWOE=",
        )

    def test_tls_server_end_point(self) -> None:
        """MailKit's example, whose channel is a text."""
        data = b"imap://elwood.innosoft.com/"
        self.converse(
            SCRAM_SHA_256_PLUS,
            evolve(BOTH_SHOWN, channel=Channel({"tls-server-end-point": data})),
            b"p=tls-server-end-point,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            b"p=tls-server-end-point,," + data,
            "5mTXE52q6omlPLhl1OBywbbmUZoqUb8TZ0rQcSODGrg=",
            "iTfhTdj45V52spZKUcXtZGOkyhurIJ8/UAxKKJZcmRQ=",
        )


@proves("A2")
class ConversationTests(SynchronousTestCase):
    def test_without_an_initial_response_the_challenge_is_empty(self) -> None:
        exchange = SCRAM_SHA_256.start(CONTEXT, None)
        self.assertEqual(next(exchange), Challenge(b""))
        self.assertEqual(exchange.send(ScramClient("user", "pencil").first()), Lookup("user"))

    def test_an_empty_initial_response_is_a_message(self) -> None:
        self.assertRaises(Malformed, looked_up, b"")

    def test_right_and_wrong(self) -> None:
        self.assertTrue(verifies(ScramClient("user", "pencil")))
        self.assertFalse(verifies(ScramClient("user", "Pencil")))

    def test_right_counts_only_after_the_empty_answer(self) -> None:
        client = ScramClient("user", "pencil")
        exchange, judged = presented(client)
        judged.verify(PENCIL)
        exchange.send(b"")
        self.assertRaises(Malformed, exchange.send, b" ")

    def test_accepted_without_verification(self) -> None:
        """A store that says yes without asking is not believed."""
        exchange, _ = presented(ScramClient("user", "pencil"))
        self.assertRaisesRegex(Denied, "at fault", exchange.send, b"")

    def test_the_keys_of_another_moment_do_not_fit(self) -> None:
        for changed in (
            ScramKeys.of("pencil", SALT[::-1], 4096),
            ScramKeys.of("pencil", SALT, 4097),
            ScramKeys.of("pencils", SALT, 4096),
        ):
            exchange, judged = presented(ScramClient("user", "pencil"))
            self.assertFalse(judged.verify(changed))
            self.assertIsNone(judged.server_signature)
            self.assertRaises(Denied, exchange.send, b"")

    @proves("A4")
    def test_names(self) -> None:
        """Escaped, in UTF-8, and prepared with SASLprep."""
        for sent, name in (
            ("a,b=c,,==", "a,b=c,,=="),
            ("=2C=3D2C", "=2C=3D2C"),
            ("zo\u00eb@example.nl", "zo\u00eb@example.nl"),
            ("\u2168", "IX"),
            ("I\u00adX", "IX"),
            ("\U00010400", "\U00010400"),
        ):
            with self.subTest(sent):
                self.assertEqual(looked_up(ScramClient(sent, "").first())[1], name)
        for prohibited in ("\u0007", "\u0221", "\u00ad", "\ufb1da"):
            self.assertRaisesRegex(Denied, "username", looked_up, ScramClient(prohibited, "").first())

    @proves("A4")
    def test_a_password_outside_ascii(self) -> None:
        keys = ScramKeys.of(saslprep("g\u20achei\u00admpje"), SALT, 4096)
        self.assertTrue(verifies(ScramClient("user", "g\u20acheimpje"), keys=keys))

    def test_authzid(self) -> None:
        for authzid in ("a,b=c", "\u00ada,b=c"):
            self.assertTrue(verifies(ScramClient("a,b=c", "pencil", authzid=authzid)))
        for client in (
            ScramClient("user", "pencil", authzid="other"),
            ScramClient("user", "pencil", authzid="User"),
        ):
            self.assertRaisesRegex(Denied, "authzid", looked_up, client.first())

    def test_extensions_are_passed_over_but_signed(self) -> None:
        client = ScramClient("user", "pencil", extension=",x=1,Y=zo\u00eb==")
        exchange, _ = looked_up(client.first())
        challenge = exchange.send(PENCIL)
        assert isinstance(challenge, Challenge)
        final = client.final(challenge.octets)
        self.assertTrue(credential(exchange, final).verify(PENCIL))
        self.assertTrue(verifies(client))
        exchange, _ = looked_up(client.first())
        exchange.send(PENCIL)
        changed = final.replace(b",x=1", b",x=2")
        self.assertFalse(credential(exchange, changed).verify(PENCIL))

    def test_a_mandatory_extension(self) -> None:
        self.assertRaisesRegex(Denied, "insists on", looked_up, b"n,,m=x,n=user,r=abc")

    def test_malformed_first_messages(self) -> None:
        for message in (
            *(b"", b"n", b"n,", b"n,,", b"n,,n=user", b"n,,n=user,r=", b"n,,n=,r=abc", b",,n=user,r=abc"),
            *(b"N,,n=user,r=abc", b"x,,n=user,r=abc", b"p,,n=user,r=abc", b"p=,,n=user,r=abc"),
            *(b"p=tls_exporter,,n=user,r=abc", b"n,user,n=user,r=abc", b"n,a=,n=user,r=abc"),
            *(b"n,a=us=er,n=user,r=abc", b"n,,n=us=er,r=abc", b"n,,n=user=,r=abc", b"n,,n=user=2c,r=abc"),
            *(b"n,,r=abc,n=user", b"n,,n=user,r=a b", b"n,,n=user,r=ab\x7f", b"n,,n=user,r=ab\xc3\xab"),
            *(b"n,,n=us\0er,r=abc", b"n,,n=us\xffer,r=abc", b"n,,n=us\xed\xa0\x80er,r=abc"),
            *(b"n,,n=user,r=abc,", b"n,,n=user,r=abc,x", b"n,,n=user,r=abc,x=", b"n,,n=user,r=abc,1=x"),
            *(b"n,,n=user,r=abc,n=other", b"n,,n=user,r=abc,r=abc", b"n,,n=user,r=abc,m=x"),
            *(b"n,,n=user,r=abc\n", b" n,,n=user,r=abc", b"n,,n=user,r=abc,x=\0"),
            *(b"n,,n=" + b"u" * 1025 + b",r=abc", b"n,,n=user,r=" + b"r" * 1025),
            b"n,,n=user,r=abc,x=" + b"x" * MAXIMUM_OCTETS,
        ):
            with self.subTest(message=message[:60]):
                self.assertRaises(Malformed, looked_up, message)

    def test_malformed_final_messages(self) -> None:
        proof = b",p=" + base64.b64encode(bytes(32))
        nonce = b",r=rOprNGfwEbeRWgbNEkqO" + NONCE.encode()
        for message in (
            *(b"", b"c=biws", b"c=biws" + nonce, nonce[1:] + b",c=biws" + proof, b"c=biws" + proof + nonce),
            *(b"c=bi=s" + nonce + proof, b"c=biw" + nonce + proof, b"c=biw*" + nonce + proof),
            *(b"c=biws" + nonce + proof[:-2], b"c=biws" + nonce + b",p=" + base64.b64encode(bytes(20))),
            *(b"c=biws" + nonce + proof + b",x=1", b"c=biws" + nonce + b",m=x" + proof, b"*"),
            *(b"c=biws" + nonce + b",x=\xff" + proof, b"c=biws" + nonce + proof + b"\n"),
            b"c=" + b"b" * 4 * MAXIMUM_OCTETS + nonce + proof,
        ):
            with self.subTest(message=message[:60]):
                exchange, _ = looked_up(ScramClient("user", "pencil").first())
                exchange.send(PENCIL)
                self.assertRaises(Malformed, exchange.send, message)

    def test_another_nonce(self) -> None:
        """A proof belongs to one exchange."""
        client = ScramClient("user", "pencil")
        client.first()
        for server_first in (SERVER_FIRST.replace(b"%h", b"%H"), SERVER_FIRST.replace(b"k0", b"k0k0")):
            exchange, _ = looked_up(client.first())
            exchange.send(PENCIL)
            self.assertRaisesRegex(Denied, "nonce", exchange.send, client.final(server_first))


@proves("A2")
class ChannelTests(SynchronousTestCase):
    """RFC 5802 6: who stands between us and the client is found out."""

    def bound(self, **changes: object) -> ScramClient:
        options = {"flag": "p=tls-exporter", "channel_data": EXPORTED, **changes}
        return ScramClient("user", "pencil", **options)  # type: ignore[arg-type]

    def test_bound(self) -> None:
        self.assertTrue(verifies(self.bound(), SCRAM_SHA_256_PLUS, BOTH_SHOWN))
        self.assertTrue(verifies(self.bound(authzid="user"), SCRAM_SHA_256_PLUS, BOTH_SHOWN))
        end_point = self.bound(flag="p=tls-server-end-point", channel_data=b"\xff" * 32)
        self.assertTrue(verifies(end_point, SCRAM_SHA_256_PLUS, BOTH_SHOWN))

    def test_another_channel(self) -> None:
        """Its proof is in order, for the channel that the client sees."""
        for data in (b"", EXPORTED[:-1], EXPORTED[::-1], EXPORTED + b"\0"):
            with self.assertRaisesRegex(Denied, "stands between"):
                presented(self.bound(channel_data=data), SCRAM_SHA_256_PLUS, BOTH_SHOWN)

    def test_another_header_than_the_first_one(self) -> None:
        """The gs2-header that the proof is about is the one that we have seen."""
        for seen, meant in (("n", "y"), ("y", "n")):
            exchange, _ = looked_up(ScramClient("user", "pencil", flag=seen).first())
            exchange.send(PENCIL)
            client = ScramClient("user", "pencil", flag=meant)
            client.first()
            self.assertRaisesRegex(Denied, "stands between", exchange.send, client.final(SERVER_FIRST))

    def test_types_that_the_channel_does_not_have(self) -> None:
        for kind in ("tls-unique", "tls-unique-for-telnet", "x", "TLS-EXPORTER"):
            client = self.bound(flag=f"p={kind}")
            with self.assertRaisesRegex(Denied, f"no channel binding '{kind}'; it has: tls-exporter, tls-"):
                looked_up(client.first(), SCRAM_SHA_256_PLUS, BOTH_SHOWN)
        nothing = evolve(BOTH_SHOWN, channel=Channel())
        with self.assertRaisesRegex(Denied, "it has: none"):
            looked_up(self.bound().first(), SCRAM_SHA_256_PLUS, nothing)
        empty = evolve(BOTH_SHOWN, channel=Channel({"tls-exporter": b""}))
        with self.assertRaises(Denied):
            looked_up(self.bound(channel_data=b"").first(), SCRAM_SHA_256_PLUS, empty)

    def test_plus_without_binding(self) -> None:
        for flag in "ny":
            with self.assertRaisesRegex(Denied, "without channel binding"):
                looked_up(self.bound(flag=flag).first(), SCRAM_SHA_256_PLUS, BOTH_SHOWN)

    def test_binding_without_plus(self) -> None:
        self.assertRaisesRegex(Denied, "-PLUS mechanism alone", looked_up, self.bound().first())

    def test_downgrade(self) -> None:
        """``y`` is a client that could, had it only been shown -PLUS."""
        client = ScramClient("user", "pencil", flag="y")
        self.assertTrue(verifies(client))
        with self.assertRaisesRegex(Denied, "changed the list"):
            looked_up(client.first(), context=BOTH_SHOWN)
        self.assertTrue(verifies(ScramClient("user", "pencil"), context=BOTH_SHOWN))


@proves("A2")
class TheirClientTests(SynchronousTestCase):
    """``scramp``'s client, which knows one of our two channel bindings."""

    def converse(self, client: TheirClient, context: Context) -> bool:
        mechanism = {each.name: each for each in (SCRAM_SHA_256, SCRAM_SHA_256_PLUS)}[client.mechanism_name]
        exchange, username = looked_up(client.get_client_first().encode(), mechanism, context)
        self.assertEqual(username, "zo\u00eb, of a=b")
        challenge = exchange.send(PENCIL)
        assert isinstance(challenge, Challenge)
        client.set_server_first(challenge.octets.decode())
        if not credential(exchange, client.get_client_final().encode()).verify(PENCIL):
            return False
        last = exchange.send(b"")
        assert isinstance(last, Challenge)
        client.set_server_final(last.octets.decode())
        return True

    def test_their_client(self) -> None:
        name = "zo\u00eb, of a=b"
        mechanisms = ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]
        binding = ("tls-server-end-point", b"\xff" * 32)
        for client, context in (
            (TheirClient(mechanisms[:1], name, "pencil"), CONTEXT),
            (TheirClient(mechanisms[:1], name, "pencil", channel_binding=binding), CONTEXT),
            (TheirClient(mechanisms, name, "pencil", channel_binding=binding), BOTH_SHOWN),
        ):
            with self.subTest(client.mechanism_name):
                self.assertTrue(self.converse(client, context))
        self.assertFalse(self.converse(TheirClient(mechanisms[:1], name, "Pencil"), CONTEXT))


def _conversation(client: ScramClient) -> tuple[bytes, bytes]:
    return client.first(), client.final(SERVER_FIRST)


_VALID = (
    (SCRAM_SHA_256, *_conversation(ScramClient("user", "pencil"))),
    (
        SCRAM_SHA_256_PLUS,
        *_conversation(
            ScramClient(
                "user",
                "pencil",
                flag="p=tls-exporter",
                channel_data=EXPORTED,
                authzid="user",
                extension=",x=y",
            )
        ),
    ),
)
_WORDS = [
    *(
        b",",
        b"=",
        b"n,,",
        b"y,,",
        b"p=",
        b"tls-exporter",
        b"a=",
        b"n=",
        b"r=",
        b"c=",
        b"p=",
        b"m=",
        b"=2C",
        b"=3D",
    ),
    *(b"biws", b"user", b"\0", b"\xff", b"\xc3\xab", b"v=", SERVER_FIRST, b"rOprNGfwEbeRWgbNEkqO"),
]
_ANYTHING = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from(_WORDS), max_size=30).map(b"".join),
)


@proves("A2")
class HostileTests(SynchronousTestCase):
    """Whatever the octets: Malformed, Denied, or a credential that no keys fit."""

    def accepted(self, mechanism: Mechanism, first: bytes, final: bytes, last: bytes = b"") -> bool:
        with contextlib.suppress(Malformed, Denied):
            exchange, username = looked_up(first, mechanism, BOTH_SHOWN)
            exchange.send(PENCIL)
            judged = credential(exchange, final)
            if not judged.verify(PENCIL):
                return False
            exchange.send(b"")
            with contextlib.suppress(StopIteration):
                exchange.send(last)
                raise AssertionError("it does not end")
            self.assertEqual(username, "user")
            return True
        return False

    def test_every_cut(self) -> None:
        for mechanism, first, final in _VALID:
            self.assertTrue(self.accepted(mechanism, first, final))
            for end in range(len(first)):
                self.assertFalse(self.accepted(mechanism, first[:end], final))
            for end in range(len(final)):
                self.assertFalse(self.accepted(mechanism, first, final[:end]))

    def test_every_bit(self) -> None:
        """The proof covers all of both messages; only the last two bits of its own base64 mean nothing."""
        for mechanism, first, final in _VALID:
            for changed in _flipped(first):
                self.assertFalse(self.accepted(mechanism, changed, final), changed)
            for changed in _flipped(final):
                same = _proof(changed) == _proof(final) and changed[:-44] == final[:-44]
                self.assertEqual(self.accepted(mechanism, first, changed), same, changed)

    @settings(deadline=None, max_examples=150)
    @given(st.sampled_from([SCRAM_SHA_256, SCRAM_SHA_256_PLUS]), _ANYTHING, _ANYTHING)
    def test_anything(self, mechanism: Mechanism, first: bytes, final: bytes) -> None:
        self.assertFalse(self.accepted(mechanism, first, final))

    @settings(deadline=None, max_examples=150)
    @given(st.sampled_from(_VALID), _ANYTHING, st.integers(0, 400), st.booleans())
    def test_anything_within(
        self, valid: tuple[Mechanism, bytes, bytes], more: bytes, position: int, in_first: bool
    ) -> None:
        mechanism, *messages = valid
        which = messages[0 if in_first else 1]
        changed = which[:position] + more + which[position:]
        messages[0 if in_first else 1] = changed
        self.assertEqual(self.accepted(mechanism, *messages), changed == which)

    @settings(deadline=None, max_examples=50)
    @given(_ANYTHING)
    def test_any_last_answer(self, last: bytes) -> None:
        mechanism, first, final = _VALID[0]
        self.assertEqual(self.accepted(mechanism, first, final, last), not last)


def _flipped(message: bytes) -> Iterator[bytes]:
    for position in range(len(message)):
        for bit in range(8):
            changed = bytearray(message)
            changed[position] ^= 1 << bit
            yield bytes(changed)


def _proof(final: bytes) -> bytes:
    try:
        return base64.b64decode(final[-44:], validate=True)
    except ValueError:
        return b""
