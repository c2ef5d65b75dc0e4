"""`tidewarp log`: a journal's inputs, dead letters and turns, decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.export import export
from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.tree import outputs_of, render
from tidewarp.cli.values import parse_time
from tidewarp.errors import OperatorError
from tidewarp.twin import journal_rows
from tidewarp.twin.reading import KINDS

__all__ = ["command"]

LIMIT = 1_000
_COLUMNS = ("seq", "kind", "tick", "timestamp", "source", "partition", "offset", "path", "value", "rule", "message")
_TREE_COLUMNS = ("id", "tick", "time_s", "stream", "key", "value", "cause", "depth")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option("--from", "first", metavar="T", help="From this virtual time on: 8h, seconds, or an ISO time.")
@click.option("--to", "end", metavar="T", help="Up to this virtual time, exclusive.")
@click.option("--path", "path_glob", metavar="GLOB", help="Inputs of these paths only: 'line.furnace.*'.")
@click.option("--source", help="Of this source only.")
@click.option("--kind", help=f"Rows of this kind only: {', '.join(KINDS)}.")
@click.option("--dead", is_flag=True, help="Dead letters only.")
@click.option("--limit", type=click.IntRange(min=1), help=f"Rows, at most. Default: {LIMIT:,}; with --out all of them.")
@click.option(
    "--after", metavar="N[.ROWS]", default="0", help="Skip the records up to N, or so many rows of N: what `next` says."
)
@click.option(
    "--root", "root_id", metavar="ID", help="What followed from this input ('pump[0:7]') or process, by replay."
)
@click.option("--model", help="For --root: the model, as for `tidewarp replay`.")
@click.option("--out", type=click.Path(path_type=Path), help="Export the rows to F.csv, F.jsonl or F.parquet instead.")
@json_option
def command(
    file: Path,
    first: str | None,
    end: str | None,
    path_glob: str | None,
    source: str | None,
    kind: str | None,
    dead: bool,
    limit: int | None,
    after: str,
    root_id: str | None,
    model: str | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Show what the journal FILE holds: one row per input, dead letter or turn of the run."""
    if root_id is not None:
        tree = outputs_of(file, root_id, model)
        if out is not None:
            return _export(islice(tree, limit), _TREE_COLUMNS, out, as_json)
        limit = limit or LIMIT
        emit({"root": root_id, "outputs": tree[:limit], "count": len(tree)}, as_json, render)
        return 0
    seq, skip = _parse_after(after)
    rows = journal_rows(
        file,
        first=None if first is None else parse_time(first),
        end=None if end is None else parse_time(end),
        path_glob=path_glob,
        source=source,
        kind="dead" if dead else kind,
        after=seq - 1 if skip else seq,
    )
    for _ in range(skip):  # of a record, the same selection of whose rows was shown before
        next(rows, None)
    if out is not None:
        return _export(islice(rows, limit), _COLUMNS, out, as_json)
    shown = list(islice(rows, limit or LIMIT))
    more = next(rows, None)
    following = None
    if more is not None:
        last = shown[-1]["seq"]
        seen = sum(row["seq"] == last for row in shown) + (skip if last == seq else 0)
        following = f"{last}.{seen}" if more["seq"] == last else str(last)
    emit({"records": shown, "count": len(shown), "next": following}, as_json, _render)
    return 0


def _export(rows: Iterator[Mapping[str, Any]], columns: Sequence[str], out: Path, as_json: bool) -> int:
    done = {"out": out, "count": export(rows, columns, out)}
    emit(done, as_json, lambda done: f"{done['count']:,} rows in {done['out']}")
    return 0


def _parse_after(text: str) -> tuple[int, int]:
    """Record and rows of "26" or "26.1000"."""
    seq, _, rows = text.partition(".")
    if not (seq.isascii() and seq.isdigit() and (not rows or (rows.isascii() and rows.isdigit()))):
        raise OperatorError(f"--after {text}", "a record's number, or number.rows", "give what `next` said")
    return int(seq), int(rows or 0)


def _render(document: Mapping[str, Any]) -> str:
    lines = [_line(row) for row in document["records"]]
    if document["next"] is not None:
        lines.append(f"… more: --after {document['next']}, or a larger --limit")
    return "\n".join(lines) if lines else "no such rows"


def _line(row: Mapping[str, Any]) -> str:
    head = f"{row['seq']:>6} {row['timestamp']} {row['kind']:<8}"
    if row["kind"] == "input":
        return f"{head} {row['source']}[{row['partition']}:{row['offset']}] {row['path']} = {row['value']!r}"
    if row["kind"] == "dead":
        return f"{head} {row['source']}[{row['partition']}:{row['offset']}] {row['rule']}: {row['message']}"
    skip = {"seq", "kind", "tick", "time_s", "timestamp", "versions", "model", "sources"}
    return f"{head} " + " ".join(f"{name}={value}" for name, value in row.items() if name not in skip)
