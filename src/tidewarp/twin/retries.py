"""What is to be tried again, and when: a source that is opened anew, a sink that is offered its batch once more."""

from __future__ import annotations

from collections.abc import Callable

from tidewarp.clocks import Clock

__all__ = ["Retries"]


class Retries:
    """One at most for each connector, by its kind ("source", "sink") and name. ``clock`` is that of the host."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[tuple[str, str], tuple[float, Callable[[], None]]] = {}

    def put(self, kind: str, name: str, at_s: float, retry: Callable[[], None]) -> None:
        """Call ``retry`` at host time ``at_s``, in place of what was to be done for this connector."""
        self._due[kind, name] = at_s, retry

    def holds(self, kind: str, name: str) -> bool:
        """Is something to be tried again for this connector?"""
        return (kind, name) in self._due

    @property
    def pause_s(self) -> float | None:
        """How long nothing is due; None if nothing is to be tried again."""
        if not self._due:
            return None
        return max(0.0, min(at_s for at_s, _ in self._due.values()) - self._clock.now())

    def perform(self) -> None:
        """Try what is due."""
        if not self._due:
            return
        now_s = self._clock.now()
        for key in [key for key, (at_s, _) in self._due.items() if at_s <= now_s]:
            self._due.pop(key)[1]()
