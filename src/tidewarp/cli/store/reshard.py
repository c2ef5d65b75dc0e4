"""`tidewarp store reshard`: into how many shards the records of a store are divided."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.store.places import store_argument
from tidewarp.store import ShardMap, open_store
from tidewarp.store.shards import SHARDS_MAX

__all__ = ["command"]


@click.command()
@store_argument
@click.argument("count", metavar="N", type=click.IntRange(1, SHARDS_MAX))
@json_option
def command(place: Path, count: int, as_json: bool) -> int:
    """Divide the records of the store DIR into N shards, ranges of equal size of what they are about.

    No hash, no reference and no answer of the store depends on it, and no other site learns of it. It is done in one
    transaction: a reader has the old shards until then, and so has a store that dies in it.
    """
    with open_store(place) as store:
        before = store.shard_map.count
        store.reshard(ShardMap.even(count))
        document = {"shards": count, "before": before, "records": sum(domain.size for domain in store.domains())}
    emit(document, as_json, _render)
    return 0


def _render(document: Mapping[str, Any]) -> str:
    return f"{document['records']:,} records in {document['shards']:,} shards (before: {document['before']:,})"
