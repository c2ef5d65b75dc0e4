"""A published tool beside ours: it does the same work in the same run, in a process of its own, and may fail there."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tidewarp.cli.bench.measure import Best, Dropped, Elsewhere, Prepared
from tidewarp.cli.bench.own_process import Child, Failed

__all__ = ["INSTALL", "Published"]

PROGRAM = "tidewarp.cli.bench.published_program"
INSTALL = "pip install 'tidewarp[published]'"
PATIENCE_S = 120.0  # for one piece of its work: a burst of 2 M updates holds it up for seconds


class Published:
    """dynamic-des, or another ``module`` with its names; a context manager that leaves no process behind.

    ``missing`` says why there is none, and how to get it; None if there is one. ``failed`` has what it could not do: work ->
    why. That is a finding, and no error of ours.
    """

    def __init__(self, module: str = "dynamic_des") -> None:
        self.missing: str | None = None
        self.failed: dict[str, str] = {}
        self.version = ""
        self._module = module
        self._child: Child | None = None
        if importlib.util.find_spec(module) is None:
            self.missing = f"{module} is not installed: {INSTALL}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rest()

    def case(self, work: str, **sizes: Any) -> dict[str, Callable[[], Prepared]]:
        """``work`` as a case of ``best_of`` called "published"; none where the tool is missing or cannot do it."""
        if not self._is_there():
            return {}

        def round_() -> Elsewhere:
            answer = self.ask(work, 0.0, **sizes)
            if answer is None:
                raise Dropped
            return Elsewhere(answer["seconds"], answer)

        return {"published": lambda: round_}

    def compared(self, best: dict[str, Best], work: str, rate: str, size: int) -> dict[str, Any]:
        """Its two figures of a comparison with "simpy", under "published"; nothing if it has taken no part."""
        if "published" not in best:
            return {}
        theirs = best["published"]
        figures = {f"{work}_vs_simpy": theirs.faster_than(best["simpy"]), f"{work}_{rate}": size / theirs.seconds}
        return {"published": figures}

    def figures(self, work: str, seconds: float, **sizes: Any) -> dict[str, Any]:
        """What one piece of work gives that goes on for ``seconds``, under "published"; nothing if there is no answer."""
        answer = self.ask(work, seconds, **sizes) if self._is_there() else None
        return {} if answer is None else {"published": answer}

    def ask(self, work: str, seconds: float, **sizes: Any) -> dict[str, Any] | None:
        """Have ``work`` done, which should take ``seconds``, and wait. None: it failed, or took PATIENCE_S longer."""
        if self._child is None:
            self._child = Child(PROGRAM, self._module)
        try:
            return self._child.ask(work, PATIENCE_S + seconds, **sizes)
        except Failed as error:
            self.failed[work] = str(error)
            self.rest()
        return None

    def rest(self) -> None:
        """End its process: the next work gets a fresh one."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def document(self, figures: dict[str, Any]) -> dict[str, Any]:
        """``published`` and ``published_missing`` of the command's document."""
        there = self.missing is None
        whole = {"version": self.version or None, **figures, "failed": self.failed} if there else None
        return {"published": whole, "published_missing": self.missing}

    def _is_there(self) -> bool:
        """Can it be imported? Asked once."""
        if self.missing is None and not self.version:
            answer = self.ask("version", 0.0)
            if answer is None:
                self.missing = f"{self._module} cannot be imported ({self.failed.pop('version')}): {INSTALL}"
            else:
                self.version = answer["version"]
        return self.missing is None
