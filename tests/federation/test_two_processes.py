"""Two processes, two stores on disk, HTTP between them; one of them killed with SIGKILL at every step of its commits."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tidewarp import observe
from tidewarp.federation.exchange import Exchange, ledger_of
from tidewarp.federation.shell import PeerClient, pull, serve
from tidewarp.store import open_store

SERVE = """
import sys
from tidewarp.federation.shell import serve
from tidewarp.store import open_store

with open_store(sys.argv[1]) as store, serve(store) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""
DONE, KILLED = 0, -signal.SIGKILL


@contextlib.contextmanager
def serving(path: Path) -> Iterator[str]:
    """A process that serves the store; its address. It ends when its input does."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        yield process.stdout.readline().strip()
        process.stdin.close()
        assert process.wait() == 0


def pull_in_child(path: Path, url: str, kill_at: int | None) -> int:
    """A process that pulls, and kills itself at the step of that number; how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        steps = iter(range(1, 1_000_000))

        def stage(name: str) -> None:
            if next(steps) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        with open_store(path) as store, PeerClient(url) as client:
            observe.on_stage(stage)
            Exchange(store, url, client.ask, tempfile.TemporaryFile, lambda: 0, limit=4).run()
            observe.on_stage(None)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(DONE)


@pytest.fixture
def origin(tmp_path):
    """A store with some records, one artifact that travels alone, and one that stays at home."""
    path = tmp_path / "A"
    with open_store(path, create=True) as store:
        for n in range(9):
            store.put(b"reading %d" % n)
        store.put(bytes(range(256)) * 1_000, tag=7)
        store.put(b"inner", publish=False)
    return path


def test_two_sites_agree(origin, tmp_path):
    """The walk-through of the specification: put, serve, pull, equal state, get; again: nothing, in one question."""
    with serving(origin) as url, open_store(tmp_path / "B", create=True) as b:
        report = pull(b, url)
        assert (report.records, report.conflicts, report.incomplete) == (11, 0, "")
        assert pull(b, url).records == 0
        state = b.state_hash()
    with open_store(origin) as a, open_store(tmp_path / "B") as b:
        assert a.state_hash() == b.state_hash() == state
        for n in range(9):
            reference = a.put(b"reading %d" % n)
            assert b.get(reference) == b"reading %d" % n


def test_several_pull_at_once(origin, tmp_path):
    """Each in a thread of its own, from one server: all have the same."""

    def site(n):
        with open_store(tmp_path / f"B{n}", create=True) as store:
            report = pull(store, url)
            return report.records, report.incomplete, store.state_hash()

    with serving(origin) as url, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(site, range(4)))
    assert results == [(11, "", results[0][2])] * 4


def test_a_site_that_writes_while_it_is_pulled_from(tmp_path):
    """Every pull takes a prefix that a head covers; the last one has all of it."""
    with open_store(tmp_path / "A", create=True) as a, open_store(tmp_path / "B", create=True) as b, serve(a) as server:
        writer = threading.Thread(target=lambda: [a.put(b"%d" % n) for n in range(60)])
        writer.start()
        while writer.is_alive():
            report = pull(b, server.url)
            assert (report.conflicts, report.incomplete) == (0, "")
        writer.join()
        pull(b, server.url)
        assert len(list(b.records(a.domain))) == 60
        assert a.state_hash() == b.state_hash()


def test_killed_at_every_step_of_a_pull(origin, tmp_path):
    """What is held is a prefix with its bytes, the cursor is not beyond it, and the next pull brings the rest: nothing is lost."""
    with open_store(origin) as a:
        domain, whole = a.domain, [one.header for one in a.records(a.domain)]
        state = a.state_hash()
    killed = 0
    with serving(origin) as url:
        for kill_at in range(1, 1_000):
            path = tmp_path / f"B{kill_at}"
            open_store(path, create=True).close()
            ended = pull_in_child(path, url, kill_at)
            assert ended in (DONE, KILLED)
            with open_store(path) as b:
                held = [one.header for one in b.records(domain)]
                assert held == whole[: len(held)]
                for origin_id, (seq, hash_) in ledger_of(b).cursors(url).items():
                    assert b.hash_at(origin_id, seq) == hash_
            if ended == DONE:
                break
            killed += 1
            assert pull_in_child(path, url, None) == DONE
            with open_store(path) as b:
                assert b.state_hash() == state
                assert [one.header for one in b.records(domain)] == whole
    assert killed >= 12
