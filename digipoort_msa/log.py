"""The events of the MSA's log: one line each in the journal, structured fields beneath.

Every event is one constant here: its name, its level and the sentence that a person reads.  The fields
in the sentence are the fields of the structured event, so a JSON observer
(``twistd --logger=digipoort_msa.log_lines.json_observer``) shows the same facts to a machine.  One session
id ties a connection's events together, one queue id a message's.  No event carries a credential.
"""

from time import time

from attrs import frozen
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

NAMESPACE = "digipoort_msa"
_logger = Logger(namespace=NAMESPACE)


@frozen
class Event:
    """One kind of event; ``sentence`` is a Twisted log format."""

    name: str
    sentence: str
    level: LogLevel = LogLevel.info


def emit(event: Event, **fields: object) -> None:
    """Log one event.  Text that a peer chose is shown with its controls escaped, so that it cannot
    forge a line."""
    for name, value in fields.items():
        fields[name] = _printable(value)
    # What Logger.emit does, but that it goes through all levels each time to see whether this is one.
    fields.update(
        event=event.name,
        log_logger=_logger,
        log_level=event.level,
        log_namespace=NAMESPACE,
        log_source=None,
        log_format=event.sentence,
        log_time=time(),
    )
    _logger.observer(fields)


def failure(event: Event, reason: Failure | None, **fields: object) -> None:
    """Log a defect of ours with its traceback."""
    shown = {name: _printable(value) for name, value in fields.items()}
    _logger.failure(event.sentence, failure=reason, level=event.level, event=event.name, **shown)


def _printable(value: object) -> object:
    if isinstance(value, str) and not value.isprintable():
        return value.encode("unicode_escape").decode("ascii")
    return value


# -- connections (server) --------------------------------------------------------------------------
LISTENING = Event("listening", "listening on {address} ({tls})")
CONNECTED = Event("connected", "{session} connected from {peer} to {listener}")
TLS_STARTED = Event("tls-started", "{session} TLS is up: {tls}")
CLIENT_CERTIFICATE = Event(
    "client-certificate",
    "{session} the client shows the certificate of {subject}, serial {serial} of {issuer}; "
    "EXTERNAL {external}",
)
CLIENT_CERTIFICATE_UNUSABLE = Event(
    "client-certificate-unusable",
    "{session} the certificate that {peer} shows names nobody: {reason}",
    LogLevel.warn,
)
TLS_FAILED = Event("tls-failed", "{session} TLS failed with {peer}: {reason}", LogLevel.warn)
DISCONNECTED = Event("disconnected", "{session} disconnected: {reason}; {messages} queued")
REFUSED = Event("refused", "{session} {command} refused with {reply}: {reason}", LogLevel.warn)

# -- authentication (server, accounts) -------------------------------------------------------------
AUTHENTICATED = Event(
    "authenticated", "{session} authenticated as {account} in realm {realm} with {mechanism}"
)
# etc/fail2ban goes by this line: the peer and the reply stand before anything that the client has chosen.  No
# line of this log begins with what anyone else has chosen: it could be taken for one of these.
NOT_AUTHENTICATED = Event(
    "not-authenticated",
    "{session} {mechanism} from {peer} failed with {reply}, for {username}: {reason}",
    LogLevel.warn,
)
PAIR_THROTTLED = Event(
    "pair-throttled",
    "{source} has used up its {limit} failed logins to one account, {account} in realm {realm}: "
    "the next is looked at in {seconds} s",
    LogLevel.warn,
)
SOURCE_THROTTLED = Event(
    "source-throttled",
    "{source} has used up its {limit} failed logins: the next of a stranger is looked at in {seconds} s",
    LogLevel.warn,
)
ACCOUNT_THROTTLED = Event(
    "account-throttled",
    "strangers have used up the {limit} failed logins to {account} in realm {realm}: "
    "their next is looked at in {seconds} s",
    LogLevel.warn,
)
STRANGERS_THROTTLED = Event(
    "strangers-throttled",
    "strangers have used up the {limit} failed logins to all accounts: "
    "their next is looked at in {seconds} s",
    LogLevel.error,
)
THROTTLE_CLEARED = Event("throttle-cleared", "an operator had {cleared} counts of failed logins forgotten")
LEDGER_UNUSABLE = Event(
    "ledger-unusable",
    "what is known of logins is in memory alone, and gone with this process: {reason}",
    LogLevel.error,
)
LEDGER_USABLE = Event("ledger-usable", "what is known of logins is kept in {file} again", LogLevel.warn)
HASH_UPGRADED = Event("hash-upgraded", "the password hash of {account} in realm {realm} was upgraded")
SCRAM_KEYS_MADE = Event(
    "scram-keys-made", "account {account} in realm {realm} can log in with SCRAM from now on"
)
MECHANISM_IDLE = Event(
    "mechanism-idle",
    "realm {realm} lists {mechanisms}, which its store cannot verify: not offered",
    LogLevel.warn,
)
STORE_UNAVAILABLE = Event(
    "store-unavailable", "the accounts of realm {realm} cannot be asked: {reason}", LogLevel.error
)
DIRECTORY_UNAVAILABLE = Event(
    "directory-unavailable",
    "a directory server of realm {realm} is tried last for a while: {reason}",
    LogLevel.warn,
)
STORE_RESTS = Event(
    "store-rests", "the accounts of realm {realm} are not asked for {seconds} s: {reason}", LogLevel.error
)
STORE_RECOVERED = Event(
    "store-recovered", "the accounts of realm {realm} can be asked again, after {seconds} s", LogLevel.warn
)
SECRETS_UNREADABLE = Event(
    "secrets-unreadable", "account {account} in realm {realm} cannot use DIGEST-MD5: {reason}", LogLevel.error
)
SCRAM_UNREADABLE = Event(
    "scram-unreadable", "account {account} in realm {realm} cannot use SCRAM: {reason}", LogLevel.error
)
HASH_UNREADABLE = Event(
    "hash-unreadable",
    "account {account} in realm {realm} cannot use its password, for its hash cannot be read: {reason}",
    LogLevel.error,
)
ACCOUNTS_LOADED = Event(
    "accounts-loaded", "realm {realm} has the accounts that {file} holds now: {accounts} of them"
)
ACCOUNTS_KEPT = Event(
    "accounts-kept",
    "realm {realm} keeps the accounts it had, until {file} is mended: {reason}",
    LogLevel.error,
)
HASHES_REFUSED = Event(
    "hashes-refused",
    "realm {realm} takes no password of {accounts}, for {reason}: set them anew, in {file}",
    LogLevel.error,
)
ACCOUNT_KEYS_UNREADABLE = Event(
    "account-keys-unreadable",
    "the keys in {file} cannot be read, those read before stay in use: {reason}",
    LogLevel.error,
)

# -- policies --------------------------------------------------------------------------------------
WOULD_REFUSE = Event(
    "would-refuse",
    "{session} the rule {rule}, on trial, would refuse {account} in realm {realm} at {moment} with {reply}: "
    "{reason}",
    LogLevel.warn,
)

TRIALS_LOST = Event(
    "trials-lost", "what rules on trial would have refused cannot be kept in {file}: {reason}", LogLevel.error
)

# -- messages (submission, spool, delivery) --------------------------------------------------------
QUEUED = Event(
    "queued",
    "{session} queued as {queue_id}: {size} octets from {sender} for {recipients}, kept in {location}",
)
UNHEARD = Event(
    "unheard",
    "{session} was gone before it heard that {queue_id} was taken: it may send it again",
    LogLevel.warn,
)
DELIVERED = Event("delivered", "{queue_id} delivered to {recipient} by {hop}: {reply}")
DEFERRED = Event("deferred", "{queue_id} for {recipient} deferred by {hop}: {reply}; next try in {delay} s")
RETURNED = Event(
    "returned", "{queue_id} for {recipient} failed at {hop}: {reply}; its sender is told", LogLevel.warn
)
HELD = Event("held", "{queue_id} for {recipient} is held: {reason}; {hop} said {reply}", LogLevel.error)
TOLD = Event("told", "sender {sender} is told what became of {queue_id}, by {notification}")
CONTENT_DAMAGED = Event("content-damaged", "{queue_id} is held, for {reason}", LogLevel.critical)

# -- next hops (delivery) --------------------------------------------------------------------------
HOP_CONNECTED = Event("hop-connected", "connected to next hop {hop} ({tls})")
HOP_RESTS = Event("hop-rests", "next hop {hop} is left alone for {seconds} s: {reply}", LogLevel.warn)
HOP_RECOVERED = Event("hop-recovered", "next hop {hop} takes mail again, after {seconds} s")
HOP_CROWDED = Event(
    "hop-crowded", "next hop {hop} takes no more than {connections} connections for now: {reply}"
)
LOOKUP_FAILED = Event(
    "lookup-failed", "the DNS cannot be asked for {name} {type}: {reason}; {consequence}", LogLevel.warn
)
LOOKUP_WORKS = Event("lookup-works", "the DNS answers for {name} {type} again")
DUPLICATE_POSSIBLE = Event(
    "duplicate-possible",
    "{queue_id} was sent whole but {hop} did not say that it has it: {reply}; the next try may duplicate it",
    LogLevel.warn,
)
INTERRUPTED = Event(
    "interrupted",
    "{queue_id} was being delivered when the process ended; the next try may duplicate it",
    LogLevel.warn,
)
REMOVED = Event("removed", "{queue_id} was removed by an operator", LogLevel.warn)

# -- content filters (policy) ----------------------------------------------------------------------
MILTER_FAILED = Event(
    "milter-failed", "the milter {milter} is left alone for {seconds} s: {reason}", LogLevel.error
)
MILTER_WORKS = Event("milter-works", "the milter {milter} answers again, after {seconds} s")
MILTER_PASSED_OVER = Event(
    "milter-passed-over",
    "{session} a message of {account} passes without a verdict of the milter {milter}: {reason}",
    LogLevel.warn,
)
MILTER_CHANGE_LEFT_OUT = Event(
    "milter-change-left-out",
    "the milter {milter} wants to {change}: it is left out, now and later, since no message is altered",
    LogLevel.warn,
)

# -- the service -----------------------------------------------------------------------------------
CONFIG_WARNING = Event("config-warning", "the configuration: {problem}", LogLevel.warn)
SPOOL_OPEN = Event(
    "spool-open",
    "the spool in {directory} is open: {messages} messages, {half_received} half-received removed",
)
BODY_MISSING = Event("body-missing", "{queue_id} is kept, but its body file is missing", LogLevel.critical)
ROW_UNREADABLE = Event(
    "row-unreadable",
    "{queue_id} is kept, but its row in the spool makes no sense: not tried",
    LogLevel.critical,
)
REALM_UNKNOWN = Event(
    "realm-unknown",
    "the realm {realm} is not configured; its messages in the spool are held: {messages}",
    LogLevel.error,
)
CLOCK_TURNED_BACK = Event(
    "clock-turned-back",
    "the clock has been turned back: what waits in realm {realm} for a time far ahead is tried now",
    LogLevel.warn,
)
SPOOL_UNWRITABLE = Event(
    "spool-unwritable",
    "the spool in {directory} cannot be written, no message is taken until it can: {reason}",
    LogLevel.critical,
)
SPOOL_WRITABLE = Event("spool-writable", "the spool in {directory} can be written again", LogLevel.warn)
DISK_LOW = Event(
    "disk-low",
    "{free} octets are free for the spool in {directory}: no message is taken below {watermark}",
    LogLevel.critical,
)
DISK_ENOUGH = Event(
    "disk-enough", "{free} octets are free for the spool in {directory}: messages are taken", LogLevel.warn
)
CERTIFICATE_LOADED = Event("certificate-loaded", "new connections get the certificate in {file}")
CERTIFICATE_KEPT = Event("certificate-kept", "the old certificate stays in force: {reason}", LogLevel.error)
REVOCATIONS_LOADED = Event(
    "revocations-loaded",
    "new connections are held against the lists in {file}: {revoked} revoked certificates",
)
REVOCATIONS_KEPT = Event(
    "revocations-kept", "the old lists of revoked certificates stay in force: {reason}", LogLevel.error
)
REVOCATIONS_OLD = Event(
    "revocations-old",
    "the list of what {issuer} has revoked, in {file}, is out of date since {end} UTC: "
    "its client certificates are refused",
    LogLevel.error,
)

# -- our own failures ------------------------------------------------------------------------------
DEFECT = Event("defect", "unexpected failure in {where}", LogLevel.critical)
