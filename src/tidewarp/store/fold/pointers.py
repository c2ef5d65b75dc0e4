"""Names as multi-value registers: a name has each value that was given it and that nobody has superseded since."""

from __future__ import annotations

from collections.abc import Iterator

from tidewarp.codec.bodies import PointerBody

__all__ = ["Pointers"]


class Pointers:
    """Pointer records go in, in any order. What supersedes may be told before what is superseded."""

    def __init__(self) -> None:
        self._given: dict[str, dict[bytes, bytes]] = {}  # name: values by record hash
        self._superseded: dict[str, set[bytes]] = {}

    def add(self, hash: bytes, body: PointerBody) -> None:
        """Note the record ``hash``. It supersedes records of its own name only."""
        self._given.setdefault(body.name, {})[hash] = body.ref.encoded()
        self._superseded.setdefault(body.name, set()).update(body.superseded)

    def values(self, name: str) -> list[bytes]:
        """Encoded references, ascending, each once: of what the name points to."""
        superseded = self._superseded.get(name, ())
        return sorted({value for record, value in self._given.get(name, {}).items() if record not in superseded})

    def names(self) -> Iterator[str]:
        """All names that have a value."""
        return (name for name in self._given if self.values(name))
