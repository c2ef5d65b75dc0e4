"""Events of a compiled run, executed again in the Python tier: for the text of an error, and for what comes before it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tidewarp.errors import HandlerError, RangeError, TidewarpError
from tidewarp.kernel.compiled import layout
from tidewarp.kernel.compiled.image import Ints, Memory
from tidewarp.kernel.compiled.records import unpack_rows
from tidewarp.kernel.model import Model
from tidewarp.kernel.objects import CheckedObjects, Objects
from tidewarp.kernel.records import Event, Image, pack_event

__all__ = ["Tried", "error_of"]


class Tried(Objects):
    """LPs of the Python tier that execute only what the compiled handlers execute too: both tiers refuse the same event."""

    def __init__(self, model: Model, image: Image, memory: Memory, handler: Callable[[int], int]) -> None:
        super().__init__(model, image)
        self._memory, self._handler = memory, handler
        self._rows = memory.rows(image)
        self._effects = memory.new_effects(2**8)
        self._block = memory.new_block(self._effects)
        self._pool, self._payload = memory.new_pool(1)

    def execute(self, event: Event) -> None:
        """As Objects do it, after the compiled handler has been tried on the same row.

        Raises:
            ModelError: either of them refuses the event.
        """
        if self._try(event) != 0:
            rows = self._memory.rows(Image(self.image([]).rows, b""))
            raise error_of(self.model, self._memory, rows, event)
        super().execute(event)

    def _try(self, event: Event) -> int:
        """The compiled handler's error code, 0 for none."""
        memory, block, lp = self._memory, self._block, event[2]
        memory.set_event(self._pool, self._payload, 0, event)
        info = memory.lps[lp]
        block[layout.NOW], block[layout.GENERATION], block[layout.LP] = event[0], event[1], lp
        block[layout.KIND] = self._pool["kind"][0]
        block[layout.CLASS], block[layout.KEY], block[layout.GAMMA] = info[layout.ROW_CLASS :]
        block[layout.STATE] = self._rows.ctypes.data + 8 * info[layout.ROW_AT]
        block[layout.MESSAGE] = self._payload.ctypes.data
        block[layout.SRC], block[layout.SEQ] = event[3], self._pool["seq"].view(np.int64)[0]
        while True:
            row = np.frombuffer(self.row(lp), np.uint8)
            unpack_rows(
                memory.operations, memory.first_operation, info[layout.ROW_CLASS], memory.lps, self._rows, lp, 1, row
            )
            code = self._handler(block.ctypes.data)
            if code != layout.OUT_FULL:
                return code
            self._effects = memory.new_effects(2 * len(self._effects))
            memory.set_effects(block, self._effects)


def error_of(model: Model, memory: Memory, rows: Ints, event: Event) -> TidewarpError:
    """What the Python tier says of an event that the compiled tier refused; ``rows`` as before the event."""
    packed = memory.image(rows, *memory.new_pool(1), rows[:0])
    objects = CheckedObjects(model, Image(packed.rows, b""))
    try:
        objects.execute(event)
        for sent in objects.context.sends:
            pack_event(model, sent)
        for message in objects.context.emitted:
            pack_event(model, (*event[:5], message))
    except TidewarpError as error:
        return error
    except Exception as error:
        return HandlerError(
            f"{model.path(event[2])} at {event[:5]}: {error!r}", "its handler raised", "mend the handler"
        )
    return RangeError(
        f"{model.path(event[2])} at {event[:5]}: a number on the way through {type(event[5]).__name__}'s handler",
        "compiled, whole numbers have 64 bits, and a field holds its kind's range whenever it is assigned",
        "use u64_add, u64_mul or wrap_i64 where numbers may grow, or run it with tier='python'",
    )
