"""`tidewarp store quota`: how many bytes a store may hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.store.places import SIZE_MAX, store_argument
from tidewarp.errors import OperatorError
from tidewarp.store import open_store
from tidewarp.store.described import describe

__all__ = ["command"]


@click.command()
@store_argument
@click.argument("quota_bytes", metavar="[BYTES]", type=click.IntRange(1, SIZE_MAX), required=False)
@click.option("--none", "is_unbounded", is_flag=True, help="No bound any more.")
@json_option
def command(place: Path, quota_bytes: int | None, is_unbounded: bool, as_json: bool) -> int:
    """Print how many bytes of payload the store DIR may hold, or choose it anew.

    What is there stays, even if it is more: then nothing is added until there is room, but for policies and proofs of
    forks, which have 1 MiB beyond it. What a tombstone hides makes room when tidewarp store gc has dropped it.
    """
    if is_unbounded and quota_bytes is not None:
        raise OperatorError("--none", "a quota is a number of BYTES, or none", "leave one of the two out")
    if is_unbounded or quota_bytes is not None:
        with open_store(place) as store:
            store.set_quota(quota_bytes)
    emit({"quota_bytes": describe(place).settings.quota_bytes}, as_json, _render)
    return 0


def _render(document: Mapping[str, Any]) -> str:
    quota = document["quota_bytes"]
    return "quota none" if quota is None else f"quota {quota:,} bytes"
