"""How a run is executed. Nothing here can change what is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from tidewarp.errors import ModelError, OperatorError
from tidewarp.kernel.arguments import is_one_of, whole
from tidewarp.kernel.lp import parse_saving
from tidewarp.kernel.trace import DIGESTS

__all__ = ["Options"]

PES_MAX = 256

_CHOICES = {
    "kernel": ("sequential", "conservative", "optimistic"),
    "tier": ("auto", "python", "compiled"),
    "transport": ("threads", "mpi"),
    "cancellation": ("aggressive", "lazy"),
    "digest": DIGESTS,
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a run is executed; checked at once.

    ``kernel``: the engine. ``tier``: "python", "compiled", or "auto" (compiled if the model compiles and Numba is there).
    ``workers``: PEs in this process (threads in the compiled tier). ``transport``: "mpi" joins the ranks of an ``mpiexec``.
    ``window``: ticks that an optimistic PE may run ahead of GVT, "auto" (adaptive) or "lookahead" (never rolls back).
    ``kps``: groups of LPs that roll back together, per PE. ``batch``: events per turn of a PE. ``gvt_interval``: turns
    between two GVT rounds. ``partition``: "blocks", "graph", or the PE of each LP. ``cancellation``: "aggressive" or "lazy".
    ``memory_max_bytes``: bound of the event pools of all PEs together; None: grow as needed. ``outputs_max``: outputs
    that may wait to be taken. ``saving``: overrides the LPs' own policy of state saving. ``digest``: "events", "state" or "off".
    ``schedule_seed``: order in which the PEs of the Python tier take turns. ``debug``: checks every event twice over, slowly.
    ``handler_timeout_s``: wall seconds after which a handler is taken to hang. ``slice_turns``: turns of a compiled
    PE between two looks of its shell. ``ring``: messages that fit a ring between two PEs, a power of 2.
    """

    kernel: Literal["sequential", "conservative", "optimistic"] = "sequential"
    tier: Literal["auto", "python", "compiled"] = "auto"
    workers: int = 1
    transport: Literal["threads", "mpi"] = "threads"
    window: int | Literal["auto", "lookahead"] = "auto"
    kps: int | None = None
    batch: int = 64
    gvt_interval: int = 4
    partition: str | Sequence[int] = "blocks"
    cancellation: Literal["aggressive", "lazy"] = "aggressive"
    memory_max_bytes: int | None = None
    outputs_max: int = 2**20
    saving: str | None = None
    digest: Literal["events", "state", "off"] = "events"
    schedule_seed: int | None = None
    debug: bool = False
    handler_timeout_s: float = 60.0
    slice_turns: int = 4096
    ring: int = 2**14

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if not is_one_of(getattr(self, name), choices):
                raise OperatorError(
                    f"{name} {getattr(self, name)!r}", f"it is one of {', '.join(choices)}", "choose one of them"
                )
        self._check_whole("workers", 1, PES_MAX)
        self._check_whole("batch", 1, 2**20)
        self._check_whole("gvt_interval", 1, 2**20)
        self._check_whole("slice_turns", 1, 2**30)
        self._check_whole("outputs_max", 1, 2**40)
        self._check_whole("ring", 2, 2**24)
        if self.ring & (self.ring - 1):
            raise OperatorError(f"ring {self.ring}", "a ring's size is a power of 2", "choose one")
        for name in ("kps", "memory_max_bytes", "schedule_seed"):
            if getattr(self, name) is not None:
                self._check_whole(name, 0 if name == "schedule_seed" else 1, 2**63 - 1)
        if not is_one_of(self.window, ("auto", "lookahead")):
            self._check_whole("window", 1, 2**62)
        self._check_partition()
        self._check_saving()
        debug: object = self.debug
        if not isinstance(debug, bool):
            raise OperatorError(f"debug {self.debug!r}", "it is True or False", "choose one of them")
        timeout: object = self.handler_timeout_s
        if (
            isinstance(timeout, bool)
            or not isinstance(timeout, (int, float, np.integer, np.floating))
            or not 0.0 < timeout < 1e9
        ):
            raise OperatorError(f"handler_timeout_s {timeout!r}", "it is a number of seconds above 0", "correct it")
        object.__setattr__(self, "handler_timeout_s", float(self.handler_timeout_s))

    def _check_whole(self, name: str, least: int, most: int) -> None:
        number = whole(getattr(self, name))
        if number is None or not least <= number <= most:
            raise OperatorError(
                f"{name} {getattr(self, name)!r}", f"it is a whole number from {least} to {most}", "correct it"
            )
        object.__setattr__(self, name, number)

    def _check_partition(self) -> None:
        given: object = self.partition
        is_array = isinstance(given, np.ndarray) and given.ndim == 1
        is_list = isinstance(given, Sequence) and not isinstance(given, (str, bytes, bytearray))
        if not (is_array or is_list or is_one_of(given, ("blocks", "graph"))):
            raise OperatorError(
                f"partition {given!r:.80}", "it is blocks, graph, or the PE of each LP", "choose one of them"
            )

    def _check_saving(self) -> None:
        if self.saving is None:
            return
        try:
            parse_saving(str(self.saving), "option")
        except ModelError as error:  # here it is the operator's
            raise OperatorError(f"saving {self.saving!r}", error.rule, error.action) from None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Options from keywords.

        Raises:
            OperatorError: an unknown name, or a value that breaks its rule.
        """
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise OperatorError(f"option {name!r}", f"the options are {', '.join(names)}", "correct the name")
        return cls(**given)
