"""Messages that a program makes itself: an async iterator as a source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec

from tidewarp.connect.contract import HEAD_BYTES, Raw, Source
from tidewarp.connect.decoders import JsonMessages
from tidewarp.errors import OperatorError

__all__ = ["PythonSource"]

Message = Mapping[str, Any] | bytes
_PARTITION = 0  # the only one


class PythonSource(Source):
    """What ``iterate()`` yields: ``{"path": …, "value": …}`` and the other forms of a JSON message, as mapping or bytes.

    Live. It gives nothing twice: what was yielded and not yet journaled when the process died is lost, and a later life
    goes on with what its iterator yields then. Messages that may repeat need an ``id``.

    ``iterate`` is a function, asked again after an outage (an OSError that its iterator raises), or one async iterator,
    which has no second beginning: its outage ends the run.
    """

    kind = "python"
    clock = "wall"
    replayable = False

    def __init__(
        self, iterate: Callable[[], AsyncIterator[Message]] | AsyncIterator[Message], *, name: str = "python"
    ) -> None:
        if not callable(iterate):
            _refuse_other(f"source {name!r}: iterate", iterate)
        self.name = name
        self._iterate = iterate
        self._messages: AsyncIterator[Message] | None = None
        self._next: asyncio.Future[Message] | None = None
        self._offset = 0
        self._is_begun = False

    def decoder(self, epoch_ns: int) -> JsonMessages:
        """Of JSON messages."""
        return JsonMessages(epoch_ns)

    async def open(self, positions: Mapping[int, int]) -> None:
        """Begin to iterate; offsets go on behind ``positions``."""
        if callable(self._iterate):
            self._messages = self._iterate()
            _refuse_other(f"source {self.name!r}: what its function gave is", self._messages)
        elif self._is_begun:
            rule = "an async iterator has no second beginning"
            raise OperatorError(f"source {self.name!r}", rule, "give the function that makes it, without calling it")
        else:
            self._messages = self._iterate
        self._is_begun = True
        self._offset = positions.get(_PARTITION, -1) + 1

    async def read(self, limit: int) -> Sequence[Raw] | None:
        """The next message, waiting for it, and those that are ready behind it."""
        raws: list[Raw] = []
        while len(raws) < limit:
            message = self._upcoming()
            if raws:
                await asyncio.sleep(0)
                if not message.done() or message.exception() is not None:
                    break  # the future is kept: the next call ends with it
            try:
                raws.append(Raw(_PARTITION, self._offset, _payload(await message)))
            except StopAsyncIteration:
                return None
            self._next = None
            self._offset += 1
        return raws

    async def close(self) -> None:
        """End the iterator."""
        waiting, self._next = self._next, None
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        messages, self._messages = self._messages, None
        if messages is not None and hasattr(messages, "aclose"):
            await messages.aclose()

    def _upcoming(self) -> asyncio.Future[Message]:
        if self._messages is None:
            raise OperatorError(f"source {self.name!r}", "it is closed", "open it first")
        if self._next is None:
            self._next = asyncio.ensure_future(_step(self._messages))
        return self._next


def _refuse_other(what: str, given: object) -> None:
    if not isinstance(given, AsyncIterator):
        rule = "it is an async iterator, or a function that makes one"
        raise OperatorError(f"{what} of type {type(given).__name__}", rule, "write an async function with yield")


async def _step(messages: AsyncIterator[Message]) -> Message:
    return await anext(messages)


def _payload(message: Message) -> bytes:
    """As JSON; what has no such form keeps its text, which its decoder refuses: it becomes a dead letter."""
    if isinstance(message, bytes):
        return message
    try:
        return msgspec.json.encode(message)
    except (TypeError, ValueError, RecursionError):
        return repr(message)[:HEAD_BYTES].encode(errors="replace")
