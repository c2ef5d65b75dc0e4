"""One event of a compiled run, executed again in the Python tier: for the text of its error, and for looking at it."""

from __future__ import annotations

from tidewarp.errors import HandlerError, RangeError, TidewarpError
from tidewarp.kernel.compiled.image import Ints, Memory
from tidewarp.kernel.model import Model
from tidewarp.kernel.objects import Objects
from tidewarp.kernel.records import Event, Image, pack_event

__all__ = ["error_of"]


def error_of(model: Model, memory: Memory, rows: Ints, event: Event) -> TidewarpError:
    """What the Python tier says of an event that the compiled tier refused; ``rows`` as before the event."""
    packed = memory.image(rows, *memory.new_pool(1), rows[:0])
    objects = Objects(model, Image(packed.rows, b""))
    try:
        objects.execute(event)
        objects.row(event[2])
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
        f"{model.path(event[2])} at {event[:5]}",
        "on the way its handler leaves 64 bits, which compiled numbers do not",
        "use u64_add, u64_mul or wrap_i64 where numbers may grow, or run it with tier='python'",
    )
