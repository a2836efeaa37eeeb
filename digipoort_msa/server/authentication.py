"""Drives one SASL exchange (RFC 4954 4): the mechanism's generator on one side, the realms on the other.

A fresh exchange is made for each AUTH and thrown away after it.  What the client is told never depends on
why it was turned away (A5); the log has the cause.
"""

from attrs import define, field
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from digipoort_msa import log
from digipoort_msa.interfaces import IRealms, ISubmitter, MechanismRetired, Throttled, Unavailable
from digipoort_msa.sasl.mechanism import Challenge, Context, Denied, Exchange, Lookup, Malformed, Mechanism
from digipoort_msa.sasl.scram_keys import ScramKeys
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.reply import Reply


@define(eq=False)
class Authentication:
    """One AUTH command and what follows it, up to its verdict."""

    mechanism: Mechanism
    _context: Context
    _realms: IRealms
    _session: str  # for the log
    _peer: str  # the client's IP address
    submitter: ISubmitter | None = field(default=None, init=False)  # the account, once it is verified
    _exchange: Exchange | None = field(default=None, init=False)
    _username: str = field(default="?", init=False)

    def start(self, initial_response: bytes | None) -> "Reply | Deferred[Reply]":
        """The reply to AUTH itself."""
        self._exchange = self.mechanism.start(self._context, initial_response)
        return self._resume(None)

    def respond(self, octets: bytes) -> "Reply | Deferred[Reply]":
        """The reply to the client's response."""
        return self._resume(octets)

    def close(self) -> None:
        """The exchange is over, in whatever way."""
        if self._exchange:
            self._exchange.close()
            self._exchange = None

    def _resume(self, answer: bytes | ScramKeys | None) -> "Reply | Deferred[Reply]":
        exchange = self._exchange
        if exchange is None:
            raise RuntimeError("this exchange is over")
        try:
            step = next(exchange) if answer is None else exchange.send(answer)
        except StopIteration:
            return self._authenticated()
        except Malformed as malformed:
            return self._failed(reply.MALFORMED_RESPONSE, str(malformed))
        except Denied as denied:
            return self._failed(reply.INVALID_CREDENTIALS, str(denied))
        if isinstance(step, Challenge):
            return reply.challenge(step.octets)
        if isinstance(step, Lookup):
            self._username = step.username
            return self._realms.scram_keys(step.username).addCallbacks(self._found, self._refused)
        self._username = step.credential.username or self._username
        login = self._realms.login(step.credential, self._peer, self.mechanism.name)
        return login.addCallbacks(self._verified, self._refused)

    def _found(self, keys: ScramKeys) -> "Reply | Deferred[Reply]":
        return reply.AUTHENTICATION_CANCELLED if self._exchange is None else self._resume(keys)

    def _verified(self, submitter: ISubmitter) -> "Reply | Deferred[Reply]":
        self.submitter = submitter
        if self._exchange is None:
            return reply.AUTHENTICATION_CANCELLED  # the connection is gone; nobody reads this
        return self._resume(b"")

    def _refused(self, failure: Failure) -> Reply:
        if failure.check(UnauthorizedLogin):
            return self._failed(reply.INVALID_CREDENTIALS, failure.getErrorMessage())
        if failure.check(MechanismRetired):
            return self._failed(reply.MECHANISM_RETIRED, failure.getErrorMessage())
        if failure.check(Throttled):
            return self._failed(reply.TOO_MANY_FAILURES, failure.getErrorMessage())
        if not failure.check(Unavailable):
            log.failure(log.DEFECT, failure, where="the accounts")
        return self._failed(reply.AUTHENTICATION_UNAVAILABLE, failure.getErrorMessage())

    def _authenticated(self) -> Reply:
        submitter = self.submitter
        if submitter is None:
            raise RuntimeError(f"{self.mechanism.name} succeeded without a verified credential")
        log.emit(
            log.AUTHENTICATED,
            session=self._session,
            peer=self._peer,
            account=submitter.account,
            realm=submitter.realm,
            mechanism=self.mechanism.name,
        )
        return reply.AUTHENTICATED

    def _failed(self, verdict: Reply, cause: str) -> Reply:
        self.close()
        self.submitter = None
        log.emit(
            log.NOT_AUTHENTICATED,
            session=self._session,
            mechanism=self.mechanism.name,
            peer=self._peer,
            username=self._username,
            reply=str(verdict),
            reason=cause,
        )
        return verdict
