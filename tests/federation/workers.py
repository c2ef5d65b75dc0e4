"""Examples of Hypothesis in several processes, for tests that run many: each worker draws its own, from a seed of its own."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

__all__ = ["WORKERS", "divide"]

WORKERS = 2
"""As many as a machine of CI has cores."""


def divide(work: Callable[[int, Callable[[], None]], None], workers: int = WORKERS) -> tuple[int, list[str]]:
    """Let ``work`` run once in each of ``workers`` forked processes; how many examples these tried, and what they found.

    ``work`` is given the number of its worker, from 0, and what it is to call at the start of each example. Who raises has
    found something: the traceback, with its notes. No worker outlives the call, nor by more than an example this process.
    """
    fork = multiprocessing.get_context("fork")
    processes, ends = [], []
    try:
        for number in range(workers):
            ours, theirs = fork.Pipe(duplex=False)
            process = fork.Process(target=_run, args=(work, number, os.getpid(), theirs), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            ends.append(ours)
        told = [_told(end) for end in ends]
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
            process.join()
        for end in ends:
            end.close()
    reports = [report for _, report in told if report]
    reports += [f"worker {number} ended with {one.exitcode}" for number, one in enumerate(processes) if one.exitcode]
    return sum(count for count, _ in told), reports


def _run(work: Callable[[int, Callable[[], None]], None], number: int, parent: int, end: Connection) -> None:
    gc.freeze()  # what the parent has made stays: no collection looks at it, or copies its pages
    gc.set_threshold(50_000)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends its workers
    count = 0

    def step() -> None:
        nonlocal count
        if os.getppid() != parent:
            os._exit(1)
        count += 1

    report = ""
    try:
        work(number, step)
    except BaseException:  # whatever ends the work: a test that fails, or a group of them
        report = traceback.format_exc()
    end.send_bytes(b"%d\n%s" % (count, report.encode(errors="replace")))
    end.close()


def _told(end: Connection) -> tuple[int, str]:
    try:
        count, _, report = end.recv_bytes().decode().partition("\n")
    except EOFError:
        return 0, "a worker ended without a word"
    return int(count), report
