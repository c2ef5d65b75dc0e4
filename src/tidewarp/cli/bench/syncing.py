"""The figures of the exchange: a pull of many small records, and one with nothing to do, beside ``git fetch``.

The store that serves is in a process of its own, as is git's sending side; the pulling store is new in each round.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tidewarp.cli.bench.measure import Prepared, best_of
from tidewarp.cli.bench.storing import BATCH, new_store, payloads
from tidewarp.errors import InternalError
from tidewarp.federation.shell import PullReport, pull, serve
from tidewarp.store import Store, open_store

__all__ = ["NO_GIT", "sync"]

Figures = dict[str, Any]

NO_GIT = "git is not on the PATH: install it for the reference of the pull"

_PAYLOAD_BYTES = 256
_DOMAINS = 10
_START_S = 60.0


def sync(folder: Path, seconds: float, n: int) -> Figures:
    """How fast are ``n`` artifacts of 256 B and their records pulled over loopback, and how long takes a pull of nothing?

    Everything is checked, and durable on both sides. The served store holds ten domains, nine of them with one record. The
    reference fetches as many blobs of the same bytes, in one commit, over git's own protocol between two processes.
    """
    data = payloads("sync", n, _PAYLOAD_BYTES)
    with ExitStack() as served, ExitStack() as pulled, ExitStack() as fetched:
        place = _served(served, folder, data)
        url = served.enter_context(_server(place))
        cases = {"ours": partial(_pulling, pulled, folder, url)}
        git = shutil.which("git")
        if git is not None:
            origin = _repository(git, folder, data)
            cases = {"git": partial(_fetching, git, fetched, folder, origin)} | cases
        best = best_of(cases, seconds)
        store, report = best["ours"].result[0], best["ours"].result[1]
        if report.records != n + _DOMAINS - 1 or report.incomplete:
            raise InternalError("pull", f"{n + _DOMAINS - 1} records come, and it were {report.records}", "look why")
        store = _pulling(pulled, folder, url)()[0]
        pull(store, url)
        idle = best_of({"ours": lambda: lambda: pull(store, url)}, min(seconds, 1.0))
        digest = store.state_hash()
    has_git = "git" in best
    return {
        "sync_records_per_s": report.records / best["ours"].seconds,
        "git_fetch_records_per_s": n / best["git"].seconds if has_git else None,
        "sync_vs_git": best["ours"].faster_than(best["git"]) if has_git else None,
        "git_missing": None if has_git else NO_GIT,
        "noop_sync_ms": 1e3 * idle["ours"].seconds,
        "state_hash": digest,
        "digest": digest,
    }


def _served(left: ExitStack, folder: Path, data: Sequence[bytes]) -> Path:
    """A store with all of ``data``, and with a record of each of nine other domains."""
    place = Path(left.enter_context(TemporaryDirectory(dir=folder)))
    with open_store(place, create=True, key=bytes(32)) as store:
        for start in range(0, len(data), BATCH):
            store.put_many((one, None) for one in data[start : start + BATCH])
        for number in range(1, _DOMAINS):
            with ExitStack() as other_left:
                other = new_store(other_left, folder, f"site {number}")
                other.put(number.to_bytes(8, "big"))
                other.signed_head()
                with serve(other) as server:
                    pull(store, server.url)
        store.signed_head()
    return place


@contextmanager
def _server(place: Path) -> Iterator[str]:
    """The address at which a process of its own serves the store at ``place``."""
    command = [sys.executable, "-m", "tidewarp", "peer", "serve", str(place), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    stdout = process.stdout
    assert stdout is not None
    try:
        line = stdout.readline() if select.select([stdout], [], [], _START_S)[0] else b""
        if not line:
            raise InternalError("peer serve", f"it says its address within {_START_S:g} s", "serve a store by hand")
        yield json.loads(line)["serving"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        stdout.close()


def _pulling(left: ExitStack, folder: Path, url: str) -> Prepared:
    store = new_store(left, folder)

    def work() -> tuple[Store, PullReport]:
        return store, pull(store, url)

    return work


def _fetching(git: str, left: ExitStack, folder: Path, origin: Path) -> Prepared:
    left.close()
    place = Path(left.enter_context(TemporaryDirectory(dir=folder)))
    _git(git, "init", "--quiet", "--bare", str(place))
    return lambda: _git(git, "-C", str(place), "fetch", "--quiet", f"file://{origin}", "main:main")


def _repository(git: str, folder: Path, data: Sequence[bytes]) -> Path:
    """A repository with one commit that has a file for each of ``data``, a thousand in a folder."""
    place = folder / "origin"
    _git(git, "init", "--quiet", "--bare", str(place))
    parts = [b"commit refs/heads/main\ncommitter bench <bench@localhost> 0 +0000\ndata 0\n"]
    for number, one in enumerate(data):
        parts.append(b"M 100644 inline %d/%d\ndata %d\n%b\n" % (number // BATCH, number, len(one), one))
    _git(git, "-C", str(place), "fast-import", "--quiet", given=b"".join(parts))
    return place


def _git(git: str, *arguments: str, given: bytes = b"") -> None:
    """Run git as it is without anybody's settings."""
    settings = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run([git, *arguments], input=given, env={**os.environ, **settings}, check=True, capture_output=True)
