"""Redis Pub/Sub as a source, of which every outage is a gap."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from tidewarp.connect.backends.redis import Client, answer_s, connected, shown, translated
from tidewarp.connect.contract import Decoder, Gap, Raw, Source
from tidewarp.connect.received import Decoding, chosen_decoder, received
from tidewarp.errors import OperatorError

__all__ = ["RedisPubSubSource"]

_BUFFER_BYTES = 64 << 20
_TURN = 64  # messages after which others get their turn: where more has come already, the driver gives none


class RedisPubSubSource(Source):
    """Messages of Redis channels. **Nothing is given twice**: what is published while nobody listens is lost.

    So every connection behind the first is a Gap, an orderly resume too: connect it with ``gap="accept"``. While the twin is busy
    at most ``buffer`` messages and 64 MiB wait; then the oldest are dropped and counted in ``dropped``, and their offsets stay
    empty. All channels are partition 0. The messages are JSON, as of
    :class:`~tidewarp.connect.decoders.JsonMessages`; an ``id`` in them is the only one that they have.

    Args:
        url: ``redis://[user:password@]host:port/number``, or ``rediss://``.
        channels: a name or several.
        buffer: messages that may wait.
        decoder: in place of JSON: a decoder, or a callable, bytes -> mapping.
        map: field of a flat object -> path.
        name: in the journal and in all counts.
    """

    kind = "redis_pubsub"
    clock = "wall"
    replayable = False

    def __init__(
        self,
        url: str,
        channels: str | Sequence[str],
        *,
        buffer: int = 65_536,
        decoder: Decoding | None = None,
        map: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name if name is not None else self.kind
        self.dropped = 0
        self._url = url
        self._channels = [channels] if isinstance(channels, str) else [*channels]
        self._decoding, self._map, self._buffer = decoder, map, buffer
        self._client: Client | None = None
        self._listening: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._waiting: deque[Raw] = deque()
        self._waiting_bytes = 0
        self._next = 0
        self._has_listened = self._has_accepted = False
        if not self._channels or buffer < 1:
            raise OperatorError(f"channels {channels!r:.80}, buffer {buffer}", "at least one of each", "correct them")

    def describe(self) -> dict[str, Any]:
        """Channels and map."""
        described: dict[str, Any] = {"kind": self.kind, "channels": self._channels}
        return described if self._map is None else {**described, "map": dict(self._map)}

    def decoder(self, epoch_ns: int) -> Decoder:
        """The user's, or JSON."""
        return chosen_decoder(self._decoding, self._map, epoch_ns)

    def counts(self) -> dict[str, int]:
        """Messages that found no room."""
        return {"dropped": self.dropped}

    async def open(self, positions: Mapping[int, int]) -> None:
        """Subscribe. Raises Gap if this journal, or this object, has listened before."""
        await self.close()
        self._next = max(self._next, positions.get(0, -1) + 1)
        if (positions or self._has_listened) and not self._has_accepted:
            raise Gap(0, self._next, self._next, self._target)
        self._client = await connected(self._url, "redis_pubsub source")
        wait_s = answer_s(self._client)
        self._arrived = asyncio.Event()
        pubsub = self._client.pubsub()
        with translated(self._target):
            await pubsub.subscribe(*self._channels)
            for _ in self._channels:
                if await pubsub.get_message(timeout=wait_s) is None:
                    raise ConnectionError(f"{self._target}: no answer to SUBSCRIBE")
        self._has_listened, self._has_accepted = True, False
        self._listening = asyncio.create_task(self._listen(pubsub, wait_s))

    def accept(self, gap: Gap) -> None:
        """The next :meth:`open` that reaches the server goes on over it."""
        self._has_accepted = True

    async def read(self, limit: int) -> Sequence[Raw]:
        """What has arrived."""
        if self._listening is None:
            raise OperatorError(f"source {self.name!r}", "it is closed", "open it first")
        while not self._waiting:
            if self._listening.done():
                self._listening.result()  # raises what ended it
            self._arrived.clear()
            await self._arrived.wait()
        some = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        self._waiting_bytes -= sum(len(raw.payload) for raw in some)
        return some

    async def close(self) -> None:
        """Stop to listen."""
        listening, self._listening = self._listening, None
        client, self._client = self._client, None
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        if client is not None:
            await client.aclose()

    # ------------------------------------------------------------------ how it is done
    @property
    def _target(self) -> str:
        return f"{shown(self._url)} channels {', '.join(self._channels)}"

    async def _listen(self, pubsub: Any, wait_s: float) -> None:
        """Take what comes; ask a silent server whether it is still there, because a dead one is silent, too."""
        is_asked = False
        try:
            with translated(self._target):
                for n in itertools.count(1):
                    if n % _TURN == 0:
                        await asyncio.sleep(0)
                    message = await pubsub.get_message(timeout=wait_s)
                    if message is None and is_asked:
                        raise ConnectionError(f"{self._target}: no answer to PING within {wait_s:g} s")
                    if message is None:
                        await pubsub.ping()
                    elif message["type"] == "message":
                        self._take(message["data"])
                    is_asked = message is None
        finally:
            self._arrived.set()
            await pubsub.aclose()

    def _take(self, payload: bytes) -> None:
        raw = received(0, self._next, payload, id="")
        self._next += 1
        self._waiting.append(raw)
        self._waiting_bytes += len(raw.payload)
        while len(self._waiting) > self._buffer or self._waiting_bytes > _BUFFER_BYTES:
            self._waiting_bytes -= len(self._waiting.popleft().payload)
            self.dropped += 1
        self._arrived.set()
