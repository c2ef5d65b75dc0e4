"""``tidewarp doctor``: what is installed, what the machine offers, and whether a small twin runs here."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidewarp import __version__
from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.problem import escape
from tidewarp.errors import TidewarpError

if TYPE_CHECKING:
    import tidewarp as tw

__all__ = ["DEPENDENCIES", "command", "self_test"]

DEPENDENCIES = ("click", "cryptography", "msgspec", "numpy", "plotly", "pydantic", "rich", "simpy")
FREE_BYTES_MIN = 100 << 20  # under this a journal soon stops for want of space
NAME = re.compile(r"[A-Za-z0-9._-]+")
EXTRA = re.compile(r"extra\s*==\s*['\"]([A-Za-z0-9._-]+)['\"]")


@click.command()
@json_option
def command(as_json: bool) -> int:
    """Say what is installed, what this machine offers and whether a small twin runs here.

    Ends with 1 if something that every twin needs does not work.
    """
    document = examine()
    emit(document, as_json, _render)
    return 0 if document["ok"] else 1


def examine() -> dict[str, Any]:
    """Everything that the command prints; ``ok`` is false if something that every twin needs does not work."""
    facilities = _facilities()
    test = self_test()
    versions = _versions()
    is_able = facilities["sqlite_wal"] and facilities["cwd_writable"] and None not in versions.values()
    return {
        "ok": bool(is_able and test["ok"]),
        "versions": versions,
        "platform": platform.platform(),
        "facilities": facilities,
        "extras": _extras(),
        "self_test": test,
    }


def self_test() -> dict[str, Any]:
    """Run a twin of one variable and one process for a virtual hour, then replay its journal.

    Keys: ``ok``, ``digest_live`` and ``digest_replayed`` (hexadecimal, None where it came to none), ``error`` (None
    or one sentence).
    """
    live: str | None = None
    try:
        import tidewarp as tw

        with tempfile.TemporaryDirectory(prefix="tidewarp-doctor-") as folder:
            path = Path(folder) / "self-test.tw"
            with tw.open(path, _build, seed=7) as twin:
                twin.run(until="1h")
                live = twin.digest()
            replayed = tw.replay(path, _build)
    except Exception as error:  # a broken installation fails in any way, and the other findings are still wanted
        sentence = str(error) if isinstance(error, TidewarpError) else f"{type(error).__name__}: {error}"
        return {"ok": False, "digest_live": live, "digest_replayed": None, "error": sentence}
    is_same = replayed.equal and replayed.digest == live
    complaint = None if is_same else "the replay gave another digest; please report it with this output"
    return {"ok": is_same, "digest_live": live, "digest_replayed": replayed.digest, "error": complaint}


def _build(twin: tw.Twin) -> None:
    import tidewarp as tw

    temperature = twin.variable("furnace.temperature", float)
    readings = [(60.0 * minute, "furnace.temperature", 20.0 + minute) for minute in range(60)]
    twin.connect(tw.sources.schedule(readings))
    twin.process(_heat(twin, temperature))


def _heat(twin: tw.Twin, temperature: Any) -> Generator[Any, Any, None]:
    """Publish the mean of the readings, each minute, half a minute after they came."""
    total, count = 0.0, 0
    yield twin.env.timeout(30)
    while True:
        total, count = total + temperature.value, count + 1
        twin.publish_event("furnace.mean", total / count)
        yield twin.env.timeout(60)


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "tidewarp": __version__,
        "sqlite": sqlite3.sqlite_version,
    }
    return found | {name: _version(name) for name in DEPENDENCIES}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _facilities() -> dict[str, Any]:
    here = Path.cwd()
    return {
        "fork": hasattr(os, "fork"),
        "sqlite_wal": _has_wal(),
        "cwd_writable": os.access(here, os.W_OK | os.X_OK),
        "free_bytes": shutil.disk_usage(here).free,
        "temp_folder": tempfile.gettempdir(),
        "terminal": sys.stderr is not None and sys.stderr.isatty(),
        "encoding": getattr(sys.__stdout__, "encoding", None),
        "cpus": os.cpu_count(),
    }


def _has_wal() -> bool:
    """Whether SQLite can keep a write-ahead log in the temporary folder (network disks often cannot)."""
    try:
        with tempfile.TemporaryDirectory(prefix="tidewarp-doctor-") as folder:
            database = sqlite3.connect(Path(folder) / "wal.db")
            try:
                mode = database.execute("PRAGMA journal_mode=WAL").fetchone()[0]
                database.execute("CREATE TABLE t (x)")
                return bool(mode == "wal")
            finally:
                database.close()
    except (OSError, sqlite3.Error):
        return False


def _extras() -> dict[str, dict[str, Any]]:
    """Per optional part: the packages of it that are missing, and the command that installs it."""
    wanted: dict[str, list[str]] = {}
    try:
        requirements = metadata.requires("tidewarp") or []
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        requirements = []
    for requirement in requirements:
        extra, name = EXTRA.search(requirement), NAME.match(requirement)
        if extra and name and name[0] != "tidewarp":
            wanted.setdefault(extra[1], []).append(name[0])
    return {
        extra: {
            "missing": [name for name in names if _version(name) is None],
            "install": f"pip install 'tidewarp[{extra}]'",
        }
        for extra, names in wanted.items()
    }


def _render(document: Mapping[str, Any]) -> str:
    rows = list(_rows(document))  # no table of rich: it may be what is missing
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {escape(value)}" for name, value in rows)


def _rows(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, version in document["versions"].items():
        yield name, version or f"MISSING: pip install {name}"
    yield "platform", document["platform"]
    for name, value in document["facilities"].items():
        yield name.removesuffix("_bytes").replace("_", " "), _words(name, value)
    for extra, state in document["extras"].items():
        missing = ", ".join(state["missing"])
        yield f"extra {extra}", f"without {missing}: {state['install']}" if missing else "installed"
    test = document["self_test"]
    yield "self-test", f"live = replay, digest {test['digest_live']}" if test["ok"] else f"FAILED: {test['error']}"
    yield "in all", "works" if document["ok"] else "DOES NOT WORK: see above"


def _words(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "free_bytes" and isinstance(value, int):
        little = ", little: a journal stops when there is none" if value < FREE_BYTES_MIN else ""
        return f"{value / 1e9:.1f} GB{little}"
    return str(value)
