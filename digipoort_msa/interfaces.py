"""Every seam of the MSA: what a realm, a policy, a spool or a delivery back end promises.

An engineer who adds a back end implements one of these and declares it in one line of
:mod:`digipoort_msa.service`.  Addresses, envelopes and replies are the frozen values of
:mod:`digipoort_msa.smtp`; nothing here knows about sockets.

Errors have one rule everywhere.  A decision against the client is
:class:`digipoort_msa.smtp.reply.Refused`, which carries the reply to send; any other
exception is our own failure, is logged, and is a 451 to the client.
"""

from datetime import date
from pathlib import Path
from typing import Any

from attrs import frozen
from zope.interface import Attribute, Interface


@frozen
class Facilities:
    """What the service hands to a store or a policy when it opens it; all of it is shared."""

    reactor: Any  # never the global one
    threads: Any  # :class:`~digipoort_msa.threads.Threads`: ``call(work, *arguments)`` for what blocks
    state_directory: Path  # of the service: for what has to survive a restart


class Unavailable(Exception):
    """A store or a service that we depend on cannot answer now: the client may come back.

    To a login it is ``454 4.7.0``, elsewhere 451; the cause is for the log alone.
    """


class Throttled(Exception):
    """Too many logins failed: no further one is looked at for a while (A8); ``421 4.7.0``."""

    def __init__(self, retry_after: float, which: str = "") -> None:
        """
        :param retry_after: seconds from now until an attempt is looked at again; for the log.
        :param which: failed logins there were too many of, such as "from this source"; for the log.
        """
        of = f" {which}" if which else ""
        super().__init__(f"too many failed logins{of}; the next is looked at in {retry_after:.0f} s")
        self.retry_after = retry_after


class MechanismRetired(Exception):
    """The password was right, but this account's time for the mechanism is over: ``534 5.7.9`` (RFC 4954 6).

    It comes only after the proof, so that it tells a stranger nothing.
    """

    def __init__(self, mechanism: str, since: date) -> None:
        super().__init__(f"{mechanism} is switched off for this account; its last day was {since}")
        self.mechanism = mechanism
        self.since = since


class Damaged(Exception):
    """A stored content is not what was received; the text says in what, for the log and the operator.

    Whoever reads a content (:class:`IContentReader`) may meet it, before the last segment at the latest.
    """


class IRealms(Interface):
    """Every realm of this MSA behind one door: who may log in with what, and as whom."""

    def offered(channel, allowed=None):
        """The mechanisms that can succeed on one connection now: what EHLO shows there, and AUTH takes.

        :param channel: :class:`~digipoort_msa.sasl.mechanism.Channel`, what the connection itself can prove;
            ``None`` for one in clear, which is shown what it will find under TLS (T2).
        :param allowed: ``frozenset[str]``, what the listener's settings allow; ``None`` for all.
        :return: ``tuple[str, ...]`` in the registry's order.
        """

    def retired(allowed=None):
        """The mechanisms that realms would offer, were their time not over in all of them: AUTH tells so.

        :param allowed: as for :meth:`offered`.
        :return: ``frozenset[str]``.
        """

    def why_nobody(certificate):
        """Why a certificate logs nobody in, for the log: :meth:`offered` has no EXTERNAL for it.

        :param certificate: :class:`~digipoort_msa.sasl.certificate.ClientCertificate`.
        :return: ``str``.
        """

    def realms_offering(mechanism):
        """Which realms offer a mechanism now: it is in their settings, their store can verify it (A7), and
        its time is not over.

        :param mechanism: ``str``, as in the registry.
        :return: ``tuple[str, ...]`` of realm names, the first realm first.
        """

    def scram_keys(username):
        """What a SCRAM exchange with a name goes by.

        A name that has no keys, whatever the reason, gets some that no password fits: the same each time, so
        that a client's clock and eye find no difference (A5).

        :return: ``Deferred[ScramKeys]``.
        :raise Unavailable: (as the failure) the store cannot be asked: 454.
        """

    def login(credential, source, mechanism):
        """Find the credential's realm, verify it, and give the submitter it stands for.

        :param credential: provides one of the interfaces of :mod:`digipoort_msa.sasl.credentials`.
        :param source: ``str``, the client's IP address; guessing is counted by it (A8).
        :param mechanism: ``str``, the mechanism that brought the credential.
        :return: ``Deferred[ISubmitter]``.  It may take its time on purpose, after failures.
        :raise UnauthorizedLogin: (``twisted.cred.error``; all of these as the Deferred's failure) the
            credential is no good, for whatever reason: 535.  The text says which, for the log (A5).
        :raise MechanismRetired: it is good, but the mechanism is over for this account: 534.
        :raise Unavailable: the store cannot be asked, or too many verifications wait: 454.
        :raise Throttled: too many failures: 421.
        """


class IAccountStore(Interface):
    """The accounts of one realm, wherever they are kept.

    Opening a store reads files at the most; whatever connects does so when it is first asked.
    """

    mechanisms = Attribute(
        "frozenset[str]: the SASL mechanisms this store can verify (A7).  EXTERNAL need not be among them: "
        "every store that finds accounts can serve it."
    )

    def account(username):
        """Look an account up.

        :param username: ``str``, prepared with SASLprep (A4); the account's name has to equal it exactly.
        :return: ``Deferred[Account | None]``; ``None`` for an unknown name.  An account that may not
            log in is returned with its status, never hidden: the checker decides (CVE-2022-24732).
        :raise Unavailable: (as the Deferred's failure) the store cannot be asked now, or answers what makes
            no sense; the client is told ``454 4.7.0``.  It comes in bounded time.
        """

    def stop():
        """Let go of connections and files; nobody asks any more.

        :return: ``None``, or a Deferred that fires when all is let go of.
        """


class IEvenStore(IAccountStore):
    """A store that tells nothing by its clock: it takes as long for a name it has not as for one it has, and
    its password hashes are all of the current kind.  Refusals of all other stores are levelled (A5), so that
    a store need not be this one.
    """


class IPasswordVerifier(IAccountStore):
    """A store that yields no password hash, and verifies passwords itself (an LDAP bind, say)."""

    def verify(account, password):
        """Is ``password`` the account's?

        :param account: ``Account``, just read from this store, and one that may log in.
        :param password: ``str``, prepared with SASLprep, never empty.
        :return: ``Deferred[bool]``: true only where the back end said so, in so many words.
        :raise Unavailable: (as the failure) it cannot be asked now; in bounded time.
        """


class INamelessStore(IPasswordVerifier):
    """A store that cannot tell which accounts there are: it gives an active one for every name, and
    ``verify`` decides.  Nothing but a password may log in to these, so that EXTERNAL is never offered.
    """


class IUpgradableAccountStore(IAccountStore):
    """A store whose password hashes and SCRAM keys can be made anew at a login (A7)."""

    keeps = Attribute(
        'frozenset[str]: what of these it can keep, "password_hash" and "scram"; nothing else is made, which '
        "takes time."
    )

    def upgrade(account, password_hash, scram):
        """Replace what a password is verified with by something newer of the same password.

        :param account: as it was when the password was verified; where its hash is another by now, nothing
            happens.
        :param password_hash: the new hash, or ``None`` to leave it as it is.
        :param scram: :class:`~digipoort_msa.sasl.scram_keys.ScramKeys`, or ``None`` likewise.
        :return: ``Deferred[bool]``: whether they were replaced.
        :raise Unavailable: (as the failure) not now.
        """


class ISubmitter(Interface):
    """The avatar of ``twisted.cred``: an account that may submit."""

    account = Attribute("str: the account's name, as stored")
    realm = Attribute("str: the realm's name")

    def begin(reverse_path, parameters, trace):
        """Start a mail transaction (MAIL).

        :param reverse_path: :class:`~digipoort_msa.smtp.envelope.Path`.
        :param parameters: :class:`~digipoort_msa.smtp.envelope.MailParameters`.
        :param trace: :class:`~digipoort_msa.smtp.envelope.Trace`: the facts for ``Received:`` and the log.
        :return: :class:`ISubmission`, now or as a Deferred.  Who cancels it needs no ``abort``.
        :raise Refused: policy says no; also as the Deferred's failure.
        """


class ISubmission(Interface):
    """One mail transaction.  After ``commit`` or ``abort`` it is spent."""

    queue_id = Attribute("str: the id that the log, ``Received:``, the 250 and the queue tools show (M6)")

    def recipient(forward_path, parameters):
        """Add a recipient (RCPT).

        :return: ``None``, now or as a Deferred.
        :raise Refused: this recipient is not accepted; the others stand.
        """

    def open():
        """Content begins (DATA or the first BDAT)."""

    def write(octets):
        """Take a segment of content, already unstuffed.

        :param octets: ``bytes``.
        :return: ``None``, or a Deferred that fires when more may be written: the caller stops reading
            from the client until then, which is what keeps memory constant.
        """

    def commit():
        """Content is complete.

        :return: a Deferred that fires with the queue id only when message and envelope are on stable
            storage (M6).
        :raise Refused: as the failure, when a policy or the store refuses the whole message.
        """

    def abort():
        """Forget everything; safe at any moment before ``commit`` was called."""


class IPolicy(Interface):
    """One rule of a realm on what its accounts may submit.  It serves all sessions of the realm, and keeps
    nothing of one of them: that is for the :class:`IJudgement`.

    :class:`digipoort_msa.policy.rule.Rule` and :class:`~digipoort_msa.policy.rule.Judgement` agree to
    everything.
    """

    def begin(identity, trace):
        """A mail transaction begins.

        :param identity: :class:`~digipoort_msa.identity.Identity`, who submits.
        :param trace: :class:`~digipoort_msa.smtp.envelope.Trace`.
        :return: :class:`IJudgement` for this transaction alone.
        """

    def stop():
        """Let go of connections, files and threads; no transaction is open any more.

        :return: ``None``, or a Deferred that fires when all is let go of.
        """


class IJudgement(Interface):
    """What one rule has to say of one mail transaction.

    ``sender``, ``recipient``, ``open``, ``write`` and ``complete`` return ``None`` to go on, now or as a
    Deferred, or raise :class:`~digipoort_msa.smtp.reply.Refused`, also as the Deferred's failure.  None is
    called while the Deferred of another is open, but a Deferred may be cancelled, and ``abort`` follows then.
    In the end there is one ``accepted`` or one ``abort``, never both, whatever happened before.
    """

    def sender(path, parameters):
        """MAIL.

        :param path: :class:`~digipoort_msa.smtp.envelope.Path`, the reverse-path.
        :param parameters: :class:`~digipoort_msa.smtp.envelope.MailParameters`.
        """

    def recipient(envelope, path, parameters):
        """RCPT: a refusal is of this recipient alone.

        :param envelope: :class:`~digipoort_msa.smtp.envelope.Envelope` with the recipients accepted so far.
        """

    def open(envelope):
        """Content begins (DATA or the first BDAT); ``envelope`` has all its recipients."""

    def write(octets):
        """A segment of content as the client sent it, dots unstuffed, without our ``Received:``.

        :return: ``None``, or a Deferred: no more comes until it fires, and the client is not read from.  A
            verdict on content waits for :meth:`complete`; one that is raised here is given there.
        """

    def complete():
        """The content was all there is: may this message pass?"""

    def accepted():
        """The message is taken: its 250 is certain."""

    def abort():
        """The transaction ended in any other way; nothing is asked any more."""


class IIntake(Interface):
    """What takes messages in and answers for them: stable storage, or the next hop itself (M6)."""

    def receive(realm):
        """Begin a message; returns :class:`IIncoming` at once, with a fresh queue id.

        :param realm: ``str``, the realm that its account belongs to.
        :raise Refused: no message can be taken now, for want of space say: 452.
        """


class IIncoming(Interface):
    """A message on its way in.  Where it goes to stable storage, ``sender`` and ``recipient`` are nothing but
    ``None``; where a next hop takes it, they are that hop's verdicts."""

    queue_id = Attribute("str: unique for as long as logs are kept")

    def sender(envelope):
        """MAIL: ``envelope`` has no recipients yet.

        :return: ``None``, now or as a Deferred.
        :raise Refused: the hop says no, or none can be reached; also as the Deferred's failure.
        """

    def recipient(path, parameters):
        """RCPT: one more recipient.

        :return: ``None``, now or as a Deferred.
        :raise Refused: this recipient is not accepted; the others stand.
        """

    def write(octets):
        """Append content; returns ``None``, or a Deferred to wait for before writing more."""

    def commit(envelope):
        """Make it durable.

        :param envelope: :class:`~digipoort_msa.smtp.envelope.Envelope` with this queue id.
        :return: Deferred that fires with the content's location (``str``, for the log) once the message
            survives a power cut.  Its failure means that nothing was kept.
        :raise Refused: (as the failure) with the reply for the client; any other failure is a 451.
        """

    def abort():
        """Remove what was written; at most once, and never after ``commit``.  Where a client is cut off, the
        Deferred of ``sender`` or ``recipient`` that is still open has been cancelled just before."""


class IContent(Interface):
    """A stored message's octets, readable as often as needed."""

    size = Attribute("int: octets")
    eight_bit = Attribute("bool: some octet is above 127, so 8BITMIME is needed (RFC 6152)")

    def open():
        """Return a fresh :class:`IContentReader` at the first octet."""


class IContentReader(Interface):
    """One reading of a content, a segment at a time, never blocking the reactor."""

    def read():
        """The next segment.

        :return: ``Deferred[bytes]``: 256 KiB at most, ``b""`` at the end.
        :raise Damaged: (as the failure) the content is not what was received.  This comes instead of the
            last segment at the latest, so that whoever passes segments on as they come, and says that they
            are the whole only after the last one, never says so of a damaged content.
        """

    def close():
        """Let go of the file; safe to call twice."""


class IDelivery(Interface):
    """The way out: hands a message to what comes next."""

    def deliver(envelope, content):
        """Try each recipient of ``envelope`` once.

        :param envelope: :class:`~digipoort_msa.smtp.envelope.Envelope`; its recipients are the ones
            still to be served.
        :param content: :class:`IContent`.
        :return: ``Deferred[Mapping[Path, Outcome]]`` with an
            :class:`~digipoort_msa.smtp.envelope.Outcome` for every recipient: 2yz is done, 4yz is tried
            again later, 5yz is a permanent failure.  It does not fail for anything a peer does; a
            failure is a defect, counts as 4yz for all, and is logged.
        """

    def stop():
        """Let go of connections and files; no delivery is under way then, or asked for later.

        :return: a Deferred that fires when all is let go of.
        """


class INotifications(Interface):
    """Tells senders what became of their messages (RFC 3464); one object for each realm.

    It writes, and sends nothing: the queue keeps what it has written in the same transaction that records
    the news, and delivers it like any other message, with the null reverse-path.
    """

    def may_tell(envelope):
        """May the sender be told at all?

        Not where the reverse-path is null (no notification of a notification), nor where it is not known to
        be the account's own: a notification must not be a way to send mail to strangers.

        :return: ``str | None``: why not, for the log and the operator; ``None`` where it may.
        """

    def write(envelope, content, fates, queue_id, now, retry_until):
        """Write one notification about some recipients of a message.

        :param envelope: the message's :class:`~digipoort_msa.smtp.envelope.Envelope`.
        :param content: the message's :class:`IContent`.
        :param fates: ``Sequence[Fate]``, not empty: what to tell of whom.
        :param queue_id: ``str``, the notification's own; its ``Message-ID`` is made of it.
        :param now: seconds since the epoch.
        :param retry_until: seconds since the epoch at which a delayed message is given up.
        :return: ``Deferred[bytes]``: a whole message (RFC 5322), CRLF line ends, 512 KiB at most.
        """
