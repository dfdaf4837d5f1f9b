"""Threads and processes that share a sampler, and copies of it."""

import copy
import gc
import os
import pickle
import signal
import threading
import time
import unittest
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from nucleus_sampler import InvalidArgumentError, Sampler

THREADS = 8


def threads_of_process():
    return len(os.listdir("/proc/self/task"))


def falls_below(number):
    """Whether the number of threads of the process falls below a number."""
    deadline = time.monotonic() + 10
    while threads_of_process() >= number and time.monotonic() < deadline:
        time.sleep(0.01)
    return threads_of_process() < number


class Threads(unittest.TestCase):
    def setUp(self):
        self.logits = np.random.default_rng(3).normal(0, 3, (16, 4000)).astype(np.float32)

    def test_threads_share_a_sampler(self):
        with Sampler(backend="builtin") as sampler:
            arguments = {"top_p": 0.9, "seed": np.arange(16), "debug": True}
            want = sampler.sample(self.logits, path="reference", **arguments)

            def work(number):
                for _ in range(20):
                    rows = slice(number, number + 8)
                    got = sampler.sample(self.logits[rows], **{**arguments, "seed": np.arange(16)[rows]})
                    np.testing.assert_array_equal(got.tokens, want.tokens[rows])
                    np.testing.assert_array_equal(
                        got.debug.topk_topp_unnorm_probs_i32_unsorted,
                        want.debug.topk_topp_unnorm_probs_i32_unsorted[rows],
                    )
                return number

            with ThreadPoolExecutor(THREADS) as pool:
                self.assertEqual(list(pool.map(work, range(THREADS))), list(range(THREADS)))
            self.assertEqual(sampler.stats()["total_count"], 1 + 20 * THREADS)

    def test_a_call_releases_the_interpreter(self):
        """Another thread runs Python code in the middle of a call."""
        with Sampler(backend="builtin") as sampler:
            large, stamps, done = np.zeros((128, 200_000), np.float32), [], threading.Event()

            def stamp():
                while not done.is_set():
                    stamps.append(time.monotonic())
                    time.sleep(0.001)

            thread = threading.Thread(target=stamp)
            thread.start()
            start = time.monotonic()
            sampler.sample(large, path="reference")
            duration = time.monotonic() - start
            done.set()
            thread.join()
        # Threads that wait for the interpreter's lock can run shortly before and after the call, but not in its middle.
        middle = [at for at in stamps if start + 0.2 * duration < at < start + 0.8 * duration]
        self.assertGreater(duration, 0.02)
        self.assertGreater(len(middle), 5)

    def test_close_waits_for_calls(self):
        """Threads that sample while the sampler is closed get their tokens, or a ValueError."""
        for _ in range(20):
            sampler = Sampler(backend="builtin", num_threads=1)
            want = sampler.sample(self.logits).tokens
            started = threading.Barrier(THREADS + 1)

            def work():
                started.wait()
                calls = 0
                try:
                    while True:
                        np.testing.assert_array_equal(sampler.sample(self.logits).tokens, want)
                        calls += 1
                except ValueError as error:
                    self.assertEqual(str(error), "the sampler is closed")
                return calls

            with ThreadPoolExecutor(THREADS) as pool:
                futures = [pool.submit(work) for _ in range(THREADS)]
                started.wait()
                sampler.close()
                for future in futures:
                    future.result(timeout=60)

    def test_an_interrupt_leaves_no_call(self):
        """After calls that a KeyboardInterrupt ended at any point, close() does not wait for them."""
        sampler = Sampler(backend="builtin", num_threads=1)
        delays = np.random.default_rng(4).uniform(1e-6, 2e-4, 3000)
        previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            for delay in delays:
                with self.assertRaises(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, delay)
                    while True:
                        sampler.info()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        # A daemon, so that the process ends if close() waits forever.
        thread = threading.Thread(target=sampler.close, daemon=True)
        thread.start()
        thread.join(10)
        self.assertFalse(thread.is_alive(), "close() waits for calls that have ended")

    def test_an_interrupted_close(self):
        """close() can be called again after an interrupt while it waited, and then frees the sampler."""
        before = threads_of_process()
        sampler = Sampler(backend="builtin", num_threads=16)
        token = object()
        sampler._running.add(token)
        previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            with self.assertRaises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                sampler.close()
        finally:
            signal.signal(signal.SIGALRM, previous)
        self.assertTrue(sampler.closed)
        sampler._running.discard(token)
        sampler.close()
        self.assertTrue(falls_below(before + 10))

    def test_lost_samplers_are_freed(self):
        """The threads of samplers that nobody closed end."""
        before = threads_of_process()
        samplers = [Sampler(backend="builtin", num_threads=16) for _ in range(4)]
        self.assertGreaterEqual(threads_of_process(), before + 16)
        samplers.clear()
        gc.collect()
        self.assertTrue(falls_below(before + 10))

    def test_no_copies(self):
        """A copy would free the handle of the sampler. The sampler still works after each attempt."""
        with Sampler(backend="builtin") as sampler:
            want = sampler.sample(self.logits).tokens
            for attempt in (copy.copy, copy.deepcopy, pickle.dumps, lambda s: copy.deepcopy({"sampler": [s]})):
                with self.assertRaisesRegex(TypeError, "a Sampler cannot be copied or pickled"):
                    attempt(sampler)
                gc.collect()
                np.testing.assert_array_equal(sampler.sample(self.logits).tokens, want)

    def test_a_child_process(self):
        """A sampler does not work after fork, does not block, and can be closed."""
        with Sampler(backend="builtin") as sampler:
            # Another thread may hold the sampler's lock, and run a call, during fork.
            token = object()
            sampler._closing.acquire()
            sampler._running.add(token)
            with warnings.catch_warnings():
                # Python warns about fork in a process with several threads.
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                status = 1
                try:
                    try:
                        sampler.sample(self.logits)
                    except InvalidArgumentError as error:
                        status = 0 if error.argument == "sampler" and "fork" in error.message else 2
                    sampler.close()
                finally:
                    os._exit(status)
            sampler._running.discard(token)
            sampler._closing.release()
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
            sampler.sample(self.logits)


if __name__ == "__main__":
    unittest.main()
