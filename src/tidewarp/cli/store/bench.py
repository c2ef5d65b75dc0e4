"""`tidewarp store bench`: the figures of a store and of the exchange, their references, and a digest of it all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from tidewarp.cli.bench.kernel_options import wall_time
from tidewarp.cli.bench.told import machine, shown
from tidewarp.cli.frame import emit, json_option
from tidewarp.codec import Digest

__all__ = ["command"]

NAMES = ("small", "large", "sync", "hash", "gc")

ROWS = (
    ("put 1 KiB, a thousand in a transaction", "{put_1k_vs_sqlite:.2f}x raw SQLite", "0.8x"),
    ("the same", "{put_1k_batched_per_s:,.0f} a second, raw {raw_sqlite_1k_per_s:,.0f}", ""),
    ("put 1 MiB, a commit each", "{put_1m_vs_files:.2f}x files with fsync", "1x"),
    ("the same", "{put_1m_per_s:,.0f} a second, files {files_fsync_1m_per_s:,.0f}", ""),
    ("get 1 KiB, hashed", "{get_1k_vs_sqlite:.2f}x raw SQLite", "0.6x"),
    ("the same", "{get_1k_per_s:,.0f} a second, raw {raw_sqlite_get_1k_per_s:,.0f}", ""),
    ("pull of records of 256 B", "{sync_records_per_s:,.0f} a second", "12,000"),
    ("the same", "{sync_vs_git:.2f}x git fetch ({git_fetch_records_per_s:,.0f} a second)", "0.5x"),
    ("pull of nothing, ten domains", "{noop_sync_ms:.1f} ms", "20 ms"),
    ("state hash of 100,000 rows", "{state_hash_100k_s:.3f} s", "0.1 s"),
    ("the state made from records", "{state_from_records_per_s:,.0f} a second", ""),
    ("collected, what a tombstone hides", "{gc_artifacts_per_s:,.0f} a second", "10,000"),
    ("a collection over its budget, at most", "{gc_overrun_ms:.0f} ms", "100 ms"),
)
"""What it is, how it is shown, its goal: formats over the document."""


@click.command()
@click.option(
    "--dir",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Measure on the disk of this folder. Default: that of temporary files.",
)
@click.option(
    "--n",
    "n",
    metavar="N",
    type=click.IntRange(10),
    default=100_000,
    show_default=True,
    help="Records to pull; of the rest in proportion.",
)
@click.option("--only", type=click.Choice(NAMES), multiple=True, help="Measure this alone; may be repeated.")
@click.option(
    "--seconds", type=wall_time, default=5.0, show_default=True, help="Wall seconds for each comparison: more rounds."
)
@json_option
def command(folder: Path | None, n: int, only: tuple[str, ...], seconds: float, as_json: bool) -> int:
    """Measure stores beside raw SQLite, plain files and git, in one run.

    Cases take turns. A rate is that of the best round, a ratio the median over the rounds; above 1 it is in our favour.
    ``digest`` names what was computed: it is the same on every machine, and a change that makes anything faster must
    not change it. Nothing is left in DIR.
    """
    emit(measure(only or NAMES, seconds, n, folder), as_json, _render)
    return 0


def measure(names: tuple[str, ...], seconds: float, n: int, folder: Path | None = None) -> dict[str, Any]:
    """All figures of ``names`` (in the order of NAMES), ``digest`` over what was computed, and the ``machine``."""
    from tidewarp.cli.bench.storing import collect, hash_state, put_large, put_small
    from tidewarp.cli.bench.syncing import sync

    figures = {"small": put_small, "large": put_large, "sync": sync, "hash": hash_state, "gc": collect}
    document: dict[str, Any] = {"n": n}
    digest = Digest("TWBENCH1")
    with TemporaryDirectory(prefix="tidewarp-bench-", dir=folder) as place:
        for name in NAMES:
            if name in names:
                found = figures[name](Path(place), seconds, n)
                digest.add(name.encode())
                digest.add(found.pop("digest"))
                document |= found
    return {**document, "digest": digest.hexdigest(), "machine": machine()}


def _render(document: Mapping[str, Any]) -> object:
    from rich.table import Table

    table = Table("work", "measured", "goal", box=None)
    for label, form, goal in ROWS:
        text = shown(form, document)
        if text is not None:
            table.add_row(label, text, goal)
    host = document["machine"]
    missing = f"{document['git_missing']}\n" if document.get("git_missing") else ""
    table.caption = (
        f"{missing}digest {document['digest']}\nPython {host['python']}, SQLite {host['sqlite']}, "
        f"{host['cpus']} cpus, load {host['load']:.1f} at the end"
    )
    table.caption_justify = "left"
    return table
