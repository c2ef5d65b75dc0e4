"""What followed from one input or process: the outputs under one root, found by replay, each below its cause."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tidewarp.codec import unpack
from tidewarp.connect.contract import Output
from tidewarp.errors import OperatorError
from tidewarp.twin import load_model, replay
from tidewarp.units import in_seconds

__all__ = ["outputs_of", "render"]


def outputs_of(file: Path, root: str, model: str | None) -> list[dict[str, Any]]:
    """The outputs of the journal ``file`` under ``root``, each behind its cause. ``depth`` grows where one has several.

    Raises:
        OperatorError: not a journal, no model, or nothing was published under ``root``.
    """
    below: defaultdict[str, list[Output]] = defaultdict(list)

    def take(outputs: Sequence[Output]) -> None:
        for one in outputs:
            if one.root == root:
                below[one.cause].append(one)

    replay(file, None if model is None else load_model(model), outputs=take)
    if not below:
        action = "take an input from tidewarp log, such as 'source[0:7]', or the `root` of an output"
        raise OperatorError(f"--root {root}", "the run published nothing under it", action)
    rows: list[dict[str, Any]] = []
    left = [(one, 0) for one in reversed(below[root])]
    while left:  # no recursion: each output of a process may be the cause of the next, without end
        one, depth = left.pop()
        rows.append(_row(one, depth))
        further = below.get(one.id, ())
        left += [(child, depth + (len(further) > 1)) for child in reversed(further)]
    return rows


def _row(one: Output, depth: int) -> dict[str, Any]:
    return {
        "id": one.id,
        "tick": one.tick,
        "time_s": in_seconds(one.tick),
        "stream": one.stream,
        "key": one.key,
        "value": unpack(one.value),
        "cause": one.cause,
        "depth": depth,
    }


def render(document: Mapping[str, Any]) -> str:
    """The tree as text."""
    lines = [document["root"]]
    lines += [
        f"{'  ' * (row['depth'] + 1)}{row['id']} {row['time_s']:.3f} s {row['key']} {row['value']!r}"
        for row in document["outputs"]
    ]
    more = document["count"] - len(document["outputs"])
    if more:
        lines.append(f"… {more:,} more: a larger --limit")
    return "\n".join(lines)
