"""The policy: messages are read by the profile in threads, a batch at a time.

A batch is what has come in when it is enough to be worth a thread's while, or at the end; the client is not
read from while a thread has one.  A message that fits in one batch costs one hop.  Where the threads have no
room or no answer in time, the client is told to come back, as for anything of ours that is not there.
"""

from attrs import define, field
from twisted.internet.defer import Deferred

from digipoort_msa.identity import Identity
from digipoort_msa.policy.profile.rules import Profile, Reading
from digipoort_msa.policy.profile.violation import OF_SIZE, Violation
from digipoort_msa.policy.rule import Judgement, Rule, Waiting
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import Trace
from digipoort_msa.smtp.reply import Refused
from digipoort_msa.threads import Threads

#: Octets that are worth a thread's while.
BATCH = 262_144


@define
class ProfileRule(Rule):
    """One message flow's profile."""

    _profile: Profile
    _threads: Threads

    def begin(self, identity: Identity, trace: Trace) -> Judgement:
        return _Judgement(self._profile, self._threads)


@define(eq=False)
class _Judgement(Judgement):
    _profile: Profile
    _threads: Threads
    _reading: Reading | None = field(default=None, init=False)  # None: nothing more is looked at
    _batch: bytearray = field(factory=bytearray, init=False, repr=False)
    _violation: Violation | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._reading = Reading(self._profile)

    def write(self, octets: bytes) -> Waiting:
        if self._reading is None:
            return None
        self._batch += octets
        if len(self._batch) < BATCH:
            return None
        return self._look(self._reading, last=False)

    def complete(self) -> Waiting:
        if self._reading is None:
            self._say(None)
            return None
        return self._look(self._reading, last=True).addCallback(self._say)

    def accepted(self) -> None:
        self._forget()

    def abort(self) -> None:
        self._forget()

    def _look(self, reading: Reading, *, last: bool) -> "Deferred[None]":
        batch, self._batch = self._batch, bytearray()
        return self._threads.call(_look, reading, batch, last).addCallback(self._looked)

    def _looked(self, violation: Violation | None) -> None:
        if violation is not None:
            self._violation = violation
            self._forget()

    def _say(self, _: None) -> None:
        """The verdict, at the end."""
        found = self._violation
        if found is not None:
            refusal = reply.profile_refuses(
                self._profile.name, found.rule, found.where, of_size=found.rule in OF_SIZE
            )
            raise Refused(refusal, str(found))

    def _forget(self) -> None:
        self._reading, self._batch = None, bytearray()


def _look(reading: Reading, batch: bytearray, last: bool) -> Violation | None:
    """In a thread: what the next octets of a message violate first."""
    try:
        reading.take(bytes(batch))
        if last:
            reading.finish()
    except Violation as violation:
        # A new one: the frames of this one's traceback keep the message's octets.
        return Violation(violation.rule, violation.where, violation.cause)
    return None
