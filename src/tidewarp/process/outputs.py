"""The publications of a model, encoded and numbered as they are made, until the host takes them."""

from __future__ import annotations

from functools import partial
from typing import Final

from tidewarp import codec, units
from tidewarp.connect.contract import Output
from tidewarp.errors import CodecError, InstantOverrun, ModelError
from tidewarp.process.rules import shown

__all__ = ["KEY_BYTES_MAX", "OUTPUTS_MAX", "Outputs"]

KEY_BYTES_MAX: Final = 255
OUTPUTS_MAX: Final = 1_000_000
"""Outputs that one tick may have."""
_KEYS_REMEMBERED: Final = 1_000
_output = partial(tuple.__new__, Output)  # Output._make without its call in Python


class Outputs:
    """Numbers the outputs of each tick from 0 and holds them until :meth:`drain`.

    ``undeliverable`` counts the values that had no canonical form.
    """

    def __init__(self) -> None:
        self.undeliverable = 0
        self.held: list[Output] = []  # since the last drain
        self._keys: set[str] = set()  # that were found good
        self._time: float = -1.0
        self._tick = -1
        self._prefix = ""
        self._n = -1

    def publish(
        self, now: float, key: str, value: object, events: int, cause: str = "", root: str = "", stream: str = "event"
    ) -> str:
        """Hold ``value`` as an output at ``now`` s, which never goes back; its id. Raises as ``Environment.publish_event``."""
        if type(key) is not str or key not in self._keys:
            self._check_key(key)
        try:
            content = codec.pack(value)
        except CodecError as error:
            content = self._packed_otherwise(value, error)
        if now != self._time:
            self._begin(now)
        self._n = n = self._n + 1
        if n >= OUTPUTS_MAX:
            raise InstantOverrun(
                f"output {n} at {now} s", f"at most {OUTPUTS_MAX} outputs in one tick", "let time pass"
            )
        name = f"{self._prefix}{n:08x}"
        self.held.append(_output((name, self._tick, key, content, cause, root, events, stream)))
        return name

    def _packed_otherwise(self, value: object, error: CodecError) -> bytes:
        """A pydantic model as the JSON form of its fields; else a note that takes the value's place."""
        dump = getattr(type(value), "model_dump", None)
        if dump is not None:
            try:
                return codec.pack(dump(value, mode="json"))
            except Exception as second:  # its serializers are anybody's code
                rule = f"its model_dump() gives no plain data ({type(second).__name__})"
        else:
            rule = error.rule
        self.undeliverable += 1
        # Where in the value, but not the module of its type: that is "__main__" in one life and not in another.
        place = error.value.rpartition(": ")[0]
        return codec.pack({"undeliverable": type(value).__name__, "reason": f"{place}: {rule}"})

    def drain(self) -> list[Output]:
        """The outputs since the last call, in order."""
        held, self.held = self.held, []
        return held

    def _check_key(self, key: object) -> None:
        if type(key) is not str or not 0 < len(key) <= KEY_BYTES_MAX or not key.isascii() or not key.isprintable():
            rule = f"1 to {KEY_BYTES_MAX} printable ASCII characters"
            raise ModelError(f"key {shown(key)}", rule, "shorten or rename it")
        if len(self._keys) < _KEYS_REMEMBERED:
            self._keys.add(key)

    def _begin(self, now: float) -> None:
        self._time = now
        tick = units.ticks(float(now))
        if tick != self._tick:  # times closer than 1 ns share a tick
            self._tick = tick
            self._prefix = f"{tick:016x}-"
            self._n = -1
