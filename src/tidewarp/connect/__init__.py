"""The way in and the way out: sources, the gate, the outbox, sinks.

contract   what they say to each other (Raw, Input, Output, …) and the protocols Source and Sink
gate       pure: decode, check, order, bound, journal before apply
outbox     pure: release in order, retry, drop what a sink already holds
documents  the journal's byte forms of inputs
payload    the form in which an output leaves
shell      one thread and event loop per connector; decides nothing
backends   one module per kind of source and sink; `sources` and `sinks` list them for users
"""

from __future__ import annotations

from tidewarp.connect import sinks, sources
from tidewarp.connect.backends.kafka_admin import KafkaAdmin
from tidewarp.connect.contract import (
    MESSAGE_BYTES_MAX,
    Decoder,
    Gap,
    Input,
    Output,
    Raw,
    Readings,
    Refusal,
    Refused,
    RunIdentity,
    Sink,
    Source,
    Undecodable,
    Update,
)
from tidewarp.connect.payload import event_payload, to_json

__all__ = [
    "MESSAGE_BYTES_MAX",
    "Decoder",
    "Gap",
    "Input",
    "KafkaAdmin",
    "Output",
    "Raw",
    "Readings",
    "Refusal",
    "Refused",
    "RunIdentity",
    "Sink",
    "Source",
    "Undecodable",
    "Update",
    "event_payload",
    "sinks",
    "sources",
    "to_json",
]
