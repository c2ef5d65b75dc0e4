"""``tidewarp warm``: compile the kernels, and a model's handlers, before a run needs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.errors import OperatorError

__all__ = ["command"]


@click.command()
@click.option("--model", "target", metavar="FILE:NAME", help="Also the model that NAME() of FILE returns.")
@click.option("--clear", is_flag=True, help="First remove all compiled code, of other versions too.")
@click.option(
    "--cache",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Another folder than TIDEWARP_CACHE or the platform's.",
)
@json_option
def command(target: str | None, clear: bool, folder: Path | None, as_json: bool) -> int:
    """Compile and keep the kernels and the shipped models, so that the next run starts at once.

    Processes that do this at the same time compile once.
    """
    from tidewarp.kernel.shell.compiled import numba_fault

    if (fault := numba_fault()) is not None:
        raise fault
    emit(_warmed(target, clear, folder), as_json, _render)
    return 0


def _warmed(target: str | None, clear: bool, folder: Path | None) -> dict[str, Any]:
    from tidewarp.kernel.shell.cache import processor
    from tidewarp.kernel.shell.compiled import warm

    models = [] if target is None else [_model_at(target)]
    store, loaded = warm([*_shipped(), *models], folder, clear)
    return {
        "kernels": [{"name": unit.name, "seconds": round(unit.seconds, 6), "cached": unit.cached} for unit in loaded],
        "cache_dir": str(store),
        "cpu": processor(),
        "seconds": round(sum(unit.seconds for unit in loaded), 6),
    }


def _shipped() -> list[Any]:
    from tidewarp.worlds.phold import phold

    return [phold()]


def _model_at(target: str) -> Any:
    """The kernel model that FILE:NAME returns."""
    from tidewarp.kernel.model import Model
    from tidewarp.twin import load_model

    if ":" not in target:
        raise OperatorError(
            f"--model {target}", "a model is named FILE:NAME", "say which function of the file returns it"
        )
    found = load_model(target)()
    if not isinstance(found, Model):
        raise OperatorError(
            f"--model {target}",
            f"it returned {type(found).__name__}, not a kernel Model",
            "name a function that returns one",
        )
    return found


def _render(document: Mapping[str, Any]) -> str:
    lines = [
        f"{unit['name']:<40}  {'kept' if unit['cached'] else 'compiled':<8}  {unit['seconds']:.2f} s"
        for unit in document["kernels"]
    ]
    return "\n".join([*lines, f"in {document['cache_dir']} for {document['cpu']}: {document['seconds']:.2f} s"])
