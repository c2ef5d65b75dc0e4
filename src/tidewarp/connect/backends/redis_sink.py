"""Outputs as entries of Redis streams, each of them once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tidewarp.codec import pack, unpack
from tidewarp.connect.backends.redis import Client, connected, shown, translated
from tidewarp.connect.contract import Observation, Output, Refused, RunIdentity, Sink
from tidewarp.connect.payload import observation_payload, to_json
from tidewarp.errors import OperatorError
from tidewarp.observe import stage

__all__ = ["RedisStreamSink"]

_ROUTE = "__stream__"


class RedisStreamSink(Sink):
    """Adds one entry for each output to ``stream``: its field ``payload`` is the JSON of ``event_payload``.

    A value ``{"__stream__": "other", …}`` goes to the stream ``other``, without that key.

    How "once" is reached: the entries of a batch and the id of its last output, in the key ``tidewarp:{domain}:{name}``, are
    written by one MULTI. The key is watched, and what it holds is left out, so that it makes no difference whether the answer
    to an EXEC was lost before or after Redis had executed it, nor when it does. Do not evict that key
    (``maxmemory-policy noeviction``). What Redis has acknowledged it keeps over a restart of its own only as far as its append-only
    file says: with ``appendonly yes`` and ``appendfsync always`` all of it; with ``everysec`` the last second may be lost,
    which nobody notices. A Redis Cluster, which keeps keys apart, is refused.

    Args:
        url: ``redis://[user:password@]host:port/number``, or ``rediss://``.
        stream: where outputs go.
        name: in the journal, in all counts and in the key.
    """

    kind = "redis_stream"
    delivery = "once"

    def __init__(self, url: str, stream: str = "simulation_data", *, name: str | None = None) -> None:
        self.name = name if name is not None else self.kind
        self.nonfinite = 0  # numbers that became null
        self._url, self._stream = url, stream
        self._run = RunIdentity("", 0)
        self._client: Client | None = None

    def counts(self) -> dict[str, int]:
        """Numbers that became null."""
        return {"nonfinite": self.nonfinite}

    async def open(self, run: RunIdentity) -> str | None:
        """Connect; the id in the key."""
        await self.close()
        self._run = run
        self._client = await connected(self._url, "redis_stream sink")
        with translated(self._target):
            held = await self._client.get(self._key)
        return (held or b"").decode()

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        """One MULTI. A stream that is no stream refuses its entries and no others."""
        if self._client is None:
            raise OperatorError(f"sink {self.name!r}", "it is closed", "open it first")
        routed = [_routed(output, self._stream) for output in batch]
        refused: list[Refused] = []
        with translated(self._target):
            async with self._client.pipeline(transaction=True) as pipe:
                await pipe.watch(self._key)
                held = ((await pipe.get(self._key)) or b"").decode()
                fresh = [one for one in routed if one[1].id > held]
                if not fresh:
                    return []
                pipe.multi()
                added: list[str] = []
                for stream, output in fresh:
                    if stream is None:
                        refused.append(Refused(output.id, f"{_ROUTE} is no text; name the stream by its key"))
                        continue
                    payload, nonfinite = to_json(output, self._run)
                    pipe.xadd(stream, {"payload": payload})
                    added.append(output.id)
                    self.nonfinite += nonfinite
                pipe.set(self._key, batch[-1].id)
                stage("release.inside")
                answers: list[Any] = await pipe.execute(raise_on_error=False)
                stage("release.inside")  # Redis holds them, nobody knows
                if isinstance(answers[-1], Exception):
                    raise OperatorError(f"{self._target} key {self._key}", str(answers[-1]), "let the sink write it")
        for added_id, answer in zip(added, answers, strict=False):  # the last answer is the key's
            if isinstance(answer, Exception):
                refused.append(Refused(added_id, f"{answer}"))
        return sorted(refused)

    async def observe(self, rows: Sequence[Observation]) -> None:
        """Add an entry for each to ``stream``, outside of any MULTI."""
        if self._client is None:
            raise ConnectionError(f"{self._target}: not connected")
        with translated(self._target):
            async with self._client.pipeline(transaction=False) as pipe:
                for row in rows:
                    pipe.xadd(self._stream, {"payload": msgspec.json.encode(observation_payload(row, self._run))})
                await pipe.execute()

    async def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    @property
    def _target(self) -> str:
        return f"{shown(self._url)} stream {self._stream!r}"

    @property
    def _key(self) -> str:
        return f"tidewarp:{self._run.domain}:{self.name}"


def _routed(output: Output, stream: str) -> tuple[str | None, Output]:
    """Where it goes, None if its route is no name; and what goes there."""
    value = unpack(output.value)
    if not isinstance(value, dict) or _ROUTE not in value:
        return stream, output
    route = value.pop(_ROUTE)
    return (route if isinstance(route, str) and route else None), output._replace(value=pack(value))
