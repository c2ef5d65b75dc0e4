"""One byte form per value. Pure: no I/O, no clock, no state but the registered upcasters.

    canonical   values as canonical MessagePack
    documents   values with schema and version, lifted when they are old
    digest      labelled SHA-256, and the chain that names a run
    records     header, hash and identity of journal records

The forms of the store are imported from their own modules, since who runs a model needs none of them:

    frames                           fields: integers, counted bytes, texts
    references, artifacts, edges     names, what they name, what connects them
    bodies                           what each kind of record says
    snapshots, batches, segments     vectors of heads; records as they travel, and as a whole journal
    merkle, heads, ed25519           trees over journals, and who signs for them
    programs, results                pure functions, and what came out of them
    computations, receipts           what names a run, and who says what it came to
    requests                         runs that any site may execute
    dsse                             receipts as signed statements

What they write is written for ever: a change of a form needs a new version, and the old one stays readable.
"""

from __future__ import annotations

from tidewarp.codec.canonical import DEPTH_MAX, pack, pack_plain, unpack
from tidewarp.codec.digest import Chain, Digest
from tidewarp.codec.documents import Document, check_upcasters, pack_document, unpack_document, upcaster
from tidewarp.codec.records import (
    BODY_BYTES_MAX,
    CHECKPOINT,
    DIGEST,
    HEADER_BYTES,
    INPUT,
    PUBLISHED,
    RELEASED,
    TIMED_KINDS,
    Record,
    RecordHeader,
    domain_of,
    genesis,
    record_hash,
    split_timed_body,
    timed_body,
)

__all__ = [
    "BODY_BYTES_MAX",
    "CHECKPOINT",
    "DEPTH_MAX",
    "DIGEST",
    "HEADER_BYTES",
    "INPUT",
    "PUBLISHED",
    "RELEASED",
    "TIMED_KINDS",
    "Chain",
    "Digest",
    "Document",
    "Record",
    "RecordHeader",
    "check_upcasters",
    "domain_of",
    "genesis",
    "pack",
    "pack_document",
    "pack_plain",
    "record_hash",
    "split_timed_body",
    "timed_body",
    "unpack",
    "unpack_document",
    "upcaster",
]
