"""Topics of an MQTT 5 broker as a source."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from tidewarp.connect.backends.mqtt_client import Client
from tidewarp.connect.contract import Decoder, Gap, Raw, Source
from tidewarp.connect.decoders import ID_BYTES_MAX
from tidewarp.connect.received import Decoding, chosen_decoder, received
from tidewarp.errors import OperatorError

__all__ = ["MqttSource"]

_RECEIVE_MAX = 256  # messages that the broker sends before the first of them is journaled
_UNASKED_MAX = 65_536  # messages of QoS 0 that wait here: the broker sends them unasked
_UNASKED_BYTES = 64 << 20


class MqttSource(Source):
    """The messages of some topics, each acknowledged when the journal has it.

    The client has a session that outlives its connections (clean start off), so the broker keeps for it what it has not
    acknowledged, and sends it again after a crash. MQTT gives messages no number: an offset here is a count, and **a message
    that is sent again is known as a duplicate by its field** ``id`` **alone**. Without one it is applied twice.
    Order is the broker's. A message that its sender published with QoS 0 is acknowledged by nobody: it is lost in an outage,
    and dropped (and counted in ``dropped``) where 65,536 of them wait.

    A session that the broker has lost, or let expire, is a Gap. How many messages it keeps for an absent client is its own
    setting (``max_queued_messages`` of Mosquitto, by default 1,000).

    Args:
        host: of the broker.
        port: of the broker.
        topics: one topic filter or several, wildcards allowed; or filter -> path, for messages that name no path: the
            payload is then the value, JSON or else text, or an object ``{"value": ...}`` with ``time``, ``id`` and ``cause``
            as in JsonMessages. ``{n}`` in a path is level n of the topic, from 0: ``{"plant/+/temp": "{1}.temperature"}``.
            The first filter that fits counts.
        qos: 1, or 0 for what may be lost. 2 is refused: it hands a message over before the journal has it.
        tls: a context, or True for the default one.
        client_id: name of the session; by default made of name and topics, so two twins on the same topics need their own.
        username: of the credentials.
        password: likewise.
        expiry_s: how long the broker is to keep the session of an absent client.
        map: field -> path, as in :class:`~tidewarp.connect.decoders.JsonMessages`.
        decoder: in place of JsonMessages: a decoder, or bytes -> mapping.
        name: of the source in the journal.
    """

    kind = "mqtt"
    clock = "wall"

    def __init__(
        self,
        host: str,
        port: int,
        topics: str | Sequence[str] | Mapping[str, str],
        *,
        qos: int = 1,
        tls: ssl.SSLContext | bool | None = None,
        client_id: str | None = None,
        username: str | None = None,
        password: str | None = None,
        expiry_s: int = 604_800,
        map: Mapping[str, str] | None = None,
        decoder: Decoding | None = None,
        name: str = "mqtt",
    ) -> None:
        if qos not in (0, 1):
            rule = "a source takes 0 or 1; 2 would hand a message over before the journal has it"
            raise OperatorError(f"qos={qos!r}", rule, "give qos=1: a duplicate is known by its field id")
        self.name, self.replayable = name, qos > 0
        self.dropped = 0  # messages of QoS 0
        self._topics = [topics] if isinstance(topics, str) else list(topics)
        self._paths = dict(topics) if isinstance(topics, Mapping) else {}
        if self._paths and (map is not None or decoder is not None):
            rule = "a topic that names the path leaves nothing to a map or a decoder"
            raise OperatorError(f"topics={self._paths!r:.200}", rule, "list the topics, or leave the other out")
        self._qos, self._expiry_s, self._decoding = qos, expiry_s, decoder
        self._map = None if map is None else dict(map)
        if client_id is None:
            client_id = f"tidewarp-{sha256(repr((name, self._topics)).encode()).hexdigest()[:14]}"
        self._client = Client(
            f"mqtt source {name!r}", host, port, client_id=client_id, username=username, password=password, tls=tls
        )
        self._accepted = False
        self._begin(0)

    def _begin(self, offset: int) -> None:
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()  # bounded by receive_maximum, or in _take
        self._arrived_bytes = 0
        self._offset = offset  # of the last message given
        self._unacked: deque[tuple[int, int, int]] = deque()  # offset, message id, qos

    def describe(self) -> dict[str, Any]:
        """Topics and map; not the broker, which may move."""
        return {"kind": self.kind, "topics": self._paths or self._topics, "map": self._map}

    def paths(self) -> Sequence[str]:
        """The paths that fields, or topics, are mapped to."""
        return sorted({*(self._map or {}).values(), *(path for path in self._paths.values() if "{" not in path)})

    def decoder(self, epoch_ns: int) -> Decoder:
        """Of JSON messages, or the one that was given."""
        return chosen_decoder(self._decoding, self._map, epoch_ns)

    # ------------------------------------------------------------------ life
    def counts(self) -> dict[str, int]:
        """Messages of QoS 0 that found no room."""
        return {"dropped": self.dropped}

    async def open(self, positions: Mapping[int, int]) -> None:
        """Connect to the session. A new one, where the journal has messages of an old one, is a Gap."""
        self._begin(positions.get(0, 0))
        session = {"SessionExpiryInterval": self._expiry_s, "ReceiveMaximum": _RECEIVE_MAX}
        await self._client.connect(clean_start=False, properties=session, take=self._take)
        if positions and self._qos and not self._client.session_present and not self._accepted:
            await self._client.close({"SessionExpiryInterval": 0})  # so that the next open finds it missing, too
            target = f"{self._client.target}: the broker has no session of this client any more"
            raise Gap(0, self._offset + 1, self._offset + 1, target)
        await self._client.subscribe(self._topics, self._qos)
        self._accepted = False

    def accept(self, gap: Gap) -> None:
        """Go on with a new session."""
        self._accepted = True

    async def close(self) -> None:
        """Disconnect; the session stays."""
        await self._client.close()

    # ------------------------------------------------------------------ messages
    async def read(self, limit: int) -> Sequence[Raw]:
        """The next messages. ConnectionError when the connection is lost."""
        if self._arrived.empty():
            getting = asyncio.ensure_future(self._arrived.get())
            try:
                await self._client.until_lost(getting)
            finally:
                getting.cancel()  # without effect on what is done
            raws = [self._raw(getting.result())]
        else:
            raws = []
        while len(raws) < limit and not self._arrived.empty():
            raws.append(self._raw(self._arrived.get_nowait()))
        return raws

    async def confirm(self, positions: Mapping[int, int]) -> None:
        """PUBACK for what is journaled. Where the connection is lost the broker sends it again."""
        behind = positions.get(0, 0)
        while self._unacked and self._unacked[0][0] <= behind and self._client.is_connected:
            _, message_id, qos = self._unacked.popleft()
            self._client.acknowledge(message_id, qos)

    def _take(self, message: Any) -> None:
        full = self._arrived.qsize() >= _UNASKED_MAX or self._arrived_bytes >= _UNASKED_BYTES
        if message.qos == 0 and full:
            self.dropped += 1
            return
        self._arrived_bytes += len(message.payload)
        self._arrived.put_nowait(message)

    def _raw(self, message: Any) -> Raw:
        self._arrived_bytes -= len(message.payload)
        self._offset += 1
        if message.qos:
            self._unacked.append((self._offset, message.mid, message.qos))
        raw = received(0, self._offset, self._said(message), id="")
        for key, value in getattr(message.properties, "UserProperty", ()):
            if key == "tw-id" and value.isprintable() and len(value.encode()) <= ID_BYTES_MAX:
                return raw._replace(cause=value)
        return raw

    def _said(self, message: Any) -> bytes:
        """The payload; where its topic names a path, the message that sets it."""
        payload: bytes = message.payload
        path = next((path for topics, path in self._paths.items() if self._client.fits(topics, message.topic)), None)
        if path is None:
            return payload
        try:
            value = msgspec.json.decode(payload)
        except (ValueError, RecursionError):
            value = payload.decode(errors="replace")
            payload = msgspec.json.encode(value)
        try:
            named = b'"path":' + msgspec.json.encode(path.format(*message.topic.split("/")))
        except (LookupError, AttributeError, ValueError):
            named = b'"topic":' + msgspec.json.encode(message.topic)  # it has fewer levels: no path, a dead letter
        if isinstance(value, dict) and "value" in value:
            return payload.rstrip()[:-1] + b"," + named + b"}"
        return b"{" + named + b',"value":' + payload + b"}"
