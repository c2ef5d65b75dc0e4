"""The operations that programs may use on this machine: those of the kernel, and the replay of a journal."""

from __future__ import annotations

from collections.abc import Sequence

import click

from tidewarp.programs import Limits, OperationRegistry
from tidewarp.programs.execution import LIMITS

__all__ = ["limits_for", "models_option", "registry_of"]

models_option = click.option(
    "--model",
    "models",
    metavar="FILE.py[:function]",
    multiple=True,
    help="A model that replays may run, if it is the one that they ask for. No code is run that is not named here.",
)


def limits_for(size: int) -> Limits:
    """Room for a run whose inputs have ``size`` bytes: a long journal is there in segments, and in one piece.

    What is small is given no more than any program: a few nodes can ask for terabytes.
    """
    return Limits(live_bytes=max(LIMITS.live_bytes, 4 * size))


def registry_of(models: Sequence[str] = ()) -> OperationRegistry:
    """The operations, with the models that the user has named: these are hashed, and run if what is replayed asks for them.

    Raises:
        OperatorError: one of them is no Python file.
    """
    from tidewarp.twin.model import (
        find_model,
    )  # SimPy and all connectors: what builds a program of bytes needs none of it
    from tidewarp.twin.replaying import register_replay

    registry = OperationRegistry.kernel()
    register_replay(registry, *map(find_model, models))
    return registry
