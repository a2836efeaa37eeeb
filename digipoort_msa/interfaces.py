"""Every seam of the MSA: what a realm, a policy, a spool or a delivery back end promises.

An engineer who adds a back end implements one of these and declares it in one line of
:mod:`digipoort_msa.service`.  Addresses, envelopes and replies are the frozen values of
:mod:`digipoort_msa.smtp`; nothing here knows about sockets.

Errors have one rule everywhere.  A decision against the client is
:class:`digipoort_msa.smtp.reply.Refused`, which carries the reply to send; any other
exception is our own failure, is logged, and is a 451 to the client.
"""

from zope.interface import Attribute, Interface


class Unavailable(Exception):
    """A store or a service that we depend on cannot answer now: the client may come back.

    To a login it is ``454 4.7.0``, elsewhere 451; the cause is for the log alone.
    """


class Throttled(Exception):
    """Too many logins failed: no further one is looked at for a while (A8); ``421 4.7.0``."""

    def __init__(self, retry_after: float) -> None:
        """:param retry_after: seconds from now until an attempt is looked at again; for the log."""
        super().__init__(f"too many failed logins; the next is looked at in {retry_after:.0f} s")
        self.retry_after = retry_after


class Damaged(Exception):
    """A stored content is not what was received; the text says in what, for the log and the operator.

    Whoever reads a content (:class:`IContentReader`) may meet it, before the last segment at the latest.
    """


class IRealms(Interface):
    """Every realm of this MSA behind one door: who may log in with what, and as whom."""

    mechanisms = Attribute(
        "tuple[str, ...]: the SASL mechanisms that some realm offers, in the registry's order"
    )

    def realms_offering(mechanism):
        """Which realms offer a mechanism: it is in their settings, and their store can verify it (A7).

        :param mechanism: ``str``, as in the registry.
        :return: ``tuple[str, ...]`` of realm names, the first realm first.
        """

    def login(credential, source):
        """Find the credential's realm, verify it, and give the submitter it stands for.

        :param credential: provides one of the interfaces of :mod:`digipoort_msa.sasl.credentials`.
        :param source: ``str``, the client's IP address; guessing is counted by it (A8).
        :return: ``Deferred[ISubmitter]``.  It may take its time on purpose, after failures.
        :raise UnauthorizedLogin: (``twisted.cred.error``; all of these as the Deferred's failure) the
            credential is no good, for whatever reason: 535.  The text says which, for the log (A5).
        :raise Unavailable: the store cannot be asked, or too many verifications wait: 454.
        :raise Throttled: too many failures: 421.
        """


class IAccountStore(Interface):
    """The accounts of one realm, wherever they are kept."""

    mechanisms = Attribute("frozenset[str]: the SASL mechanisms this store can verify (A7)")

    def account(username):
        """Look an account up.

        :param username: ``str``, prepared with SASLprep (A4).
        :return: ``Deferred[Account | None]``; ``None`` for an unknown name.  An account that may not
            log in is returned with its status, never hidden: the checker decides (CVE-2022-24732).
        :raise Unavailable: (as the Deferred's failure) the store cannot be asked now; the client is
            told ``454 4.7.0``.
        """


class IUpgradableAccountStore(IAccountStore):
    """A store whose password hashes can be made anew, with the parameters of today (A7)."""

    def upgrade(username, old, new):
        """Replace a password's hash by another of the same password.

        :param old: the hash that was verified; where the account has another by now, nothing happens.
        :return: ``Deferred[bool]``: whether it was replaced.
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
    """A rule on what may be submitted.  Each method returns ``None``, now or as a Deferred, or raises
    :class:`~digipoort_msa.smtp.reply.Refused`."""

    def sender(account, path, parameters):
        """At MAIL: may ``account`` (its name, ``str``) send from ``path``?"""

    def recipient(account, envelope, path, parameters):
        """At RCPT: may this transaction (an ``Envelope`` so far) have ``path`` as one more recipient?"""

    def content(account, envelope, head):
        """At the end of data: may this message pass?  ``head`` is its first octets, 64 KiB at most."""


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
