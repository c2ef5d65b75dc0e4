"""Names of the kinds of records, for the tables that people read."""

from __future__ import annotations

from collections.abc import Mapping

import click

from tidewarp.codec import CHECKPOINT, DIGEST, INPUT, RELEASED, bodies

__all__ = ["name_of", "parse_kind"]

_NAMES: Mapping[int, str] = {
    bodies.ARTIFACT: "artifact",
    bodies.EDGE: "edge",
    bodies.RECEIPT: "receipt",
    bodies.TOMBSTONE: "tombstone",
    bodies.LIFT: "lift",
    bodies.ERASE: "erase",
    INPUT: "input",
    CHECKPOINT: "checkpoint",
    DIGEST: "digest",
    RELEASED: "released",
    bodies.BRANCH: "branch",
    bodies.SNAPSHOT: "snapshot",
    bodies.POINTER: "pointer",
    bodies.POLICY: "policy",
    bodies.KEYS: "keys",
    bodies.RESOLVE: "resolve",
    bodies.EVIDENCE: "evidence",
    bodies.VERDICT: "verdict",
    bodies.REQUEST: "request",
}
_KINDS = {name: kind for kind, name in _NAMES.items()}


def name_of(kind: int) -> str:
    """The name of a kind; its number where it has none."""
    return _NAMES.get(kind, f"{kind:#04x}")


def parse_kind(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """The kind that the text of an option names, or numbers."""
    if value is None or value in _KINDS:
        return _KINDS.get(value or "")
    try:
        kind = int(value, 0)
    except ValueError:
        kind = -1
    if not 0 <= kind <= 0xFF:
        raise click.BadParameter(f"{value!r:.80} is none of {', '.join(_KINDS)}, and no number below 256", ctx, param)
    return kind
