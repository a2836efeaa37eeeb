import os
import threading

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.trial.unittest import TestCase

from digipoort_msa.interfaces import Unavailable
from digipoort_msa.threads import Threads


class ThreadsTests(TestCase):
    def make(self, size, waiting, **options):
        threads = Threads(reactor, "test", size=size, waiting=waiting, **options)
        self.addCleanup(threads.stop)
        return threads

    async def test_off_the_reactors_thread(self):
        ident = await self.make(1, 0).call(threading.get_ident)
        self.assertNotEqual(ident, threading.get_ident())

    async def test_nice(self):
        """A thread that computes for long steps back, and only that thread."""

        def niceness():
            return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

        before = niceness()
        threads = self.make(1, 0, nice=min(19, before + 7))
        self.assertEqual(await threads.call(niceness), min(19, before + 7))
        self.assertEqual(await self.make(1, 0).call(niceness), before)
        self.assertEqual(niceness(), before)

    async def test_a_sandbox_that_forbids_it(self):
        def refuse(*_):
            raise PermissionError

        self.patch(os, "setpriority", refuse)
        self.assertEqual(await self.make(1, 0, nice=10).call(int), 0)

    async def test_failure(self):
        with self.assertRaises(ZeroDivisionError):
            await self.make(1, 0).call(divmod, 1, 0)

    async def test_bounds(self):
        """So many run, so many wait, and the next is refused at once, until there is room again."""
        threads = self.make(2, 1)
        go = threading.Event()
        running = threading.Semaphore(0)

        def work():
            running.release()
            go.wait(10)

        calls = [threads.call(work) for _ in range(3)]
        self.failureResultOf(threads.call(work), Unavailable)
        go.set()
        await gatherResults(calls)
        self.assertEqual(await threads.call(int), 0)

    async def test_cancelling_keeps_the_place(self):
        threads = self.make(1, 0)
        go = threading.Event()
        call = threads.call(go.wait, 10)
        call.cancel()
        self.failureResultOf(call, CancelledError)
        self.failureResultOf(threads.call(int), Unavailable)
        go.set()

    async def test_an_answer_in_bounded_time(self):
        """A call that hangs, and those that wait behind it, are given up; what never began is not run."""
        threads = self.make(1, 2, patience=0.05)
        go = threading.Event()
        late = []
        hanging = threads.call(go.wait, 10)
        waiting = threads.call(late.append, 1)
        for call in (hanging, waiting):
            with self.assertRaises(Unavailable):
                await call
        go.set()
        self.assertEqual(await threads.call(int), 0)
        self.assertEqual(late, [])
