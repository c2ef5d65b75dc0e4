"""One connection to NATS for a source or a sink, and what its errors mean. The only importer of nats-py.

It never reconnects by itself: what was under way at a loss is unknown to it. The host opens a new one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tidewarp.errors import InternalError, MissingExtra, OperatorError
from tidewarp.observe import stage

__all__ = ["Client"]

_CONNECT_S = 5
_PING_S = 5  # a server that is silent for two of them is lost
_CLOSE_S = 5.0


class Client:
    """A connection with JetStream. ``what`` names its user in errors, as "nats source 'readings'"."""

    def __init__(self, what: str, servers: str | Sequence[str], options: Mapping[str, Any]) -> None:
        self._servers = [servers] if isinstance(servers, str) else list(servers)
        if not self._servers:
            raise OperatorError("servers=[]", f"a {what} needs one address at least", "give 'nats://host:4222'")
        self._what, self._options = what, dict(options)
        self.target = f"{what} at {', '.join(server.rsplit('@', 1)[-1] for server in self._servers)}"
        self._nats: Any = None
        self._lost: asyncio.Future[None] | None = None
        self._heard = ""  # the last error that the server told of

    # ------------------------------------------------------------------ life
    async def connect(self) -> None:
        """Connect anew. OperatorError for wrong credentials or addresses, ConnectionError for what may pass."""
        await self.close()
        nats = self._driver()
        self._lost, self._heard = asyncio.get_running_loop().create_future(), ""
        self._nats = nats.NATS()
        async with self.translating():
            await self._nats.connect(
                **{
                    "servers": self._servers,
                    "connect_timeout": _CONNECT_S,
                    "ping_interval": _PING_S,
                    **self._options,
                    "allow_reconnect": False,
                    "max_reconnect_attempts": 1,
                    "reconnect_time_wait": 0.05,
                    "error_cb": self._hear,
                    "closed_cb": self._lose,
                    "disconnected_cb": self._lose,
                }
            )

    async def close(self) -> None:
        """Send what is under way and disconnect. Safe to call twice."""
        nats, self._nats = self._nats, None
        if nats is None or nats._transport is None:  # it never came to a connection, and the driver cannot close that
            return
        try:
            async with asyncio.timeout(_CLOSE_S):  # a server that hangs takes no farewell
                await nats.close()
        except (TimeoutError, OSError) as error:
            self._heard = str(error)

    @property
    def nats(self) -> Any:
        """The driver's connection. InternalError where it is not open."""
        if self._nats is None:
            raise InternalError(self._what, "it is opened before it is used", "report this")
        return self._nats

    @property
    def is_connected(self) -> bool:
        """Not closed, and not lost."""
        return self._nats is not None and bool(self._nats.is_connected)

    async def wait(self, future: asyncio.Future[Any], timeout_s: float) -> None:
        """Until ``future`` is done. TimeoutError, or ConnectionError at once when the connection is lost."""
        lost = self._lost
        if lost is None:
            raise InternalError(self._what, "it is opened before it is used", "report this")
        await asyncio.wait({future, lost}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return
        future.cancel()
        if lost.done():
            raise ConnectionError(f"{self.target}: the connection is lost ({self._heard or 'closed'})")
        raise TimeoutError(f"{self.target}: no answer in {timeout_s:g} s")

    async def _hear(self, error: Exception) -> None:
        self._heard = str(error) or type(error).__name__

    async def _lose(self) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)

    # ------------------------------------------------------------------ errors
    def _driver(self) -> Any:
        try:
            import nats.aio.client
            import nats.errors
            import nats.js.errors
        except ImportError as error:
            raise MissingExtra(self._what, "it needs nats-py", "pip install 'tidewarp[nats]'") from error
        return nats

    @asynccontextmanager
    async def translating(self) -> AsyncIterator[None]:
        """The driver's errors within the block become ConnectionError (may pass) or OperatorError."""
        nats = self._driver()
        try:
            yield
        except TimeoutError as error:  # the driver's own is one too
            if "permissions violation" in self._heard.lower():
                raise self._refused(self._heard) from None
            raise TimeoutError(f"{self.target}: no answer ({error})") from None
        except nats.js.errors.BadRequestError as error:
            raise self._refused(str(error.description)) from None
        except nats.errors.Error as error:
            told = f"{error} {self._heard}"
            if any(word in told.lower() for word in ("authorization", "credentials", "connect url", "bad subject")):
                raise self._refused(str(error)) from None
            raise ConnectionError(f"{self.target}: {told.strip()}") from None

    def _refused(self, reason: str) -> OperatorError:
        return OperatorError(self.target, f"it refused: {reason}", "correct the credentials, or the names given")

    # ------------------------------------------------------------------ JetStream
    async def publish(
        self, subject: str, messages: Sequence[tuple[bytes, Mapping[str, str]]], timeout_s: float
    ) -> list[dict[str, Any]]:
        """Publish (payload, headers), all at once; what the stream answered to each.

        An answer has ``seq``, or ``error`` with ``err_code`` and ``description``. Not the driver's ``publish_async``: a
        refusal never reaches the future which that returns.
        """
        nats, answers = self.nats, dict[int, Any]()
        all_came = asyncio.get_running_loop().create_future()

        async def take(message: Any) -> None:
            answers[int(message.subject.rpartition(".")[2])] = message
            if len(answers) == len(messages) and not all_came.done():
                all_came.set_result(None)

        inbox = nats.new_inbox()
        subscription = await nats.subscribe(f"{inbox}.*", cb=take)
        for n, (payload, headers) in enumerate(messages):
            await nats.publish(subject, payload, f"{inbox}.{n}", dict(headers))
            stage("release.inside")
        await self.wait(all_came, timeout_s)
        await subscription.unsubscribe()
        if any((message.headers or {}).get("Status") for message in answers.values()):
            raise ConnectionError(f"{self.target}: no stream takes subject {subject!r} at present")
        return [json.loads(answers[n].data) for n in range(len(messages))]

    async def stream(self, name: str) -> Any:
        """The driver's info of a stream. OperatorError if there is none."""
        nats = self._driver()
        try:
            return await self.nats.jsm().stream_info(name)
        except nats.js.errors.NotFoundError:
            remedy = f"create it: nats stream add {name}"
            raise OperatorError(self.target, f"the server has no stream {name!r}", remedy) from None

    async def last_message(self, stream: str, subject: str) -> Any:
        """The last message of ``subject``, None if there is none."""
        nats = self._driver()
        try:
            return await self.nats.jsm().get_last_msg(stream, subject)
        except nats.js.errors.NotFoundError:
            return None

    async def add_consumer(self, stream: str, config: Mapping[str, Any]) -> Any:
        """Make a pull consumer with explicit acknowledgement; the driver's info of it."""
        from nats.js.api import ConsumerConfig

        return await self.nats.jsm().add_consumer(stream, ConsumerConfig(**config))

    async def delete_consumer(self, stream: str, name: str) -> None:
        """Delete a pull consumer, if it is there. OperatorError if it is somebody's push consumer."""
        nats = self._driver()
        manager = self.nats.jsm()
        try:
            info = await manager.consumer_info(stream, name)
            if info.config.deliver_subject:
                rule = "there is a push consumer of this name, which is somebody else's"
                raise OperatorError(f"{self.target}, durable={name!r}", rule, "give another durable=")
            await manager.delete_consumer(stream, name)
        except nats.js.errors.NotFoundError:
            return
