"""A second decoder of the store's byte forms: written from the text of the formats alone, and sharing no code with them.

A parser is a function of (data, at) that gives (value, at behind it), or raises Refused. Numbers come back as int,
texts as str, references and hashes as bytes, and what has several parts as a tuple in the order of its bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

Parser = Callable[[bytes, int], tuple[Any, int]]


class Refused(ValueError):
    """Not the bytes of the form."""


def fixed(size: int) -> Parser:
    def parse(data: bytes, at: int) -> tuple[bytes, int]:
        if len(data) - at < size:
            raise Refused("truncated")
        return data[at : at + size], at + size

    return parse


def then(parser: Parser, change: Callable[[Any], Any]) -> Parser:
    """What ``change`` makes of the value; it may refuse it."""

    def parse(data: bytes, at: int) -> tuple[Any, int]:
        value, at = parser(data, at)
        return change(value), at

    return parse


def where(parser: Parser, holds: Callable[[Any], bool]) -> Parser:
    def check(value: Any) -> Any:
        if not holds(value):
            raise Refused("a rule of the value")
        return value

    return then(parser, check)


def uint(size: int) -> Parser:
    return then(fixed(size), lambda data: int.from_bytes(data, "big"))


def parts(*parsers: Parser) -> Parser:
    def parse(data: bytes, at: int) -> tuple[tuple[Any, ...], int]:
        values = []
        for parser in parsers:
            value, at = parser(data, at)
            values.append(value)
        return tuple(values), at

    return parse


def many(item: Parser, most: int = 65_536) -> Parser:
    def parse(data: bytes, at: int) -> tuple[tuple[Any, ...], int]:
        number, at = U32(data, at)
        if number > most:
            raise Refused("too many")
        return parts(*[item] * min(number, len(data)))(data, at)  # each has a byte or more

    return parse


def either(**by_first: Parser) -> Parser:
    """One byte that says what follows: the value is (it, what followed)."""

    def parse(data: bytes, at: int) -> tuple[tuple[int, Any], int]:
        first, at = U8(data, at)
        if f"_{first}" not in by_first:
            raise Refused("no such alternative")
        value, at = by_first[f"_{first}"](data, at)
        return (first, value), at

    return parse


def optional(parser: Parser) -> Parser:
    return then(either(_0=fixed(0), _1=parser), lambda value: value[1] if value[0] else None)


def counted(length: Parser, most: int | None = None) -> Parser:
    def parse(data: bytes, at: int) -> tuple[bytes, int]:
        size, at = length(data, at)
        if most is not None and size > most:
            raise Refused("too long")
        return fixed(size)(data, at)

    return parse


def nothing_more(parser: Parser) -> Callable[[bytes], Any]:
    def parse(data: bytes) -> Any:
        value, at = parser(data, 0)
        if at != len(data):
            raise Refused("trailing bytes")
        return value

    return parse


def ascending(values: Sequence[Any]) -> bool:
    return all(one < other for one, other in pairwise(values))


def literal(wanted: bytes) -> Parser:
    return where(fixed(len(wanted)), lambda data: data == wanted)


def as_text(data: bytes) -> str:
    try:
        return data.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise Refused("not UTF-8") from None


def is_reference(data: bytes) -> bool:
    hash_id, size = int.from_bytes(data[:2], "big"), len(data) - 2
    return hash_id > 0 and (size == 32 if hash_id == 1 else 2 <= size <= 64)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


U8, U16, U32, U64, HASH = uint(1), uint(2), uint(4), uint(8), fixed(32)
TEXT = then(counted(U16, 1024), as_text)
BYTES = counted(U32)
REFERENCE = where(lambda data, at: (data[at:], len(data)), is_reference)
ER = where(BYTES, is_reference)
ERS = many(ER)
TAG = optional(U32)
ARTIFACT = parts(TAG, counted(U64))
EDGE = parts(U32, ERS, ERS, ER)


def artifact_reference(payload: bytes, tag: int) -> bytes:
    return b"\0\1" + sha(b"\1" + tag.to_bytes(4, "big") + len(payload).to_bytes(8, "big") + payload)


def edge_body(data: bytes, at: int) -> tuple[tuple[bytes, Any], int]:
    ref, at = ER(data, at)
    edge, end = EDGE(data, at)
    if artifact_reference(data[at:end], 0x201) != ref:
        raise Refused("the reference of another edge")
    return (ref, edge), end


def heads(vector: Sequence[tuple[bytes, int, bytes]]) -> bool:
    return ascending([row[0] for row in vector]) and all(row[1] for row in vector)


SNAPSHOT = then(parts(literal(b"TWSNAP1"), HASH, where(many(parts(HASH, U64, HASH)), heads)), lambda value: value[1:])


def tombstone(value: tuple[Any, ...]) -> bool:
    _, scope, _, _, bounds = value
    domains = [domain for domain, _ in bounds]
    return scope <= 2 and (scope == 1 or not bounds) and ascending(domains) and all(seq for _, seq in bounds)


def lift(value: tuple[Any, ...]) -> bool:
    _, scope, record = value
    return scope <= 2 and (scope > 0 or record == bytes(32))


BODIES = {
    0x02: parts(ER, TAG, U64),
    0x03: edge_body,
    0x04: parts(ER, HASH, ERS),
    0x10: where(parts(ER, U8, U16, TEXT, many(parts(HASH, U64))), tombstone),
    0x11: where(parts(ER, U8, HASH), lift),
    0x12: parts(either(_0=ER, _1=where(U64, bool)), U16),
    0x2F: parts(HASH, U64, HASH, TEXT),
    0x30: parts(SNAPSHOT, TEXT),
    0x31: parts(TEXT, many(HASH), ER),
    0x40: parts(ER),
    0x41: parts(many(HASH)),
    0x42: parts(HASH, HASH),
    0x43: parts(HASH, ER),
    0x44: parts(HASH, ERS),
    0x50: parts(ER),
}


def header(value: tuple[Any, ...]) -> bool:
    _, _, seq, _, flags, hlc, _, size, _ = value
    return seq > 0 and flags <= 1 and hlc < 2**63 and size <= 2**20


HEADER = then(where(parts(literal(b"FR1\1"), HASH, U64, U8, U8, U64, HASH, U32, HASH), header), lambda value: value[1:])


def batch_item(data: bytes, at: int) -> tuple[tuple[Any, ...], int]:
    head, at = HEADER(data, at)
    (state, body), at = either(_0=fixed(head[6]), _1=fixed(0), _2=fixed(0))(data, at)
    artifact, at = optional(counted(U32, 65_536))(data, at)
    return (head, state, body if state == 0 else None, artifact), at


BATCH = then(parts(literal(b"FB1\1"), many(batch_item, 10_000)), lambda value: value[1])

ONE = literal(b"\0\1")
STATUS = where(U8, lambda number: number <= 4)
NODE = parts(TEXT, U32, many(either(_0=U32, _1=parts(U32, U32))), counted(U32, 2**20))


def program(value: tuple[Any, ...]) -> bool:
    _, externals, nodes, roots = value
    names: list[tuple[int, bytes]] = []  # (depth, h) of each node
    used = {node for node, _ in roots}
    for op, version, inputs, params in nodes:
        text, depth, whole = op.encode(), 0, b""
        for first, source in inputs:
            if first == 0:
                if source >= externals:
                    return False
                whole += b"\0" + source.to_bytes(4, "big")
            elif source[0] >= len(names):
                return False
            else:
                depth = max(depth, names[source[0]][0] + 1)
                used.add(source[0])
                whole += b"\1" + names[source[0]][1] + source[1].to_bytes(4, "big")
        whole = (
            len(text).to_bytes(2, "big") + text + version.to_bytes(4, "big") + len(inputs).to_bytes(4, "big") + whole
        )
        names.append((depth, sha(whole + len(params).to_bytes(4, "big") + params)))
    return ascending(names) and used == set(range(len(nodes)))


PROGRAM = where(parts(ONE, where(U32, lambda number: number <= 65_536), many(NODE), many(parts(U32, U32))), program)
RESULT = where(
    parts(ONE, STATUS, STATUS, U32, ER, ER, ERS, optional(ER), ERS, many(parts(U32, BYTES))),
    lambda value: value[1] == value[2],
)
TRACE = parts(ONE, ER, many(parts(where(U8, lambda status: status <= 2), U32, ERS)))
MANIFEST = parts(ERS, optional(ER))
LISTING = where(
    many(parts(TEXT, U32, HASH)), lambda rows: ascending([(name.encode(), version) for name, version, _ in rows])
)
EXECUTOR = parts(literal(b"\1"), HASH, TEXT)
REQUEST = parts(ER, optional(ER), many(either(_0=ER, _1=parts(ER, U32))))


def by_er(ref: bytes) -> tuple[int, bytes]:
    """The key that sorts references as their EncodedRefs, which begin with the length."""
    return len(ref), ref


TLVS = {
    1: ER,
    2: BYTES,
    3: where(
        many(parts(U32, ER, where(BYTES, lambda digest: len(digest) == 32))),
        lambda logs: ascending([(kind, by_er(ref)) for kind, ref, _ in logs]),
    ),
    4: parts(U64, U64, U64, U64, U64),
    5: parts(where(U8, lambda level: level <= 3), BYTES),
    6: parts(HASH, fixed(64)),
}


def tlvs(data: bytes, at: int) -> tuple[tuple[tuple[int, Any], ...], int]:
    values = []
    while at < len(data):
        (number, value), at = parts(U16, BYTES)(data, at)
        if number not in TLVS:
            raise Refused("unknown TLV")
        values.append((number, nothing_more(TLVS[number])(value)))
    if not ascending([number for number, _ in values]):
        raise Refused("TLVs out of order")
    return tuple(values), at


def receipt(value: tuple[Any, ...]) -> bool:
    executors, parity, output = value[6], value[7], value[5]
    in_order = ascending([by_er(ref) for ref in executors])
    return in_order and parity == tuple((ref, output) for ref in executors) and value[8] <= value[9]


RECEIPT = where(parts(ONE, ER, ER, ER, BYTES, ER, ERS, many(parts(ER, ER)), U64, U64, tlvs), receipt)
