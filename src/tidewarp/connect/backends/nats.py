"""A stream of NATS JetStream as a source.

Formats: the reply subjects of JetStream's messages, ``$JS.ACK.…`` (ADR-15 of NATS), and its pull requests (ADR-13).
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from tidewarp.connect.backends.nats_client import Client
from tidewarp.connect.contract import (
    Decoder,
    Gap,
    Raw,
    Source,
)
from tidewarp.connect.decoders import ID_BYTES_MAX
from tidewarp.connect.received import Decoding, chosen_decoder, received
from tidewarp.errors import OperatorError

__all__ = ["NatsSource"]

_PULL_MESSAGES = 256  # asked for at once: so many, or so many bytes, wait here at most
_PULL_BYTES = 16 << 20
_PULL_S = 30.0
_ACK_WAIT_S = 3_600.0  # a living connection is given nothing again sooner; a lost one is replaced, consumer and all
_UNACKED_MAX = 65_536  # messages that wait for the journal
_HEADERS_BYTES = 1_024  # an output's have less


class NatsSource(Source):
    """The messages of a JetStream stream, by a durable pull consumer with explicit acknowledgement.

    The journal says where to go on, not the consumer: each open places the consumer behind the journaled sequence. So no
    message comes twice or out of order, and lag tools see how far the journal is. One twin per ``durable``.

    Args:
        servers: one address or several, ``nats://user:password@host:4222``.
        stream: its name; it exists.
        durable: name of the consumer, which the source makes and replaces.
        subjects: only messages of these; several need nats-server 2.10.
        map: field -> path, as in :class:`~tidewarp.connect.decoders.JsonMessages`.
        decoder: in place of JsonMessages: a decoder, or bytes -> mapping.
        options: further keywords of ``nats.connect``, such as ``tls`` and ``user_credentials``.
        name: of the source in the journal; default: the stream's.

    A message's offset is its sequence in the stream. A header ``tw-id`` is taken as its cause. Its partition stands for
    the time at which the stream was created, so that a stream that was made anew is noticed (Gap) whatever its sequences
    are. A journaled place that retention has passed is a Gap too. A stream with retention ``interest`` or ``workqueue``
    forgets what is journaled.
    """

    kind = "nats"
    clock = "wall"

    def __init__(
        self,
        servers: str | Sequence[str],
        stream: str,
        *,
        durable: str,
        subjects: str | Sequence[str] = (),
        map: Mapping[str, str] | None = None,
        decoder: Decoding | None = None,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name if name is not None else stream
        self._subjects = [subjects] if isinstance(subjects, str) else list(subjects)
        self._stream, self._durable, self._decoding = stream, durable, decoder
        self._map = None if map is None else dict(map)
        self._client = Client(f"nats source {stream!r}", servers, options or {})
        self._partition = 0
        self._begin(0)

    def _begin(self, behind: int) -> None:
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()  # bounded by what is pulled
        self._unacked: deque[tuple[int, str]] = deque()
        self._behind = self._given = behind  # sequence that was journaled at open; that was given last
        self._due = 0  # messages of the pull under way that have not come
        self._delivered = 0  # the consumer's own sequence
        self._inbox = ""

    def describe(self) -> dict[str, Any]:
        """Stream, subjects and map; not the servers, which may move."""
        return {"kind": self.kind, "stream": self._stream, "subjects": self._subjects, "map": self._map}

    def paths(self) -> Sequence[str]:
        """The paths that fields are mapped to."""
        return sorted(set((self._map or {}).values()))

    def decoder(self, epoch_ns: int) -> Decoder:
        """Of JSON messages, or the one that was given."""
        return chosen_decoder(self._decoding, self._map, epoch_ns)

    # ------------------------------------------------------------------ life
    async def open(self, positions: Mapping[int, int]) -> None:
        """Connect, and place the consumer behind the journaled sequence. OperatorError for a stream that is missing."""
        await self._client.connect()
        async with self._client.translating():
            info = await self._client.stream(self._stream)
            self._partition = zlib.crc32(str(info.created).encode()) & 0xFFFF
            self._begin(self._checked_position(positions, info))
            await self._place_consumer(info.config.retention)
            self._inbox = self._client.nats.new_inbox()
            await self._client.nats.subscribe(self._inbox, cb=self._take)

    async def close(self) -> None:
        """Disconnect; the consumer stays."""
        await self._client.close()

    def _checked_position(self, positions: Mapping[int, int], info: Any) -> int:
        """The journaled sequence, 0 for none. Raises Gap where the stream cannot go on behind it."""
        target, state = self._client.target, info.state
        if self._partition not in positions:
            if positions:  # what is accepted has a position of its own, before the first message of the new stream
                anew = f"{target}: the stream was made anew on {info.created}"
                raise Gap(self._partition, 0, state.first_seq or 1, anew)
            return 0
        behind = positions[self._partition]
        if state.last_seq < behind:
            rule = f"it ends at {state.last_seq}, and up to {behind} was read: its server lost what it had acknowledged"
            raise OperatorError(target, rule, "restore the stream, or connect it with another name=")
        if info.config.retention in (None, "limits") and behind + 1 < state.first_seq:
            raise Gap(self._partition, behind + 1, state.first_seq, target)
        return behind

    async def _place_consumer(self, retention: str | None) -> None:
        """Replace it: what an old one has delivered it would give again late, and out of order."""
        stand_in = f"{self._durable}-next"
        if retention == "interest":  # such a stream forgets its messages while it has no consumer
            await self._client.add_consumer(self._stream, self._config(stand_in, retention))
        await self._client.delete_consumer(self._stream, self._durable)
        made = await self._client.add_consumer(self._stream, self._config(self._durable, retention))
        await self._client.delete_consumer(self._stream, stand_in)
        if len(self._subjects) > 1 and not made.config.filter_subjects:
            value, rule = (
                f"subjects={self._subjects}",
                "several subjects of one consumer need nats-server 2.10 or later",
            )
            raise OperatorError(value, rule, "give one subject, with * or > in it")

    def _config(self, name: str, retention: str | None) -> dict[str, Any]:
        config: dict[str, Any] = {"name": name, "durable_name": name, "ack_wait": _ACK_WAIT_S}
        config["max_ack_pending"] = _UNACKED_MAX
        if self._behind and retention != "workqueue":  # which takes no other start than its first message
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": self._behind + 1}
        if self._subjects:
            only = self._subjects[0] if len(self._subjects) == 1 else self._subjects
            config["filter_subject" if only is self._subjects[0] else "filter_subjects"] = only
        return config

    # ------------------------------------------------------------------ messages
    async def read(self, limit: int) -> Sequence[Raw]:
        """The next messages. ConnectionError if the connection, or the consumer, is lost."""
        raws: list[Raw] = []
        async with self._client.translating():
            while not raws or (len(raws) < limit and not self._arrived.empty()):
                if self._arrived.empty() and self._due <= 0:
                    await self._pull()
                raw = await self._accepted_raw(await self._next())
                if raw is not None:
                    raws.append(raw)
        return raws

    async def confirm(self, positions: Mapping[int, int]) -> None:
        """Acknowledge what is journaled. Where the connection is lost the next open does so: it begins behind it."""
        behind = positions.get(self._partition, 0)
        async with self._client.translating():
            while self._unacked and self._unacked[0][0] <= behind and self._client.is_connected:
                await self._client.nats.publish(self._unacked.popleft()[1])

    async def _take(self, message: Any) -> None:
        self._arrived.put_nowait(message)

    async def _pull(self) -> None:
        nats, self._due = self._client.nats, _PULL_MESSAGES
        bytes_max = max(_PULL_BYTES, nats.max_payload + _HEADERS_BYTES)
        asked = {"batch": self._due, "max_bytes": bytes_max, "expires": int(_PULL_S * 1e9)}
        await nats.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._durable}", json.dumps(asked).encode(), self._inbox
        )

    async def _next(self) -> Any:
        """The next thing that came; None if the pull ended and did not say so."""
        if not self._arrived.empty():
            return self._arrived.get_nowait()
        getting = asyncio.ensure_future(self._arrived.get())
        try:
            await self._client.wait(getting, 2 * _PULL_S)
        except TimeoutError:
            self._due = 0
            return None
        finally:
            getting.cancel()  # where this is cancelled; without effect on what is done
        return getting.result()

    async def _accepted_raw(self, message: Any) -> Raw | None:
        """The message, if it is one and was not given before."""
        if message is None:
            return None
        headers = message.headers or {}
        if not message.reply:
            self._hear(headers.get("Status", ""), headers.get("Description", ""))
            return None
        tokens = message.reply.split(".")
        at = 4 if len(tokens) == 9 else 6
        _, sequence, delivered, time_ns = map(int, tokens[at : at + 4])
        if delivered != self._delivered + 1:
            raise ConnectionError(f"{self._client.target}: {delivered - self._delivered - 1} messages got lost here")
        self._delivered, self._due = delivered, self._due - 1
        if sequence <= self._behind:
            await self._client.nats.publish(message.reply)
        if sequence <= self._given:
            return None
        self._given = sequence
        self._unacked.append((sequence, message.reply))
        cause = headers.get("tw-id", "")
        cause = cause if cause.isprintable() and len(cause.encode()) <= ID_BYTES_MAX else ""
        raw = received(self._partition, sequence, message.data, id="", time_ns=time_ns)
        return raw._replace(cause=cause) if cause else raw

    def _hear(self, status: str, description: str) -> None:
        """The end of a pull: in order (408, no more bytes), or because the consumer is gone."""
        if status == "100":
            return
        self._due = 0
        if status not in ("404", "408") and "MaxBytes" not in description:
            raise ConnectionError(f"{self._client.target}: {status} {description}: no consumer {self._durable!r}")
