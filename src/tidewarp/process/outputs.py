"""The publications of a model, encoded and numbered as they are made, until the host takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from tidewarp import codec, units
from tidewarp.connect.contract import Input, Output
from tidewarp.errors import CodecError, InstantOverrun, ModelError
from tidewarp.process.rules import shown

if TYPE_CHECKING:
    from tidewarp.process.environment import Environment

__all__ = ["KEY_BYTES_MAX", "OUTPUTS_MAX", "Outputs"]

KEY_BYTES_MAX: Final = 255
OUTPUTS_MAX: Final = 1_000_000
"""Outputs that one tick may have."""
_KEYS_REMEMBERED: Final = 1_000
_NUMBERS: Final = tuple(f"{n:08x}" for n in range(_KEYS_REMEMBERED))  # of most outputs, written once
_SECOND: Final = units.TICKS_PER_SECOND
_new = tuple.__new__  # Output's own constructor is a function in Python


class _Publish(Protocol):
    def __call__(self, key: str, value: object, stream: str = "event", content: bytes | None = None) -> str: ...


class Outputs:
    """Numbers the outputs of each tick from 0 and holds them until :meth:`drain`.

    ``undeliverable`` counts the values that had no canonical form.
    """

    def __init__(self) -> None:
        self.undeliverable = 0
        self.behind: dict[int, int] = {}  # tick -> number of the last output that it had before a cut
        self.held: list[Output] = []  # since the last drain

    def publisher(self, env: Environment) -> _Publish:
        """``publish_event`` of ``env``.

        A closure, and one function for all of it: a model may publish more often than it waits.
        """
        current, resolve, pack = env.causality.current, env.causality.now, codec.pack
        hold = self.held.append
        behind = self.behind
        keys: set[str] = set()  # that were found good
        time, tick, prefix, n = -1.0, -1, "", -1

        def publish_event(key: str, value: object, stream: str = "event", content: bytes | None = None) -> str:
            """Publish ``value`` under ``key``, as the class says. ``content``: its canonical bytes, if they are known."""
            nonlocal time, tick, prefix, n
            if type(key) is not str or key not in keys:
                _check_key(key)
                if len(keys) >= _KEYS_REMEMBERED:
                    keys.clear()
                keys.add(key)
            if content is None:
                try:
                    content = pack(value)
                except CodecError as error:
                    content = self._packed_otherwise(value, error)
            now = env._now
            if now != time:
                time = now
                whole = int(now)  # units.ticks, written out
                new = whole * _SECOND + round((now - whole) * _SECOND)
                if new > units.TICK_MAX:
                    units.ticks(float(now))  # raises
                if new != tick:  # times closer than 1 ns share a tick
                    tick, prefix, n = new, f"{new.to_bytes(8).hex()}-", behind.get(new, -1)
            n += 1
            if n < _KEYS_REMEMBERED:
                name = prefix + _NUMBERS[n]
            else:
                name = f"{prefix}{n:08x}"
            if n >= OUTPUTS_MAX:
                raise InstantOverrun(
                    f"output {n} at {now} s", f"at most {OUTPUTS_MAX} outputs in one tick", "let time pass"
                )
            origin = current[0]
            cause, root = resolve() if isinstance(origin, Input) else origin
            hold(_new(Output, (name, tick, key, content, cause, root, env.events, stream, "", False)))
            if cause:
                current[0] = (name, root)
            return name

        return publish_event

    def _packed_otherwise(self, value: object, error: CodecError) -> bytes:
        """Models, dataclasses and mappings as objects of their fields; else a note that takes the value's place."""
        try:
            return codec.pack(_as_plain(value))
        except CodecError as second:
            error = second
        except Exception as second:  # the serializers of a model are anybody's code
            error = CodecError(error.value, f"its fields give no plain data ({type(second).__name__})", error.action)
        self.undeliverable += 1
        # Where in the value, but not the module of its type: that is "__main__" in one life and not in another.
        place = error.value.rpartition(": ")[0]
        return codec.pack({"undeliverable": type(value).__name__, "reason": f"{place}: {error.rule}"})

    def drain(self) -> list[Output]:
        """The outputs since the last call, in order."""
        held = self.held[:]
        self.held.clear()  # the publisher holds on to the list
        return held


def _as_plain(value: Any, depth: int = codec.DEPTH_MAX) -> Any:
    """``value`` with pydantic models (in their JSON form), dataclasses and mappings in it as objects of their fields.

    What lies deeper than ``depth`` stays what it is: it is refused for its depth, whatever the depth of the stack.
    """
    if depth < 0:
        return value
    dump = getattr(type(value), "model_dump", None)
    if dump is not None:
        return dump(value, mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _as_plain(getattr(value, field.name), depth - 1) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _as_plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_plain(item, depth - 1) for item in value]
    return value


def _check_key(key: object) -> None:
    if type(key) is not str or not 0 < len(key) <= KEY_BYTES_MAX or not key.isascii() or not key.isprintable():
        rule = f"1 to {KEY_BYTES_MAX} printable ASCII characters"
        raise ModelError(f"key {shown(key)}", rule, "shorten or rename it")
