"""Records to bytes for a broker: JSON, or Avro with a schema registry. The Avro ones also parse what a source brings:

tw.sources.kafka("config", ..., decoders={"config": ConfluentAvro(url).parse})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from tidewarp.connect.backends.avro import plain
from tidewarp.connect.backends.confluent_avro import ConfluentAvro
from tidewarp.connect.backends.glue_avro import GlueAvro

__all__ = ["ConfluentAvro", "GlueAvro", "Json", "Serializer"]

_encode = msgspec.json.Encoder().encode


class Serializer(Protocol):
    """What a sink asks for the bytes of a record."""

    def serialize(self, topic: str, record: Mapping[str, Any]) -> bytes:
        """The bytes of ``record``, as ``connect.payload.event_payload`` gives it, for ``topic``.

        Raises:
            ValueError, TypeError: this record is refused, the others go on.
            OSError: it may pass (a registry that does not answer): the batch is offered again.
            OperatorError: nobody but the operator can mend it: the run ends.
        """


class Json:
    """JSON. Numbers that JSON has not become null; a pydantic model the object of its fields."""

    def serialize(self, topic: str, record: Mapping[str, Any]) -> bytes:
        """As :class:`Serializer` says; the same for every topic."""
        return _encode({**record, "value": plain(record.get("value"))})
