"""LDAP's messages, octet by octet, without a server."""

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.ldap.codec import Answer, Codec, Entry, NotLDAP
from tests.ldap_server import BIND, SEARCH, Content, control, entry, reference, referral, result, tagged
from tests.requirements import proves

PASSWORD_POLICY = "1.3.6.1.4.1.42.2.27.8.5.1"


def message(content: Content, number: int = 1) -> bytes:
    return tagged(0x30, tagged(2, bytes([number])), content)


class CodecCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.codec = Codec()
        self.addCleanup(self.codec.close)

    def search(self, filter_text: str = "(uid=piet)") -> bytes:
        return self.codec.search("dc=nl", "sub", filter_text, ("uid",), size=2, seconds=3)

    def receive(self, *contents: Content, number: int = 1) -> Answer | None:
        return self.codec.receive(b"".join(message(content, number) for content in contents))


class RequestTests(CodecCase):
    def test_search(self) -> None:
        octets = self.search()
        for part in (b"dc=nl", b"uid", b"piet"):
            self.assertIn(part, octets)

    def test_what_is_no_filter(self) -> None:
        for text in ("(uid", "(uid=a)(b=c)", "(&(uid=a)", "()", "(uid=\\zz)"):
            self.assertRaises(NotLDAP, self.search, text)

    def test_start_tls(self) -> None:
        self.assertIn(b"1.3.6.1.4.1.1466.20037", self.codec.start_tls())

    @proves("A5")
    def test_no_bind_without_a_name_or_a_password(self) -> None:
        """A server takes one for a success, and for nobody (RFC 4513 5.1.1 and 5.1.2)."""
        for dn, password in (("cn=piet", ""), ("", "geheim"), ("", "")):
            self.assertRaises(ValueError, self.codec.bind, dn, password)
        octets = self.codec.bind("cn=piet", "g€heim\0x")
        self.assertIn("g€heim\0x".encode(), octets)
        self.assertIn(PASSWORD_POLICY.encode(), octets)

    def test_too_long(self) -> None:
        for size in (1 << 18, 1 << 21):
            codec = Codec()
            self.addCleanup(codec.close)
            with self.assertRaises(NotLDAP):
                codec.bind("cn=piet", "x" * size)

    def test_it_never_connects_by_itself(self) -> None:
        """With its connection gone, libldap looks for the server: there is none where it looks."""
        self.codec._outside.close()
        for _ in range(2):
            error = self.assertRaises(NotLDAP, self.codec.bind, "cn=piet", "geheim")
            self.assertIn("Can't contact LDAP server", str(error))


class AnswerTests(CodecCase):
    def test_cut_anywhere(self) -> None:
        found = entry("cn=piet", uid="piet", MAIL="piet@one.nl")
        whole = message(found) + message(reference("ldap://elsewhere")) + message(result(SEARCH))
        expected = Answer(0, "success", (Entry("cn=piet", {"uid": (b"piet",), "mail": (b"piet@one.nl",)}),))
        for cut in range(len(whole)):
            codec = Codec()
            self.addCleanup(codec.close)
            codec.search("dc=nl", "sub", "(uid=piet)", ("uid",), size=2, seconds=3)
            self.assertIsNone(codec.receive(whole[:cut]))
            self.assertEqual(codec.receive(whole[cut:]), expected, cut)

    def test_octet_by_octet(self) -> None:
        self.search()
        *octets, last = message(entry("cn=piet", uid="piet")) + message(result(SEARCH))
        for octet in octets:
            self.assertIsNone(self.codec.receive(bytes([octet])))
        answer = self.codec.receive(bytes([last]))
        assert answer is not None
        self.assertEqual([each.dn for each in answer.entries], ["cn=piet"])

    def test_a_no(self) -> None:
        self.codec.bind("cn=piet", "geheim")
        answer = self.receive(result(BIND, 49, "80090308: AcceptSecurityContext error, data 775"))
        assert answer is not None
        self.assertEqual(answer.code, 49)
        self.assertIn("Invalid credentials: 80090308", answer.text)

    def test_one_after_the_other(self) -> None:
        for number in range(1, 5):
            self.search()
            self.assertIsNotNone(self.receive(result(SEARCH), number=number))

    def test_referral(self) -> None:
        """It is an answer like any other, and no success."""
        self.search()
        answer = self.receive(referral(SEARCH))
        self.assertEqual(answer and answer.code, 10)

    @proves("A5")
    def test_what_is_no_answer(self) -> None:
        wrong: dict[str, bytes] = {
            "to another kind of request": message(result(SEARCH)),
            "of an unknown kind": message(Content(tagged(0x6F, b"\x0a\x01\x00"))),
            "with nothing in it": message(Content(b"")),
            "without an id": tagged(0x30, result(BIND)),
            "with an indefinite length": b"\x30\x80\x02\x01\x01\x00\x00",
            "with a length of 8 octets": b"\x30\x88" + bytes(8),
            "not a sequence": b"\x31\x03\x02\x01\x01",
            "another protocol": b"HTTP/1.1 200 OK\r\n\r\n",
            "a success that ends early": message(Content(b"\x61\x03\x0a\x01\x00")),
            "a bind that goes on (SASL)": message(result(BIND, 14)),
        }
        for case, octets in wrong.items():
            codec = Codec()
            self.addCleanup(codec.close)
            codec.bind("cn=piet", "geheim")
            try:
                answer = codec.receive(octets)
            except NotLDAP:
                continue
            self.assertFalse(answer is not None and answer.code == 0, case)

    @proves("A5")
    def test_an_answer_to_another_request(self) -> None:
        self.codec.bind("cn=piet", "geheim")
        for number in (0, 2, 77):
            try:
                self.assertIsNone(self.receive(result(BIND), number=number))
            except NotLDAP:
                return  # 0 is a notice of disconnection (RFC 4511 4.4.1)

    def test_unasked(self) -> None:
        self.assertRaises(NotLDAP, self.receive, result(BIND))


@proves("A5")
class PolicyTests(CodecCase):
    """A password policy can have something against a login that is a success."""

    def bound(self, controls: bytes) -> Answer:
        self.codec.bind("cn=piet", "geheim")
        answer = self.receive(result(BIND, controls=controls))
        assert answer is not None
        self.assertEqual(answer.code, 0)
        return answer

    def test_content(self) -> None:
        for value, says in {
            tagged(0x30): "",
            tagged(0x30, tagged(0xA0, tagged(0x80, b"\x10"))): "",  # it expires in 16 seconds
            tagged(0x30, tagged(0xA0, tagged(0x81, b"\x02"))): "the password has expired",  # 2 more logins
            tagged(0x30, tagged(0x81, b"\x00")): "the password has expired",
            tagged(0x30, tagged(0x81, b"\x01")): "the account is locked",
            tagged(0x30, tagged(0x81, b"\x02")): "the password must be changed",
            tagged(0x30, tagged(0x81, b"\x06")): "password policy error 6",
        }.items():
            self.codec = Codec()
            self.addCleanup(self.codec.close)
            self.assertEqual(self.bound(control(PASSWORD_POLICY, value)).policy, says, value)

    def test_without(self) -> None:
        self.assertEqual(self.bound(b"").policy, "")

    def test_of_another_make(self) -> None:
        says = self.bound(control("2.16.840.1.113730.3.4.4", b"0")).policy
        self.assertEqual(says, "the password has expired")

    def test_unreadable(self) -> None:
        for value in (b"", b"\xff", tagged(0x30, tagged(0x81, b"\x63"))):
            self.codec = Codec()
            self.addCleanup(self.codec.close)
            self.assertRaises(NotLDAP, self.bound, control(PASSWORD_POLICY, value))
