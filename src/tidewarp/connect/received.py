"""What the live sources share: a message within its bound, and the decoder that the user chose."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from tidewarp.connect.contract import HEAD_BYTES, MESSAGE_BYTES_MAX, Decoder, Raw
from tidewarp.connect.decoders import JsonMessages, Parser

__all__ = ["Decoding", "chosen_decoder", "received"]

Decoding = Decoder | Parser | Callable[[bytes], Mapping[str, Any]]
"""What a user may give as ``decoder``: a decoder, or what makes a mapping of the bytes of one message."""


def received(partition: int, offset: int, payload: bytes, *, id: str, time_ns: int | None = None) -> Raw:
    """The message; of one that is too long its head, and the SHA-256 of all."""
    if len(payload) <= MESSAGE_BYTES_MAX:
        return Raw(partition, offset, payload, None, time_ns, id)
    return Raw(partition, offset, payload[:HEAD_BYTES], hashlib.sha256(payload).digest(), time_ns, id)


def chosen_decoder(decoding: Decoding | None, map: Mapping[str, str] | None, epoch_ns: int) -> Decoder:
    """The user's decoder as it is; of a callable, or of nothing, :class:`~tidewarp.connect.decoders.JsonMessages`."""
    if isinstance(decoding, Decoder):
        return decoding
    return JsonMessages(epoch_ns, map=map, parse=decoding)
