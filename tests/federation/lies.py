"""Lies that a peer may tell: each changes the answer to a question, and says as what it is to be refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

from node import Node

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import BatchItem, decode_batch, encode_batch
from tidewarp.codec.heads import sign_head
from tidewarp.federation.messages import GetArtifact, GetHeads, GetRecords


def batch(twist):
    """Of the items of each batch."""

    def twisted(world, question, answer):
        if not isinstance(question, GetRecords):
            return answer
        return answer._replace(body=encode_batch(twist(world, decode_batch(answer.whole))))

    return twisted


def octets(form, twist):
    """Of the bytes of each answer to a question of this form."""

    def twisted(world, question, answer):
        return answer._replace(body=twist(answer.whole)) if isinstance(question, form) else answer

    return twisted


def head(**changes):
    """Of fields of each head that is shown."""

    def twisted(world, question, answer):
        if not isinstance(question, GetHeads):
            return answer
        rows = json.loads(answer.whole)
        for row in rows:
            row.update({name: change(world, row) for name, change in changes.items()})
        return answer._replace(body=json.dumps(rows).encode())

    return twisted


def resigned(world, row, **changes):
    """The note of other fields, truly signed."""
    a = world.a
    size = changes.get("size", row["size"])
    fields = {"domain": a.domain, "root": a.frontier(a.domain).root(), "head": bytes.fromhex(row["head"]), **changes}
    return sign_head(fields["domain"], size, fields["root"], fields["head"], a.name, changes.get("seed", a.seed)).note()


def other_header(item, **changes):
    return item._replace(header=item.header._replace(**changes))


def set_at(items, at, item):
    return [*items[:at], item, *items[at + 1 :]]


class Lie(NamedTuple):
    tell: Callable
    kind: str = "payload_mismatch"
    outcome: str = "refused"


class World(NamedTuple):
    a: Node
    b: Node
    c: Node


LIES = {
    # batches as bytes
    "trailing byte": Lie(octets(GetRecords, lambda data: data + b"\0")),
    "truncated batch": Lie(octets(GetRecords, lambda data: data[:-1])),
    "truncated in the middle": Lie(octets(GetRecords, lambda data: data[: len(data) // 2])),
    "empty answer": Lie(octets(GetRecords, lambda data: b"")),
    "another magic": Lie(octets(GetRecords, lambda data: b"FB2\1" + data[4:])),
    "huge count": Lie(octets(GetRecords, lambda data: data[:4] + b"\xff\xff\xff\xff" + data[8:])),
    "count of one more": Lie(octets(GetRecords, lambda data: data[:7] + bytes([data[7] + 1]) + data[8:])),
    "count of one less": Lie(octets(GetRecords, lambda data: data[:7] + bytes([data[7] - 1]) + data[8:])),
    "body of 4 GiB": Lie(octets(GetRecords, lambda data: data[:94] + b"\xff\xff\xff\xff" + data[98:])),
    "no records": Lie(batch(lambda world, items: [])),
    # chain
    "gap": Lie(batch(lambda world, items: items[:1] + items[2:])),
    "regress": Lie(batch(lambda world, items: items[:2] + items[:2])),
    "begins later": Lie(batch(lambda world, items: items[1:])),
    "two swapped": Lie(batch(lambda world, items: [items[1], items[0], *items[2:]])),
    "a record twice": Lie(batch(lambda world, items: items[:1] + items)),
    "another domain": Lie(batch(lambda world, items: [other_header(one, domain=world.c.domain) for one in items])),
    "the puller's own domain": Lie(
        batch(lambda world, items: [other_header(one, domain=world.b.domain) for one in items])
    ),
    "another kind": Lie(batch(lambda world, items: set_at(items, 1, other_header(items[1], kind=0x7F)))),
    "another hlc": Lie(batch(lambda world, items: set_at(items, 3, other_header(items[3], hlc=1)))),
    "last record of another": Lie(
        batch(lambda world, items: set_at(items, 3, BatchItem(*world.c.logs[world.c.domain][0])))
    ),
    # bodies and artifacts
    "another body": Lie(
        batch(lambda world, items: set_at(items, 0, items[0]._replace(body=bytes(len(items[0].body)))))
    ),
    "another artifact": Lie(
        batch(lambda world, items: set_at(items, 0, items[0]._replace(artifact=Artifact(b"no").to_bytes())))
    ),
    "artifact that lies of its size": Lie(
        batch(lambda world, items: set_at(items, 0, items[0]._replace(artifact=items[0].artifact[:-1])))
    ),
    "artifact beside a stub": Lie(batch(lambda world, items: set_at(items, 0, items[0]._replace(state=1, body=None)))),
    "artifact of an opaque record": Lie(
        batch(lambda world, items: set_at(items, 3, items[3]._replace(artifact=Artifact(b"x").to_bytes())))
    ),
    # artifacts alone
    "large artifact truncated": Lie(octets(GetArtifact, lambda data: data[:-1])),
    "large artifact of other bytes": Lie(octets(GetArtifact, lambda data: data[:-1] + b"\1")),
    "large artifact too long": Lie(octets(GetArtifact, lambda data: data + bytes(100))),
    "large artifact empty": Lie(octets(GetArtifact, lambda data: b"")),
    # heads
    "another key": Lie(head(key=lambda world, row: world.c.key.hex()), "bad_signature"),
    "another key that signed": Lie(
        head(key=lambda world, row: world.c.key.hex(), note=lambda world, row: resigned(world, row, seed=world.c.seed)),
        "bad_signature",
    ),
    "signed hash of another record": Lie(
        head(head=lambda world, row: "11" * 32, note=lambda world, row: resigned(world, row, head=b"\x11" * 32))
    ),
    "signed by a stranger": Lie(head(note=lambda world, row: resigned(world, row, seed=world.c.seed)), "bad_signature"),
    "note of another domain": Lie(
        head(note=lambda world, row: resigned(world, row, domain=world.c.domain)), "bad_signature"
    ),
    "note of another size": Lie(head(note=lambda world, row: resigned(world, row, size=3)), "bad_signature"),
    "size beyond the note": Lie(head(size=lambda world, row: row["size"] + 1), "bad_signature"),
    "head beside the note": Lie(head(head=lambda world, row: "00" * 32), "bad_signature"),
    "a note that is none": Lie(head(note=lambda world, row: "signed, a"), "bad_signature"),
    "a note with a carriage return": Lie(
        head(note=lambda world, row: row["note"].replace("\n", "\r\n")), "bad_signature"
    ),
    "an empty note": Lie(head(note=lambda world, row: ""), "bad_signature"),
    "domain renamed": Lie(head(domain=lambda world, row: world.c.domain.hex()), "bad_signature"),
    "own domain claimed": Lie(head(domain=lambda world, row: world.b.domain.hex()), "bad_signature"),
    "signed root of other records": Lie(head(note=lambda world, row: resigned(world, row, root=bytes(32)))),
    "heads that are no JSON": Lie(octets(GetHeads, lambda data: data[:-1]), outcome="none"),
    "heads nested without end": Lie(octets(GetHeads, lambda data: b"[" * 1_000_000), outcome="none"),
    "heads with a field too many": Lie(
        octets(GetHeads, lambda data: data.replace(b'"domain"', b'"x":1,"domain"')), outcome="none"
    ),
    "heads twice": Lie(octets(GetHeads, lambda data: b"[" + data[1:-1] + b"," + data[1:-1] + b"]"), outcome="none"),
}
