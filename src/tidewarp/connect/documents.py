"""The journal's documents about inputs: what a source sent, as columns, and what was refused.

One record carries up to 8,192 inputs, because a record costs about 20 µs and an input must cost far less.
All numbers are big-endian. Every document is a ``codec`` document in an INPUT record, whose ``time`` is the
lowest tick it speaks of.

``tw.inputs/1``   {source, admitted, ticks 8n, events 8n, partitions 2n, offsets 8n, paths 4n, kinds n, values, causes, ids}
                  one row per (input, path); the rows of one input follow each other. ``events`` are the event
                  times before clamping, empty if all equal ``ticks``. ``admitted`` is the floor at
                  admission: no input of this or of any later record lies below it or, if its source repairs, more
                  than its horizon below it; which is what lets a replay follow the journal with bounded memory.
                  ``causes`` and ``ids`` are texts, each after its U16 length, an empty one in the second and later
                  rows of an input; where no input has one, ``causes`` is empty and ``ids`` is left out.
``tw.paths/1``    {first, paths}: the number of a path is its place in all such lists; written before first use
``tw.dead/1``     {source, admitted, letters, counted, positions}: letters are [partition, offset, rule, message,
                  head, sha256, id]; ``counted`` is {rule: n} of letters over the limits; ``positions`` are
                  [partition, last offset] that this record moves past
``tw.gap/1``      {source, admitted, partition, first, end}: messages from ``first`` up to, not including, ``end`` are lost, and
                  the operator accepted that; ``first == end`` where their number is not known
``tw.shed/1``     {source, admitted, counted, positions, ids}: messages that became no inputs because there were others,
                  ``counted`` {"coalesced": n, "shed": n}; ``positions`` and the ``ids`` of those that have one as above.
                  Nothing counted: the positions tell which target the source reads (``Source.identity``)
``tw.ended/1``    {source, admitted}: the source has no more data, so it no longer holds the clock back. That
                  fact comes from outside and lets the clock move, hence it is journaled like any input.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from tidewarp.codec import Record, pack, pack_document, split_timed_body, unpack, unpack_document
from tidewarp.connect.contract import DeadLetter, Input, Readings
from tidewarp.errors import CodecError, Corrupt, InternalError

__all__ = [
    "DEAD",
    "ENDED",
    "GAP",
    "INPUTS",
    "PATHS",
    "SHED",
    "TEXT_MAX",
    "PathTable",
    "decode_inputs",
    "encode_dead",
    "encode_ended",
    "encode_gap",
    "encode_inputs",
    "encode_shed",
    "last_tick_of",
    "pack_positions",
    "text_of",
    "value_bytes",
]

TEXT_MAX = 2_000  # characters that an error may have in the journal

INPUTS, PATHS, DEAD, ENDED, GAP, SHED = "tw.inputs", "tw.paths", "tw.dead", "tw.ended", "tw.gap", "tw.shed"
_NONE, _BOOL, _INT, _FLOAT, _TEXT, _TREE = range(6)
_KIND = {type(None): _NONE, bool: _BOOL, int: _INT, float: _FLOAT, str: _TEXT, list: _TREE, dict: _TREE}
_PATHS_PER_RECORD = 2_000  # times 255 bytes stays below the journal's 1 MiB
_FIXED_BYTES = {_NONE: 0, _BOOL: 1, _INT: 8, _FLOAT: 8}
_NO_WORDS = ("", "")  # of the second and later rows of an input
_FLAGS = {b"\0": False, b"\1": True}
_COLUMNS = (("ticks", "q"), ("partitions", "H"), ("offsets", "Q"), ("paths", "I"), ("kinds", "B"))


class PathTable:
    """Numbers for paths, in the order of their first use in one journal."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._paths: list[str] = []

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, number: int) -> str:
        """The path with this number. Raises Corrupt if none was written."""
        try:
            return self._paths[number]
        except IndexError:
            raise Corrupt(
                f"path number {number}", f"the journal names {len(self._paths)} paths", "run tidewarp verify"
            ) from None

    def numbers(self, paths: Sequence[str]) -> Iterator[int]:
        """The numbers of paths that were added."""
        return map(self._number.__getitem__, paths)

    def add(self, paths: Sequence[str]) -> None:
        """Append paths as the journal lists them."""
        for path in paths:
            if type(path) is not str or path in self._number:
                raise Corrupt(f"path {path!r:.80}", "a path is text, listed once", "run tidewarp verify")
            self._number[path] = len(self._paths)
            self._paths.append(path)

    def introduce(self, paths: Sequence[str]) -> list[bytes]:
        """Number those of ``paths`` that are new; the ``tw.paths`` documents to journal first."""
        known = self._number
        new = [path for path in dict.fromkeys(paths) if path not in known]
        documents = []
        for start in range(0, len(new), _PATHS_PER_RECORD):
            part = new[start : start + _PATHS_PER_RECORD]
            documents.append(pack_document(PATHS, 1, {"first": len(self._paths), "paths": part}))
            self.add(part)
        return documents


def value_bytes(value: Any) -> tuple[int, bytes]:
    """Kind and bytes of one accepted value: text and trees with their length before them."""
    kind = _KIND.get(type(value))
    if kind is None:
        raise InternalError(f"a {type(value).__name__}", "the gate admits values of declared types", "report this")
    if kind == _FLOAT:
        return kind, struct.pack(">d", value)
    if kind == _INT:
        return kind, struct.pack(">q", value)
    if kind in (_NONE, _BOOL):
        return kind, b"" if value is None else bytes([value])
    data = value.encode() if kind == _TEXT else pack(value)
    return kind, struct.pack(">I", len(data)) + data


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> Sequence[tuple[Any, ...]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


def _encode_values(values: Sequence[Any]) -> tuple[bytes, bytes]:
    """The columns ``kinds`` and ``values``."""
    if set(map(type, values)) == {float}:  # most are
        return bytes([_FLOAT]) * len(values), struct.pack(f">{len(values)}d", *values)
    kinds, data = _columns([value_bytes(value) for value in values], 2)
    return bytes(kinds), b"".join(data)


def _encode_texts(texts: Sequence[str]) -> bytes:
    """A column of texts; empty if none says anything."""
    if not any(texts):
        return b""
    encoded = [text.encode() for text in texts]
    return b"".join([part for data in encoded for part in (struct.pack(">H", len(data)), data)])


def _texts(name: str, data: bytes, n: int) -> list[str]:
    if data == b"":
        return [""] * n
    at = 0
    texts = []
    for _ in range(n):
        (size,) = struct.unpack_from(">H", data, at)
        at += 2 + size
        texts.append(data[at - size : at].decode())
    if at != len(data) or not any(texts):
        raise Corrupt(f"column {name}", f"it does not hold {n} texts, one at least not empty", "run tidewarp verify")
    return texts


def encode_inputs(
    source: str, admitted: int, inputs: Sequence[Input], table: PathTable, columns: Readings | None = None
) -> list[bytes]:
    """The ``tw.inputs`` document of these inputs, in the order given (that of arrival); before it, of their new paths.

    ``columns``: the same inputs as columns, where they are at hand.
    """
    ticks: Sequence[int]
    partitions: Sequence[int]
    offsets: Sequence[int]
    events: Sequence[int]
    ids: Sequence[str] = ()
    causes: Sequence[str] = ()
    if columns is not None:
        partition, first, ticks, paths, values = columns
        partitions, offsets, events = [partition] * len(ticks), range(first, first + len(ticks)), ticks
    elif set(map(len, map(itemgetter(Input._fields.index("changes")), inputs))) == {1}:
        ticks, _, partitions, offsets, changes, events, ids, causes = _columns(inputs, len(Input._fields))
        paths, values = _columns([change for (change,) in changes], 2)
    else:
        rows = [
            (
                one.tick,
                one.partition,
                one.offset,
                path,
                value,
                one.event_tick,
                *((one.id, one.cause) if n == 0 else _NO_WORDS),
            )
            for one in inputs
            for n, (path, value) in enumerate(one.changes)
        ]
        ticks, partitions, offsets, paths, values, events, ids, causes = _columns(rows, 8)
    n = len(ticks)
    introduced = table.introduce(paths)
    kinds, data = _encode_values(values)
    document = {
        "source": source,
        "admitted": admitted,
        "ticks": struct.pack(f">{n}q", *ticks),
        "events": b"" if events == ticks else struct.pack(f">{n}q", *events),
        "partitions": struct.pack(f">{n}H", *partitions),
        "offsets": struct.pack(f">{n}Q", *offsets),
        "paths": struct.pack(f">{n}I", *table.numbers(paths)),
        "kinds": kinds,
        "values": data,
        "causes": _encode_texts(causes),
    }
    if any(ids):
        document["ids"] = _encode_texts(ids)
    return [*introduced, pack_document(INPUTS, 1, document)]


def _values(kinds: bytes, data: bytes) -> Iterator[Any]:
    if kinds.count(_FLOAT) == len(kinds) and len(data) == 8 * len(kinds):
        yield from struct.unpack(f">{len(kinds)}d", data)
        return
    at = 0
    for kind in kinds:
        if kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
        elif kind in (_TEXT, _TREE) and len(data) >= at + 4:
            size = int.from_bytes(data[at : at + 4], "big")
            at += 4
        else:
            raise Corrupt(f"value kind {kind}", "kinds are 0 to 5", "run tidewarp verify")
        part = data[at : at + size]
        if len(part) != size:
            raise Corrupt("the values of an input record", "they end before the last row", "run tidewarp verify")
        at += size
        if kind == _FLOAT:
            yield struct.unpack(">d", part)[0]
        elif kind == _INT:
            yield struct.unpack(">q", part)[0]
        elif kind == _BOOL:
            yield _FLAGS[part]
        elif kind == _TEXT:
            yield part.decode()
        else:
            yield None if kind == _NONE else unpack(part)
    if at != len(data):
        raise Corrupt("the values of an input record", "there are more than rows", "run tidewarp verify")


def decode_inputs(value: Mapping[str, Any], rank: int, table: PathTable) -> list[Input]:
    """The inputs of a ``tw.inputs`` document, in the order of arrival. Raises Corrupt for columns that do not fit."""
    try:
        return _decode_inputs(value, rank, table)
    except (KeyError, TypeError, ValueError, struct.error) as error:  # CodecError and UnicodeDecodeError among them
        found = f"{type(error).__name__}: {error}"
        raise Corrupt("an input record", f"its columns hold rows of inputs ({found})", "run tidewarp verify") from error


def _decode_inputs(value: Mapping[str, Any], rank: int, table: PathTable) -> list[Input]:
    n = len(value["kinds"])
    columns = []
    for name, code in _COLUMNS:
        if len(value[name]) != n * struct.calcsize(f">{code}"):
            raise Corrupt(f"column {name}", f"it does not hold {n} rows", "run tidewarp verify")
        columns.append(struct.unpack(f">{n}{code}", value[name]))
    ticks, partitions, offsets, paths, kinds = columns
    if len(value["events"]) not in (0, 8 * n):
        raise Corrupt("column events", f"it holds neither 0 nor {n} rows", "run tidewarp verify")
    events = struct.unpack(f">{n}q", value["events"]) if value["events"] else ticks
    values = _values(bytes(kinds), value["values"])
    ids, causes = _texts("ids", value.get("ids", b""), n), _texts("causes", value["causes"], n)
    inputs: list[Input] = []
    for tick, event, partition, offset, path, data, name, cause in zip(
        ticks, events, partitions, offsets, paths, values, ids, causes, strict=True
    ):
        change = (table.path(path), data)
        last = inputs[-1] if inputs else None
        if last is not None and last.partition == partition and last.offset == offset:
            if last.tick != tick or last.event_tick != event or name or cause:
                rule = "an input has one time, and its first row alone says its id and its cause"
                raise Corrupt(f"the rows of message {offset}", rule, "run tidewarp verify")
            inputs[-1] = last._replace(changes=(*last.changes, change))
        else:
            inputs.append(Input(tick, rank, partition, offset, (change,), event, name, cause))
    return inputs


def last_tick_of(record: Record) -> int:
    """The highest tick that an INPUT record speaks of.

    Raises:
        Corrupt: its body is no document, or its columns do not fit.
    """
    try:
        tick, data = split_timed_body(record.body)
        document = unpack_document(data)
        if document.schema != INPUTS:
            return tick
        column = document.value["ticks"]
        ticks: tuple[int, ...] = struct.unpack(f">{len(column) // 8}q", column)
        return max(ticks)
    except (CodecError, KeyError, TypeError, ValueError, struct.error) as error:
        found = f"{type(error).__name__}: {error}"
        raise Corrupt(
            f"record {record.seq}", f"its ticks cannot be read ({found})", "run tidewarp verify", record.seq
        ) from error


def encode_dead(
    source: str,
    admitted: int,
    letters: Sequence[DeadLetter],
    counted: Mapping[str, int],
    positions: Mapping[int, int],
) -> bytes:
    """The ``tw.dead`` document."""
    document = {
        "source": source,
        "admitted": admitted,
        "letters": [list(letter) for letter in letters],
        "counted": dict(counted),
        "positions": [[partition, positions[partition]] for partition in sorted(positions)],
    }
    return pack_document(DEAD, 1, document)


def encode_ended(source: str, admitted: int) -> bytes:
    """The ``tw.ended`` document."""
    return pack_document(ENDED, 1, {"source": source, "admitted": admitted})


def encode_gap(source: str, admitted: int, partition: int, first: int, end: int) -> bytes:
    """The ``tw.gap`` document."""
    document = {"source": source, "admitted": admitted, "partition": partition, "first": first, "end": end}
    return pack_document(GAP, 1, document)


def encode_shed(
    source: str, admitted: int, counted: Mapping[str, int], positions: Mapping[int, int], ids: Sequence[str]
) -> bytes:
    """The ``tw.shed`` document."""
    document = {
        "source": source,
        "admitted": admitted,
        "counted": dict(counted),
        "positions": [[partition, positions[partition]] for partition in sorted(positions)],
        "ids": list(ids),
    }
    return pack_document(SHED, 1, document)


def pack_positions(positions: Mapping[int, int]) -> bytes:
    """A source cursor: partition and last durable offset, ascending. A function of the source's records."""
    return pack([[partition, positions[partition]] for partition in sorted(positions)])


def text_of(error: BaseException) -> str:
    """What an error of anybody's class says of itself, as text of at most TEXT_MAX characters that a record can hold."""
    try:
        text = str(error)[:TEXT_MAX]
    except Exception as second:
        text = f"its message raises {type(second).__name__}"
    return text.encode("utf-8", "backslashreplace").decode()
