"""A model in native memory: an image becomes arrays that kernels work on, and arrays become an image again.

Rows lie one after the other in one int64 array. The table of LPs says where each row begins, of which class it is and which
random stream it has, so that one cache line tells a kernel all it needs. Events are slots of :data:`layout.EVENT` beside a
matrix of message words.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from tidewarp.errors import CodecError, InternalError
from tidewarp.kernel.compiled import layout
from tidewarp.kernel.compiled.context import native_dtype
from tidewarp.kernel.compiled.records import (
    RECORD_HEAD,
    count_frames,
    operations_of,
    pack_events,
    pack_rows,
    unpack_events,
    unpack_rows,
)
from tidewarp.kernel.lp import form_of_lp
from tidewarp.kernel.model import Model
from tidewarp.kernel.records import HIDDEN, Event, Image, pack_event, unpack_event
from tidewarp.seeds import stream_key

__all__ = ["Ints", "Memory", "Slots"]

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Slots: TypeAlias = np.ndarray[Any, np.dtype[np.void]]


class Memory:
    """Where the parts of one model lie, and its constants; the state itself is in arrays that the callers own.

    ``lps``: int64 (n_lps + 1, 4), the table of :mod:`layout`. ``message_words``: words of the longest message, at least 1.
    ``operations``, ``first_operation``, ``n_classes``: the forms for :mod:`records`, classes before messages.
    """

    def __init__(self, model: Model) -> None:
        model.freeze()
        self.model = model
        self.n_classes = len(model.classes)
        forms = [form_of_lp(cls) for cls in model.classes]
        self.operations, self.first_operation = operations_of([*forms, *model.message_forms], self.n_classes)
        self.row_words = [layout.ROW_HEAD + _words(native_dtype(form).itemsize) for form in forms]
        self.message_words = max([1, *(_words(native_dtype(form).itemsize) for form in model.message_forms)])
        self.message_sizes = np.array([form.size for form in model.message_forms], np.int64)
        self.record_bytes_max = 4 + RECORD_HEAD + max(form.size for form in [*model.message_forms, *forms])
        self.lps = self._table_of_lps()
        self._params = _params(model)
        self._tables = np.array([table.ctypes.data for table in model.tables.values()] or [0], np.int64)
        self._links = _links(model)

    def _table_of_lps(self) -> Ints:
        lps = np.zeros((self.model.n_lps + 1, 4), np.int64)
        words = np.zeros(self.model.n_lps, np.int64)
        for group in self.model.groups:
            place = self.model.classes.index(group.cls)
            mine = slice(group.first, group.first + group.count)
            lps[mine, layout.ROW_CLASS] = place
            words[mine] = self.row_words[place]
        np.cumsum(words, out=lps[1:, layout.ROW_AT])
        seed, path = self.model.seed, self.model.path
        keys = np.array([stream_key(seed, path(lp)) for lp in range(self.model.n_lps)], np.uint64)
        lps[:-1, layout.ROW_KEY :] = keys.view(np.int64)
        return lps

    # --- state ------------------------------------------------------------------------------------

    def rows(self, image: Image) -> Ints:
        """The rows of an image, natively.

        Raises:
            InternalError: rows of another length.
        """
        rows = np.zeros(int(self.lps[-1, layout.ROW_AT]), np.int64)
        for group, data in zip(self.model.groups, image.rows, strict=True):
            place = self.model.classes.index(group.cls)
            size = HIDDEN.size + form_of_lp(group.cls).size
            if len(data) != size * group.count:
                raise InternalError(
                    f"{len(data)} bytes for {group.count} rows of {group.cls.__name__}",
                    f"a row has {size}",
                    "please report this",
                )
            source = np.frombuffer(data, np.uint8)
            unpack_rows(self.operations, self.first_operation, place, self.lps, rows, group.first, group.count, source)
        return rows

    def pending(self, image: Image, capacity: int = 0) -> tuple[int, Slots, Ints]:
        """How many events an image holds, and pools of at least ``capacity`` slots whose first slots they are, in key order.

        Raises:
            CodecError: bytes that are no events of this model.
        """
        data = np.frombuffer(image.pending, np.uint8)
        count = count_frames(self.message_sizes, data)
        if count < 0:
            raise CodecError(
                f"{len(data)} bytes of pending events",
                f"they are none of model {self.model.name!r}",
                "take the image whole",
            )
        pool, payload = self.new_pool(max(count, capacity))
        unpack_events(self.operations, self.first_operation, self.n_classes, data, pool, payload)
        return count, pool, payload

    def image(self, rows: Ints, pool: Slots, payload: Ints, slots: Ints) -> Image:
        """The image of these rows with the events of these slots, in any order, still to come."""
        packed = []
        for group in self.model.groups:
            out = np.empty(group.count * (HIDDEN.size + form_of_lp(group.cls).size), np.uint8)
            place = self.model.classes.index(group.cls)
            pack_rows(self.operations, self.first_operation, place, self.lps, rows, group.first, group.count, out)
            packed.append(out.tobytes())
        return Image(tuple(packed), self.records(pool, payload, self.in_key_order(pool, slots)))

    def records(self, pool: Slots, payload: Ints, slots: Ints) -> bytes:
        """The framed records of these slots, in their order."""
        slots = np.ascontiguousarray(slots, np.int64)
        size = int(np.sum(self.message_sizes[pool["kind"][slots]])) + len(slots) * (4 + RECORD_HEAD)
        out = np.empty(size, np.uint8)
        pack_events(self.operations, self.first_operation, self.n_classes, pool, payload, slots, out)
        return out.tobytes()

    def in_key_order(self, pool: Slots, slots: Ints) -> Ints:
        """These slots, sorted by event key."""
        slots = np.ascontiguousarray(slots, np.int64)
        events = pool[slots]
        return slots[np.lexsort([events[name] for name in ("seq", "src", "dst", "generation", "time")])]

    def row_bytes(self, rows: Ints, lp: int) -> bytes:
        """The canonical row of one LP."""
        place = int(self.lps[lp, layout.ROW_CLASS])
        out = np.empty(HIDDEN.size + form_of_lp(self.model.classes[place]).size, np.uint8)
        pack_rows(self.operations, self.first_operation, place, self.lps, rows, lp, 1, out)
        return out.tobytes()

    def fields(self, rows: Ints, lp: int) -> dict[str, object]:
        """The fields of one LP by name."""
        form = form_of_lp(self.model.class_of(lp))
        return dict(zip(form.names, form.unpack(self.row_bytes(rows, lp)[HIDDEN.size :]), strict=True))

    # --- events -----------------------------------------------------------------------------------

    def new_pool(self, capacity: int) -> tuple[Slots, Ints]:
        """Event slots and their message words, zeroed; at least one."""
        capacity = max(1, capacity)
        return np.zeros(capacity, layout.EVENT), np.zeros((capacity, self.message_words), np.int64)

    def event(self, pool: Slots, payload: Ints, slot: int) -> Event:
        """The event of one slot, as the Python tier has it."""
        record = self.records(pool, payload, np.array([slot], np.int64))
        return unpack_event(self.model, record[4:])

    def set_event(self, pool: Slots, payload: Ints, slot: int, event: Event) -> None:
        """Fill one slot with an event of the Python tier.

        Raises:
            RangeError: a field that its kind cannot hold.
        """
        record = pack_event(self.model, event)
        data = np.frombuffer(len(record).to_bytes(4, "big") + record, np.uint8)
        unpack_events(
            self.operations, self.first_operation, self.n_classes, data, pool[slot : slot + 1], payload[slot : slot + 1]
        )

    # --- context block ----------------------------------------------------------------------------

    def new_effects(self, count: int) -> Ints:
        """An effects buffer of ``count`` rows."""
        return np.zeros((count, layout.EFFECT_HEAD + self.message_words), np.int64)

    def new_block(self, effects: Ints) -> Ints:
        """A context block that knows the model's constants and this effects buffer."""
        block = np.zeros(layout.BLOCK_WORDS, np.int64)
        block[layout.N_LPS] = self.model.n_lps
        block[layout.PARAMS] = self._params.ctypes.data
        block[layout.LOOKAHEAD] = self.model.lookahead
        block[layout.TABLES] = self._tables.ctypes.data
        block[layout.LINKED] = self._links is not None
        for word, array in zip(
            (layout.LINK_FIRST, layout.LINK_DST, layout.LINK_SORTED, layout.LINK_AHEAD), self._links or (), strict=False
        ):
            block[word] = array.ctypes.data
        self.set_effects(block, effects)
        return block

    def set_effects(self, block: Ints, effects: Ints) -> None:
        """Let a context block use another effects buffer."""
        block[layout.OUT] = effects.ctypes.data
        block[layout.OUT_STRIDE] = effects.strides[0]
        block[layout.OUT_MAX] = len(effects)


def _words(size: int) -> int:
    return -(-size // 8)


def _params(model: Model) -> Ints:
    """The parameters as one native record, in whole words."""
    if model.params_form is None or not model.params_form.fields:
        return np.zeros(1, np.int64)
    dtype = native_dtype(model.params_form)
    words = np.zeros(_words(dtype.itemsize), np.int64)
    words.view(np.uint8)[: dtype.itemsize] = np.array([tuple(model.params)], dtype).view(np.uint8)
    return words


def _links(model: Model) -> tuple[Ints, ...] | None:
    """The links as declared, and sorted by destination within each LP for looking up the least delay."""
    links = model.links
    if links is None:
        return None
    srcs = np.repeat(np.arange(model.n_lps), np.diff(links.first))
    order = np.lexsort((links.dst, srcs))
    return tuple(
        np.ascontiguousarray(array, np.int64)
        for array in (links.first, links.dst, links.dst[order], links.lookahead[order])
    )
