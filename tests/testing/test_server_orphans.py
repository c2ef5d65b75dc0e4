"""Servers do not outlive the process that started them, and outlive the thread that did."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tidewarp.testing.servers import Server

SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_server_orphans import Sleeper
with Sleeper(Path(sys.argv[2])) as server:
    child = os.fork()
    if child == 0:
        signal.pause()
    print(server.pid, server._guard.pid, child, flush=True)
    sys.stdin.read()
"""
BOUND_S = 60.0


class Sleeper(Server):
    """The cheapest server that there is."""

    name = "sleeper"

    def command(self) -> Sequence[str]:
        return ["sleep", "600"]

    def answers(self) -> bool:
        return True


def ended(handle: int) -> bool:
    """Has the process of this pidfd ended, or does it within the bound?"""
    return bool(select.select([handle], [], [], BOUND_S)[0])


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs os.pidfd_open: run it on Linux")
def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Killed by SIGKILL, which lets nobody tidy up; neither server nor guard is left, though a fork of it lives on."""
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        server, guard, fork = map(int, owner.stdout.readline().split())
        handles = [os.pidfd_open(pid) for pid in (server, guard)]
        assert select.select(handles, [], [], 0)[0] == [], "both live"
        owner.kill()
    try:
        assert all(map(ended, handles))
    finally:
        os.kill(fork, signal.SIGKILL)
        for handle in handles:
            os.close(handle)


def test_a_server_lives_on_behind_the_thread_that_started_it(tmp_path: Path) -> None:
    """A loop's worker thread may start it and end; and stop() leaves no child behind, after a life that ended by itself too."""
    server = Sleeper(tmp_path)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    subprocess.run([sys.executable, "-c", ""], check=True)  # time enough for a signal that the thread's end would send
    assert server.runs
    first = server._process
    assert first is not None
    first.kill()
    first.wait()
    server.start()
    assert server.runs
    guard = server._guard
    server.stop()
    assert not server.runs
    assert guard is not None
    assert guard.returncode is not None
    assert server._guard is None
