"""Redis: how all its connectors reach it, and its streams as a source, of which nothing is lost. Needs Redis 7."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tidewarp.connect.contract import Decoder, Gap, Raw, Source
from tidewarp.connect.received import Decoding, chosen_decoder, received
from tidewarp.errors import MissingExtra, OperatorError

__all__ = ["Client", "RedisStreamSource", "answer_s", "connected", "shown", "translated"]

Client = Any
"""A ``redis.asyncio.Redis``. Its annotations are those of both its protocols and of its synchronous twin, so they say nothing."""

_ANSWER_S = 10.0  # for an answer of the server; `?socket_timeout=` of the URL says otherwise
_FETCH = 1_000  # entries of one stream in one answer, at most
_MAY_PASS = (
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOGROUP",
    "NOREPLICAS",
    "OOM",
    "TRYAGAIN",
    "UNBLOCKED",
)


def shown(url: str) -> str:
    """The URL without what may be secret: user, password and options are left out."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
        return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"
    except ValueError:
        return "a Redis URL"


async def connected(url: str, what: str) -> Client:
    """A client that has been answered. It repeats no command by itself: what it repeats may be done twice.

    Raises:
        MissingExtra: no driver.
        OperatorError: the URL, or its credentials.
        ConnectionError: anything else, which may pass.
    """
    try:
        from redis.asyncio import ConnectionPool, Redis
        from redis.asyncio.connection import parse_url
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise MissingExtra(what, "it needs redis", "pip install 'tidewarp[redis]'") from None
    unusable = OperatorError(shown(url), "it is no URL of a Redis", "give redis://[user:password@]host:port/number")
    try:
        options: dict[str, Any] = {"socket_timeout": _ANSWER_S, "socket_connect_timeout": _ANSWER_S, **parse_url(url)}
        options |= {"protocol": 2, "decode_responses": False, "retry": Retry(NoBackoff(), 0)}
        pool = ConnectionPool(**options)
    except (ValueError, TypeError):
        raise unusable from None  # its text may hold the password
    client = Redis.from_pool(pool)
    try:
        with translated(shown(url)):
            await client.ping()
    except TypeError:  # an option in the URL that the driver does not know
        raise unusable from None
    except BaseException:
        await client.aclose()
        raise
    return client


def answer_s(client: Client) -> float:
    """How long it waits for an answer, in seconds."""
    return float(client.connection_pool.connection_kwargs.get("socket_timeout") or _ANSWER_S)


@contextmanager
def translated(target: str) -> Iterator[None]:
    """The driver's errors as ours: ConnectionError for what may pass, OperatorError for what only people can mend."""
    from redis import exceptions

    try:
        yield
    except (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError) as error:
        raise OperatorError(target, str(error), "correct the user, the password or what the user may do") from error
    except (exceptions.OutOfMemoryError, exceptions.ReadOnlyError) as error:
        raise ConnectionError(f"{target}: {error}") from error
    except exceptions.ResponseError as error:
        if str(error).startswith(_MAY_PASS):
            raise ConnectionError(f"{target}: {error}") from error
        raise OperatorError(target, str(error), "a Redis 7 that is no cluster, and keys of the right type") from error
    except exceptions.RedisError as error:
        raise ConnectionError(f"{target}: {error}") from error


class RedisStreamSource(Source):
    """Entries of Redis streams, read by a consumer group. Partition n is stream n of the list.

    The message is the field ``payload`` of an entry (JSON, as :class:`~tidewarp.connect.decoders.JsonMessages`); of an entry
    without it, its fields as a JSON object of texts: ``XADD s * path line.speed value 1.5``. Its id is the entry's, which also
    says when Redis took it. The group is made where there is none, and then begins with what the streams hold. An entry is
    acknowledged (XACK) when the journal has it; until then it is given again to the next life of this consumer, and the gate
    drops what it had. One that was deleted meanwhile comes without bytes, so it is a duplicate or a dead letter.

    A Gap: the group is gone, or entries were trimmed or deleted that the group had not been given. Behind an accepted
    one everything that is left is given.

    Args:
        url: ``redis://[user:password@]host:port/number``, or ``rediss://``.
        streams: a name or several, in this order for as long as the journal lives.
        group: consumer group.
        consumer: name within the group, the same in every life; default is ``name``. Twins that share a group need one each.
        decoder: in place of JSON: a decoder, or a callable, bytes -> mapping.
        map: field of a flat object -> path.
        name: in the journal and in all counts.
    """

    kind = "redis_stream"
    clock = "wall"

    def __init__(
        self,
        url: str,
        streams: str | Sequence[str],
        *,
        group: str,
        consumer: str | None = None,
        decoder: Decoding | None = None,
        map: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name if name is not None else self.kind
        self._url, self._group = url, group
        self._streams = [streams] if isinstance(streams, str) else [*streams]
        self._consumer = consumer if consumer is not None else self.name
        self._decoding, self._map = decoder, map
        self._client: Client | None = None
        self._block_ms = 0
        self._next: dict[int, int] = {}
        self._unread: dict[bytes, bytes] = {}  # stream -> id up to which its pending entries have been read
        self._ready: deque[Raw] = deque()
        self._given: dict[int, deque[tuple[int, bytes]]] = {}  # offset and entry id, not acknowledged
        self._reported: dict[int, object] = {}  # partition -> what was wrong with it
        self._accepted: dict[int, object] = {}
        if not self._streams or len(set(self._streams)) < len(self._streams) or len(self._streams) > 1 << 16:
            raise OperatorError(f"streams {streams!r:.80}", "one to 65536 names, each once", "correct the list")

    def describe(self) -> dict[str, Any]:
        """Streams, group and map."""
        described: dict[str, Any] = {"kind": self.kind, "streams": self._streams, "group": self._group}
        return described if self._map is None else {**described, "map": dict(self._map)}

    def decoder(self, epoch_ns: int) -> Decoder:
        """The user's, or JSON."""
        return chosen_decoder(self._decoding, self._map, epoch_ns)

    async def open(self, positions: Mapping[int, int]) -> None:
        """Connect; make the group where there is none. What this consumer was given and has not confirmed comes first."""
        await self.close()
        self._client = await connected(self._url, "redis_stream source")
        self._block_ms = max(1, int(min(answer_s(self._client) / 2, 1.0) * 1000))
        self._next = {n: positions.get(n, -1) + 1 for n in range(len(self._streams))}
        self._given = {n: deque() for n in range(len(self._streams))}
        self._ready.clear()
        for partition, stream in enumerate(self._streams):
            with translated(self._target(stream)):
                await self._join(self._client, partition, stream, partition in positions)
        self._unread = {stream.encode(): b"0" for stream in self._streams}

    def accept(self, gap: Gap) -> None:
        """The next :meth:`open` goes on over it."""
        self._accepted[gap.partition] = self._reported.get(gap.partition)

    async def read(self, limit: int) -> Sequence[Raw]:
        """The next entries, those pending from an earlier life first. Asks Redis to hold the answer until there is one."""
        if self._client is None:
            raise OperatorError(f"source {self.name!r}", "it is closed", "open it first")
        while not self._ready:
            with translated(self._target(", ".join(self._streams))):
                await self._fetch(self._client, min(limit, _FETCH))
            task = asyncio.current_task()
            if task is not None and task.cancelling() and not self._ready:
                raise asyncio.CancelledError  # wait_for of Python 3.11, in the driver, forgets one that comes with an answer
        return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]

    async def confirm(self, positions: Mapping[int, int]) -> None:
        """XACK. What could not be told, a later call tells again."""
        for partition, last in positions.items():
            given = self._given.get(partition, deque())
            ids = [entry for offset, entry in given if offset <= last]
            for first in range(0, len(ids), _FETCH):
                some = ids[first : first + _FETCH]
                await self._acknowledge(self._streams[partition], some)
                for _ in some:
                    given.popleft()

    async def close(self) -> None:
        """Disconnect. What was not confirmed stays pending."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    # ------------------------------------------------------------------ how it is done
    def _target(self, stream: str) -> str:
        return f"{shown(self._url)} stream {stream!r} group {self._group!r}"

    async def _join(self, client: Client, partition: int, stream: str, is_resumed: bool) -> None:
        """Find the group, or make it, and see that the next entry is the next that it has to be given."""
        group = await _group(client, stream, self._group)
        found: object = "gone"
        lost: int | None = 0
        if group is not None:
            found, lost = _lost(await client.xinfo_stream(stream), group)
        elif not is_resumed:
            found = None
        if is_resumed and (group is None or lost != 0) and self._accepted.get(partition) != found:
            self._reported[partition] = found
            first = self._next[partition]
            gap = Gap(partition, first, first + (lost or 0), self._target(stream))
            if group is None:
                gap.value = f"{self._target(stream)}: the stream or its group is gone, with what was not read"
            raise gap
        if group is None:
            self._accepted.pop(partition, None)
            await client.xgroup_create(stream, self._group, id="0", mkstream=True)

    async def _fetch(self, client: Client, limit: int) -> None:
        """Entries into ``_ready``: those pending, and when there are no more, new ones."""
        old = dict(self._unread)
        if old:
            answer = await client.xreadgroup(self._group, self._consumer, old, count=limit)
        else:
            new = dict.fromkeys(self._streams, ">")
            answer = await client.xreadgroup(self._group, self._consumer, new, count=limit, block=self._block_ms)
        entries: dict[bytes, Any] = dict(answer or ())
        for stream in old:
            if entries.get(stream):
                self._unread[stream] = entries[stream][-1][0]
            else:
                del self._unread[stream]
        for partition, name in enumerate(self._streams):
            for entry, fields in entries.get(name.encode(), ()):
                self._take(partition, entry, fields)

    def _take(self, partition: int, entry: bytes, fields: Mapping[bytes, bytes]) -> None:
        offset = self._next[partition]
        self._next[partition] += 1
        self._given[partition].append((offset, entry))
        text = entry.decode()
        name = text if len(self._streams) == 1 else f"{partition}/{text}"  # two streams may give one id
        time_ns = int(text.partition("-")[0]) * 1_000_000
        payload = _payload(fields)
        self._ready.append(received(partition, offset, payload, id=name, time_ns=time_ns if time_ns < 2**63 else None))

    async def _acknowledge(self, stream: str, ids: Sequence[bytes]) -> None:
        if self._client is None:
            raise ConnectionError("it is closed")
        with translated(self._target(stream)):
            await self._client.xack(stream, self._group, *ids)


async def _group(client: Client, stream: str, group: str) -> Mapping[str, Any] | None:
    """What Redis knows of the group; None if it, or the stream, is not there."""
    if not await client.exists(stream):
        return None
    return next((one for one in await client.xinfo_groups(stream) if one["name"] == group.encode()), None)


def _lost(stream: Mapping[str, Any], group: Mapping[str, Any]) -> tuple[object, int | None]:
    """How many entries were removed before the group was given them (None: some), and what tells this loss from a later one.

    Redis counts what it has added and what it has given to a group; entries leave at the low end (trimmed), or by XDEL.
    """
    last = group["last-delivered-id"]
    removed = stream["entries-added"] - stream["length"]
    found = (removed, stream["max-deleted-entry-id"])
    if _order(last) == (0, 0):  # nothing was given: the group is new
        return found, 0
    if _order(stream["max-deleted-entry-id"]) > _order(last):
        return found, None
    first = stream["first-entry"]
    if first is not None and _order(first[0]) <= _order(last):
        return found, 0
    if group["entries-read"] is None:
        is_empty = first is None and _order(stream["last-generated-id"]) > _order(last)
        return found, None if is_empty else 0
    return found, max(0, removed - group["entries-read"])


def _order(id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = id.partition(b"-")
    return int(milliseconds), int(sequence or 0)


def _payload(fields: Mapping[bytes, bytes]) -> bytes:
    if not fields:
        return b""  # deleted while it was pending
    if b"payload" in fields:
        return fields[b"payload"]
    try:
        return msgspec.json.encode({name.decode(): value.decode() for name, value in fields.items()})
    except UnicodeDecodeError:
        return b"\n".join(part for field in fields.items() for part in field)  # no JSON: a dead letter
