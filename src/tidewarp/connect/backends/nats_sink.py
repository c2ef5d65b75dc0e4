"""Outputs as messages of one subject of a NATS JetStream stream, each once.

Formats: JetStream's headers ``Nats-Msg-Id``, ``Nats-Expected-Last-Msg-Id`` and ``Nats-Expected-Last-Subject-Sequence``, and
the codes of its errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidewarp.connect.backends.nats_client import Client
from tidewarp.connect.contract import Output, Refused, RunIdentity
from tidewarp.connect.payload import to_json
from tidewarp.errors import OperatorError

__all__ = ["NatsSink"]

_PUBLISH_S = 30.0  # for the acknowledgements of a batch
_TOO_LARGE, _WRONG_STREAM, _WRONG_ID, _WRONG_SEQUENCE = 10054, 10060, 10070, 10071
_HEADERS_BYTES = 1_024  # an output's have less


class NatsSink:
    """Publishes outputs as JSON to one subject of a JetStream stream, each once and in order.

    Every message expects a certain one before it: the first of a batch the last of its subject, by sequence (a server that
    was restarted forgets the last id), the others their predecessor, by id. So neither a retry nor a second writer can
    double or reorder anything. ``Nats-Msg-Id`` is ``domain:output id``, ``tw-id`` the output's id; the
    last message of the subject says, at open, what is held.

    Args:
        servers: one address or several, ``nats://user:password@host:4222``.
        subject: of this run alone; ``{domain}`` in it becomes the first 16 digits of the run's domain.
        stream: the stream that takes the subject. Where its retention removes even the last message of the subject, the
            sink can no longer tell what was held, and the journal is believed.
        options: further keywords of ``nats.connect``.
        name: of the sink in the journal; default: the stream's.
    """

    kind = "nats"
    delivery = "once"

    def __init__(
        self,
        servers: str | Sequence[str],
        subject: str,
        *,
        stream: str,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name if name is not None else stream
        self.nonfinite = 0  # numbers that became null
        self._template, self._subject, self._stream = subject, subject, stream
        self._client = Client(f"nats sink {subject!r}", servers, options or {})
        self._run = RunIdentity("", 0)
        self._sequence: int | None = None  # of the last message of the subject; None: not known
        self._bytes_max = 0

    def counts(self) -> dict[str, int]:
        """Numbers that became null."""
        return {"nonfinite": self.nonfinite}

    async def open(self, run: RunIdentity) -> str | None:
        """Connect; the id in the last message of the subject. OperatorError if that is another's."""
        self._run, self._sequence = run, None
        self._subject = self._template.replace("{domain}", run.domain[:16])
        await self._client.connect()
        async with self._client.translating():
            info = await self._client.stream(self._stream)
            self._bytes_max = self._client.nats.max_payload - _HEADERS_BYTES
            last = await self._client.last_message(self._stream, self._subject)
        if last is None:
            self._sequence = 0
            return "" if info.state.last_seq == 0 else None
        domain, _, held = (last.headers or {}).get("Nats-Msg-Id", "").partition(":")
        if domain != run.domain:
            rule = (
                f"a nats sink continues its own subject, and the last message there is {domain[:16] or 'of another'}…"
            )
            raise OperatorError(self._client.target, rule, "give another subject, or one with {domain} in it")
        self._sequence = last.seq
        return str(held)

    async def write(self, batch: Sequence[Output]) -> list[Refused]:
        """Publish, and wait until the stream has acknowledged every message."""
        if self._sequence is None:  # the last write failed: what of it arrived?
            held = await self.open(self._run) or ""
            batch = [output for output in batch if output.id > held]
        refused: list[Refused] = []
        records: list[tuple[str, bytes]] = []
        for output in batch:
            payload, nonfinite = to_json(output, self._run)
            self.nonfinite += nonfinite
            if len(payload) > self._bytes_max:
                refused.append(Refused(output.id, f"it has {len(payload)} bytes, a message at most {self._bytes_max}"))
            else:
                records.append((output.id, payload))
        sequence, self._sequence = self._sequence or 0, None
        async with self._client.translating():
            while records:
                sequence, count = await self._publish(records, sequence, refused)
                records = records[count:]
        self._sequence = sequence
        return refused

    async def _publish(
        self, records: Sequence[tuple[str, bytes]], sequence: int, refused: list[Refused]
    ) -> tuple[int, int]:
        """Publish all of them at once, the first behind ``sequence``, each other right behind the one before it.

        Where a message of another subject comes between two, the second and all behind it are refused, to be published
        again: a place in the stream cannot be foretold, so no sequence can be expected of the others.
        Returns the subject's last sequence, and how many records are done with.
        """
        expected = {"Nats-Expected-Last-Subject-Sequence": str(sequence)}
        messages: list[tuple[bytes, dict[str, str]]] = []
        for id_, payload in records:
            name = f"{self._run.domain}:{id_}"
            named = {"Nats-Msg-Id": name, "tw-id": id_, "Nats-Expected-Stream": self._stream}
            messages.append((payload, named | expected))
            expected = {"Nats-Expected-Last-Msg-Id": name}
        answers = await self._client.publish(self._subject, messages, _PUBLISH_S)
        for n, answer in enumerate(answers):
            code, told = answer.get("error", {}).get("err_code"), answer.get("error", {}).get("description")
            if code == _TOO_LARGE:
                refused.append(Refused(records[n][0], f"stream {self._stream}: {told}"))
                return sequence, n + 1
            if code == _WRONG_ID:
                return sequence, n
            if code == _WRONG_SEQUENCE:
                raise ConnectionError(f"{self._client.target}: somebody else publishes to {self._subject!r}")
            if code == _WRONG_STREAM:
                rule = f"it does not take the subject {self._subject!r}"
                raise OperatorError(f"stream {self._stream!r}", rule, "add the subject to the stream, or give another")
            if "error" in answer:
                raise ConnectionError(f"{self._client.target}: {told}")
            sequence = answer["seq"]
        return sequence, len(records)

    async def close(self) -> None:
        """Disconnect."""
        self._sequence = None
        await self._client.close()
