"""Sizes before bytes: what the nodes of a program will come to, from the sizes of its inputs alone.

A node is judged if it is a kernel operation and the size of each of its inputs is known; that of what a host operation
makes is not. Nothing is allocated for it: 64 nodes that each double the one before fail here, at a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tidewarp.codec.programs import External, Program
from tidewarp.programs.operations import HostOperation, Operation, OperationFailed

__all__ = ["Sizes", "known_sizes"]


class Sizes(NamedTuple):
    """``by_node``: bytes of a node's output where it is known, else None; up to the node that fails.

    ``failure``: the first node that is sure to fail, and the index of its failure.
    """

    by_node: tuple[int | None, ...]
    failure: tuple[int, int] | None


def known_sizes(
    program: Program,
    operations: Sequence[Operation],
    values: Sequence[Any],
    inputs: Sequence[int],
    params: int | None,
) -> Sizes:
    """The sizes that follow from those of the ``inputs`` and the run's ``params`` (in bytes; None: there are none).

    ``operations`` and ``values`` are by node: what it does, and its params as read.
    """
    known: list[int | None] = []
    for at, (node, operation, value) in enumerate(zip(program.nodes, operations, values, strict=True)):
        sizes = [
            inputs[source.number] if isinstance(source, External) else known[source.node] for source in node.inputs
        ]
        if operation.reads_run_params:
            sizes.append(params)
        whole = [size for size in sizes if size is not None]
        if isinstance(operation, HostOperation) or len(whole) < len(sizes):
            known.append(None)
            continue
        try:
            known.append(operation.size(value, whole))
        except OperationFailed as failed:
            return Sizes(tuple(known), (at, failed.index))
    return Sizes(tuple(known), None)
