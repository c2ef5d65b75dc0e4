"""JSON messages to updates: what a broker's message may say.

    {"path": "line.temperature", "value": 71.5, "time": "2026-11-22T10:00:00Z", "id": "a7", "cause": "…"}
    {"set": {"line.lathe.current_cap": 2, "line.lathe.max_cap": 4}}

``path`` may be called ``path_id`` or ``param_path``, and ``value`` ``param_value``. ``set`` changes all its paths or
none. ``time`` is ISO 8601 (UTC without a zone), or Unix seconds; without it the message does not say when. ``id`` (text or
whole number) lets a second message with the same id be recognised as a duplicate. Other fields are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from typing import Any, Final, Protocol, runtime_checkable

import msgspec
from msgspec import UNSET, UnsetType

from tidewarp.connect.contract import MESSAGE_BYTES_MAX, Raw, Undecodable, Update
from tidewarp.errors import CodecError
from tidewarp.units import parse_instant

__all__ = ["ID_BYTES_MAX", "JsonMessages", "Parser"]

ID_BYTES_MAX: Final = 255
"""Bytes that an id, or a cause, may have."""
_PATHS, _VALUES = ("path", "path_id", "param_path"), ("value", "param_value")
_decode = msgspec.json.Decoder().decode


@runtime_checkable
class Parser(Protocol):
    """Bytes to a mapping, by what a registry knows: ``serializers.ConfluentAvro``, ``serializers.GlueAvro``."""

    def parse(self, payload: bytes) -> Mapping[str, Any]:
        """The message. Pure, once it is prepared."""

    def prepare(self, payload: bytes) -> object:
        """Ask the registry for what ``parse`` will need. Raises ConnectionError if it cannot be asked now."""


class _Plain(msgspec.Struct):
    """The messages that most are, as one typed object: reading them so takes an eighth of the time."""

    path: str | UnsetType = UNSET
    path_id: str | UnsetType = UNSET
    param_path: str | UnsetType = UNSET
    value: Any = UNSET
    param_value: Any = UNSET
    time: Any = None
    id: Any = None
    cause: Any = None
    set: Any = UNSET

    def special(self) -> bool:
        """Does it need more than its path, its value and its time?"""
        return self.id is not None or self.cause is not None or self.set is not UNSET

    def path_named(self) -> str:
        """Its path. Raises Undecodable if it has none."""
        for path in (self.path, self.path_id, self.param_path):
            if path is not UNSET:
                return path
        raise Undecodable("a message without path", "it names its path", "send {path, value}", "shape")


_decode_plain = msgspec.json.Decoder(_Plain).decode


class JsonMessages:
    """The decoder of messages for a twin whose tick 0 is ``epoch_ns`` (Unix ns).

    Args:
        epoch_ns: tick 0.
        map: field of a flat object -> path: ``{"temp": "line.temperature"}`` makes ``{"temp": 71.5}`` set that path.
            Its fields then take the place of ``path`` and ``set``; a message with none of them is refused.
        parse: bytes to mapping, or a :class:`Parser`; JSON by default.

    :meth:`decode` raises Undecodable.
    """

    def __init__(
        self,
        epoch_ns: int,
        *,
        map: Mapping[str, str] | None = None,
        parse: Parser | Callable[[bytes], Mapping[str, Any]] | None = None,
    ) -> None:
        self._epoch_ns = epoch_ns
        self._map = None if map is None else dict(map)
        self._parser = parse if isinstance(parse, Parser) else None
        self._parse = parse.parse if isinstance(parse, Parser) else parse

    def prepare(self, raw: Raw) -> None:
        """Fetch what the parser has to know before it can read this message. Raises ConnectionError: it may pass."""
        if self._parser is not None:
            self._parser.prepare(raw.payload)

    def decode(self, raw: Raw) -> Update:
        """What one message says."""
        if raw.sha256 is not None or len(raw.payload) > MESSAGE_BYTES_MAX:
            value = f"a message of more than {MESSAGE_BYTES_MAX} bytes"
            raise Undecodable(
                value, "it is too long", "send less, or keep it in the store and send its reference", "size"
            )
        return self.update(self._json(raw.payload) if self._parse is None else self._parse(raw.payload))

    def columns(self, payloads: Sequence[bytes]) -> tuple[list[str], list[Any], list[int] | None] | None:
        """Many messages at once: paths, values, ticks (None: none says a time). None: read them one by one.

        What is given here is what :meth:`decode` gives: messages that set one path and have no id and no cause.
        """
        if self._map is not None or self._parse is not None:
            return None
        try:
            messages = [_decode_plain(payload) for payload in payloads]
            if any(one.special() for one in messages):
                return None
            paths = [one.path_named() for one in messages]
            values = [one.param_value if one.value is UNSET else one.value for one in messages]
            times = [one.time for one in messages]
            ticks = None if times.count(None) == len(times) else [self._tick(time) for time in times]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Undecodable):
            return None
        return (paths, values, ticks) if UNSET not in values and max(map(len, payloads)) <= MESSAGE_BYTES_MAX else None

    def update(self, message: object) -> Update:
        """What one message, already parsed, says."""
        if not isinstance(message, Mapping):
            raise Undecodable(f"a {type(message).__name__}", "a message is an object", "send {path, value}", "shape")
        return Update(
            self._tick(message["time"]) if message.get("time") is not None else None,
            self._changes(message),
            _word(message, "id"),
            _word(message, "cause"),
        )

    def _json(self, payload: bytes) -> Any:
        try:
            return _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Undecodable(f"{payload[:40]!r}", f"it is no JSON: {error}", "send one JSON object", "json") from error
        except RecursionError:
            raise Undecodable(f"{payload[:40]!r}", "it is nested too deeply", "send a flatter object", "json") from None

    def _changes(self, message: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        if self._map is not None:
            changes = [(path, message[field]) for field, path in self._map.items() if field in message]
            if not changes:
                rule = f"it has none of the mapped fields {', '.join(self._map)}"
                raise Undecodable(f"fields {', '.join(map(str, [*message][:8]))}", rule, "correct the map", "shape")
            return tuple(changes)
        if "set" in message:
            together = message["set"]
            if not isinstance(together, Mapping) or not together:
                raise Undecodable("set", "it is an object {path: value} with at least one path", "name one", "shape")
            return tuple(together.items())
        for name in _PATHS:
            if name in message:
                return ((message[name], _value(message)),)
        value = f"fields {', '.join(map(str, [*message][:8])) or 'none'}"
        raise Undecodable(value, "a message names its path", "send {path, value} or {set: {path: value}}", "shape")

    def _tick(self, time: object) -> int:
        try:
            if isinstance(time, str):
                return parse_instant(time, UTC) - self._epoch_ns
            if isinstance(time, int | float) and not isinstance(time, bool):
                whole = int(time)
                return whole * 10**9 + round((time - whole) * 10**9) - self._epoch_ns
        except (CodecError, ValueError, OverflowError) as error:
            raise Undecodable(
                f"time {time!r:.40}", str(error)[:200], "send ISO 8601, or Unix seconds", "time"
            ) from error
        raise Undecodable(f"time {time!r:.40}", "it is text or a number", "send ISO 8601, or Unix seconds", "time")


def _value(message: Mapping[str, Any]) -> Any:
    for name in _VALUES:
        if name in message:
            return message[name]
    raise Undecodable("a message without value", "it says what its path becomes", "send {path, value}", "shape")


def _word(message: Mapping[str, Any], name: str) -> str:
    word = message.get(name)
    if word is None:
        return ""
    text = str(word) if type(word) in (str, int) else ""
    if not text or not text.isprintable() or len(text.encode()) > ID_BYTES_MAX:
        rule = f"printable text of 1 to {ID_BYTES_MAX} bytes, or a whole number"
        raise Undecodable(f"{name} {word!r:.40}", rule, "send such a one, or none", name)
    return text
