"""Outputs as messages of a topic of an MQTT 5 broker, at least once."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any

from tidewarp.connect.backends.mqtt_client import Client
from tidewarp.connect.contract import Output, Refused, RunIdentity
from tidewarp.connect.payload import to_json
from tidewarp.errors import OperatorError
from tidewarp.observe import stage

__all__ = ["MqttSink"]

_FOR_GOOD = (144, 149, 153)  # reason codes: topic name invalid, packet too large, payload format invalid
_NOT_AUTHORIZED = 135
_HEAD_BYTES = 256  # of a PUBLISH packet, but for its topic


class MqttSink:
    """Publishes outputs as JSON; write() returns when the broker has acknowledged every one.

    The user property ``tw-id`` is the output's id: after an outage in the middle of a batch all of it is sent again, and a
    receiver drops by it what it has. The broker is asked for nothing, so :meth:`open` cannot tell what it has had.

    Args:
        host: of the broker.
        port: of the broker.
        topic: where to publish.
        qos: 1 or 2, as a receiver may want it.
        tls: a context, or True for the default one.
        username: of the credentials.
        password: likewise.
        name: of the sink in the journal.
    """

    kind = "mqtt"
    delivery = "at_least_once"

    def __init__(
        self,
        host: str,
        port: int,
        topic: str,
        *,
        qos: int = 1,
        tls: ssl.SSLContext | bool | None = None,
        username: str | None = None,
        password: str | None = None,
        name: str = "mqtt",
    ) -> None:
        if qos not in (1, 2):
            raise OperatorError(f"qos={qos!r}", "a sink waits for the broker, which 0 never answers", "give qos=1")
        if not topic or set("+#\0") & set(topic):
            raise OperatorError(f"topic={topic!r}", "one publishes to a topic without wildcards", "name one topic")
        self.name = name
        self.nonfinite = 0  # numbers that became null
        self._topic, self._qos = topic, qos
        self._client = Client(f"mqtt sink {topic!r}", host, port, username=username, password=password, tls=tls)
        self._run = RunIdentity("", 0)

    def counts(self) -> dict[str, int]:
        """Numbers that became null."""
        return {"nonfinite": self.nonfinite}

    async def open(self, run: RunIdentity) -> None:
        """Connect; None: it cannot tell."""
        self._run = run
        await self._client.connect(clean_start=True)

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        """Publish, and wait for the broker to acknowledge all of it."""
        if not self._client.is_connected:
            await self.open(self._run)
        refused: list[Refused] = []
        sent: list[tuple[str, asyncio.Future[Sequence[Any]]]] = []
        try:
            for output in batch:
                payload, nonfinite = to_json(output, self._run)
                self.nonfinite += nonfinite
                size, size_max = len(payload) + len(self._topic) + _HEAD_BYTES, self._client.packet_bytes_max
                if size_max is not None and size > size_max:
                    refused.append(Refused(output.id, f"it has {size} bytes, the broker takes at most {size_max}"))
                    continue
                sent.append((output.id, self._client.publish(self._topic, payload, self._qos, {"tw-id": output.id})))
                stage("release.inside")
            answers = await self._client.acknowledged([future for _, future in sent])
        except OSError:
            await self._client.close()  # what is under way must not come behind what is sent again
            raise
        for (id_, _), failed in zip(sent, answers, strict=True):
            if failed is None:
                continue
            if failed.code == _NOT_AUTHORIZED:
                raise OperatorError(
                    self._client.target, f"topic {self._topic!r}: {failed}", "allow it, or give another"
                )
            if failed.code not in _FOR_GOOD:
                raise ConnectionError(f"{self._client.target}: {failed}")
            refused.append(Refused(id_, str(failed)))
        return refused

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()
