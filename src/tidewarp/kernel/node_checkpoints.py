"""Checkpoints of single nodes: states that a rollback goes back to, kept in order, and what changed between two.

The engine's own checkpoint, bytes of a whole run, is :mod:`tidewarp.kernel.checkpoints`.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right, insort
from dataclasses import dataclass, field, fields
from operator import sub
from typing import Any

import numpy as np

from tidewarp.clocks.logical import checked_int
from tidewarp.codec import Digest, pack, unpack
from tidewarp.errors import CheckpointRefused, CodecError, ModelError, RangeError
from tidewarp.kernel.values import array_digest, checked_bytes, frozen_array, int_bytes, int_of
from tidewarp.units import TICK_MIN

__all__ = ["AdaptiveCheckpointInterval", "Checkpoint", "CheckpointManager", "DeltaCheckpoint", "check_checkpoint"]

_ANY = 2**4096  # bound of integers "of any size": an LFSR of 4096 bits is the longest anybody has
_ARRAYS = ("neuron_state", "synapse_state", "vector_clock")
_DELTA = b"TWDELTA1"
_f64 = struct.Struct(">d")


@dataclass(eq=False)
class Checkpoint:
    """The state of one node at a virtual time (ns). Arrays are copied and cannot be written to.

    ``state`` is what a handler owns, packed by :func:`~tidewarp.kernel.values.pack_value`. ``checksum`` is "" until
    :meth:`compute_checksum` is called. Integers but the time may be of any size.

    Raises:
        RangeError: a time that is no int64 of ns, a float or bool where an int belongs.
        ModelError: an array whose bytes do not say what it holds (objects, long doubles).
    """

    checkpoint_id: int
    virtual_time_ns: int
    node_id: int
    neuron_state: Any = None
    synapse_state: Any = None
    lfsr_state: int = 0
    identity_deep: float = 0.0
    lamport_time: int = 0
    vector_clock: Any = None
    checksum: str = ""
    state: bytes | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.virtual_time_ns = checked_int("virtual_time_ns", self.virtual_time_ns)
        for name in ("checkpoint_id", "node_id", "lfsr_state", "lamport_time"):
            setattr(self, name, checked_int(name, getattr(self, name), -_ANY, _ANY))
        if isinstance(self.identity_deep, bool) or not isinstance(self.identity_deep, (int, float, np.floating)):
            raise RangeError(f"identity_deep {self.identity_deep!r}", "it is a number", "give a float")
        self.identity_deep = float(self.identity_deep)
        for name in _ARRAYS:
            if getattr(self, name) is not None:
                setattr(self, name, frozen_array(getattr(self, name), name))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checkpoint) and self._parts() == other._parts()

    __hash__ = None  # type: ignore[assignment]

    def compute_checksum(self) -> str:
        """Set ``checksum`` to SHA-256 (64 digits) over every field, arrays with dtype and shape, and return it."""
        self.checksum = self._checksum()
        return self.checksum

    def verify(self) -> bool:
        """True if ``checksum`` was computed and no field has changed since."""
        return self.checksum == self._checksum()

    def differing_fields(self, other: Checkpoint) -> tuple[str, ...]:
        """Names of the fields, but the checksum, in which two checkpoints differ.

        Raises:
            RangeError: no checkpoint.
        """
        check_checkpoint(other)
        theirs = other._parts()
        return tuple(name for name, part in self._parts().items() if part != theirs[name])

    def _checksum(self) -> str:
        digest = Digest("TWNODE1")
        for part in self._parts().values():
            digest.add(part)
        return digest.hexdigest()

    def _parts(self) -> dict[str, bytes]:
        return {name: _part(getattr(self, name)) for name in _HASHED}


_HASHED = tuple(f.name for f in fields(Checkpoint) if f.name != "checksum")
"""The fields in the order in which they are hashed; each has a part of its own, absent ones too."""


def _part(value: Any) -> bytes:
    """A field as bytes; the first tells absent values, numbers, arrays and bytes apart."""
    if value is None:
        return b"-"
    if isinstance(value, float):
        return b"f" + _f64.pack(value)
    if isinstance(value, bytes):
        return b"b" + value
    if isinstance(value, int):
        return b"i" + int_bytes(value)
    return b"a" + array_digest(np.asarray(value))


def check_checkpoint(checkpoint: object) -> None:
    """Refuse what is no checkpoint.

    Raises:
        RangeError: it is something else.
    """
    if not isinstance(checkpoint, Checkpoint):
        raise RangeError(
            f"a checkpoint {checkpoint!r:.80}", "it is a Checkpoint", "give one that CheckpointManager.save returned"
        )


class CheckpointManager:
    """The checkpoints of each node, sorted by time in whatever order they are saved.

    ``checkpoints`` maps a node to its list. More than ``max_checkpoints`` of a node are thinned in the middle, the
    one closest to its neighbours first: never the newest, and never the newest at or below GVT, so that a
    rollback to any time from GVT on finds its target (two are kept even if one is allowed).

    Raises:
        RangeError: a maximum below 1.
    """

    def __init__(self, max_checkpoints: int = 100) -> None:
        self.max_checkpoints = checked_int("max_checkpoints", max_checkpoints, 1)
        self.checkpoints: dict[int, list[Checkpoint]] = {}
        self.gvt_ns = 0
        self._next_id = 0

    @property
    def total_checkpoints(self) -> int:
        """Checkpoints of all nodes together."""
        return sum(map(len, self.checkpoints.values()))

    def save(
        self,
        node_id: int,
        virtual_time_ns: int,
        neuron_state: Any = None,
        synapse_state: Any = None,
        lfsr_state: int = 0,
        identity_deep: float = 0.0,
        lamport_time: int = 0,
        vector_clock: Any = None,
        *,
        state: bytes | None = None,
    ) -> Checkpoint:
        """Keep the state of a node at a time (ns); returns the checkpoint, with its checksum.

        Raises:
            RangeError, ModelError: as :class:`Checkpoint`.
        """
        checkpoint = Checkpoint(
            self._next_id,
            virtual_time_ns,
            node_id,
            neuron_state,
            synapse_state,
            lfsr_state,
            identity_deep,
            lamport_time,
            vector_clock,
            state=state,
        )
        checkpoint.compute_checksum()
        self._next_id += 1
        kept = self.checkpoints.setdefault(checkpoint.node_id, [])
        insort(kept, checkpoint, key=_time)
        if len(kept) > self.max_checkpoints:
            self._thin(kept)
        return checkpoint

    def find_rollback_target(self, node_id: int, target_time_ns: int) -> Checkpoint | None:
        """The latest checkpoint of a node at or before a time (ns), of equal times the one saved last; None if there is none.

        Raises:
            RangeError: a time that is no int64 of ns.
        """
        kept = self.checkpoints.get(node_id, [])
        place = bisect_right(kept, checked_int("target_time_ns", target_time_ns), key=_time)
        return kept[place - 1] if place else None

    def discard_after(self, node_id: int, time_ns: int) -> int:
        """Drop the checkpoints of a node after a time (ns), as a rollback does; returns how many.

        Raises:
            RangeError: a time below GVT: nothing is rolled back that far.
        """
        time_ns = checked_int("time_ns", time_ns, self.gvt_ns)
        kept = self.checkpoints.get(node_id, [])
        place = bisect_right(kept, time_ns, key=_time)
        dropped = len(kept) - place
        del kept[place:]
        return dropped

    def discard_since(self, checkpoint: Checkpoint) -> int:
        """Drop what was saved for a node after ``checkpoint`` was; returns how many.

        Raises:
            RangeError: no checkpoint.
        """
        check_checkpoint(checkpoint)
        kept = self.checkpoints.get(checkpoint.node_id, [])
        valid = [one for one in kept if one.checkpoint_id <= checkpoint.checkpoint_id]
        dropped = len(kept) - len(valid)
        kept[:] = valid
        return dropped

    def collect_fossils(self, gvt_ns: int) -> int:
        """Drop what no rollback can reach any more: of each node all before the newest at or below GVT; returns how many.

        Raises:
            RangeError: a GVT below the last one.
        """
        self.gvt_ns = checked_int("gvt_ns", gvt_ns, self.gvt_ns)
        return sum(self._collect(kept) for kept in self.checkpoints.values())

    def _collect(self, kept: list[Checkpoint]) -> int:
        base = bisect_right(kept, self.gvt_ns, key=_time) - 1
        if base > 0:
            del kept[:base]
        return max(0, base)

    def _thin(self, kept: list[Checkpoint]) -> None:
        """Drop one: what lies before the base first, else the one whose absence leaves the smallest gap."""
        base = max(0, bisect_right(kept, self.gvt_ns, key=_time) - 1)
        if base > 0:
            del kept[0]
        elif len(kept) > 2:
            times = [checkpoint.virtual_time_ns for checkpoint in kept]
            gaps = list(map(sub, times[2:], times))
            del kept[1 + gaps.index(min(gaps))]


def _time(checkpoint: Checkpoint) -> int:
    return checkpoint.virtual_time_ns


@dataclass(eq=False)
class DeltaCheckpoint:
    """What changed in an array from one checkpoint to the next: flat places, and the values there afterwards.

    Values are compared bit by bit: NaN equals NaN, 0.0 is not -0.0. ``lfsr_delta`` is the exclusive or of the two
    LFSR states, ``size_bytes`` the length of :meth:`to_bytes`. Made by :meth:`compute_delta`; one put together by
    hand does not know its base and cannot be applied.
    """

    base_checkpoint_id: int
    checkpoint_id: int
    virtual_time_ns: int
    node_id: int
    changed_indices: np.ndarray[Any, Any]
    changed_values: np.ndarray[Any, Any]
    lfsr_delta: int = 0
    size_bytes: int = 0
    shape: tuple[int, ...] | None = field(default=None, kw_only=True)
    base_digest: bytes = field(default=b"", kw_only=True)

    def __post_init__(self) -> None:
        self.virtual_time_ns = checked_int("virtual_time_ns", self.virtual_time_ns)
        for name in ("base_checkpoint_id", "checkpoint_id", "node_id"):
            setattr(self, name, checked_int(name, getattr(self, name), TICK_MIN))
        self.lfsr_delta = checked_int("lfsr_delta", self.lfsr_delta, 0, 2 * _ANY)
        self.size_bytes = checked_int("size_bytes", self.size_bytes)
        self.changed_values = frozen_array(self.changed_values, "changed_values")
        indices = np.asarray(self.changed_indices)
        if indices.dtype.kind not in "iu" and indices.size:
            raise RangeError(f"changed_indices of {indices.dtype}", "places are whole numbers", "give flat indices")
        self.changed_indices = frozen_array(indices.astype(np.int64), "changed_indices")
        if self.changed_indices.ndim != 1 or self.changed_indices.shape != self.changed_values.shape:
            raise RangeError(
                f"{self.changed_indices.shape} places, {self.changed_values.shape} values",
                "each place has one value",
                "give two flat arrays of one length",
            )
        self._check_places()

    def _check_places(self) -> None:
        size = 2**62 if self.shape is None else math.prod(self.shape)
        places = self.changed_indices
        if places.size and (places[0] < 0 or places[-1] >= size or not (places[1:] > places[:-1]).all()):
            raise RangeError("changed_indices", f"places ascend from 0 to {size - 1}", "give each once, in order")

    @staticmethod
    def compute_delta(
        base_state: np.ndarray[Any, Any],
        new_state: np.ndarray[Any, Any],
        base_id: int,
        new_id: int,
        virtual_time_ns: int,
        node_id: int,
        *,
        base_lfsr: int = 0,
        new_lfsr: int = 0,
    ) -> DeltaCheckpoint:
        """The delta from ``base_state`` to ``new_state``: arrays of one dtype and shape.

        Raises:
            RangeError: arrays of different dtype or shape, an LFSR state that is no int >= 0.
            ModelError: an array whose bytes do not say what it holds.
        """
        base, new = frozen_array(base_state, "base_state"), frozen_array(new_state, "new_state")
        if base.dtype != new.dtype or base.shape != new.shape:
            raise RangeError(
                f"a delta from {base.dtype}{list(base.shape)} to {new.dtype}{list(new.shape)}",
                "both states have one dtype and shape",
                "save a full checkpoint where the layout changes",
            )
        changed = (_bytes_of(base) != _bytes_of(new)).any(axis=1)
        places = np.flatnonzero(changed)
        lfsr = checked_int("base_lfsr", base_lfsr, 0, _ANY) ^ checked_int("new_lfsr", new_lfsr, 0, _ANY)
        delta = DeltaCheckpoint(
            base_id,
            new_id,
            virtual_time_ns,
            node_id,
            places,
            new.reshape(-1)[places],
            lfsr,
            shape=base.shape,
            base_digest=array_digest(base),
        )
        delta.size_bytes = len(delta.to_bytes())
        return delta

    @property
    def num_changes(self) -> int:
        """How many places changed."""
        return len(self.changed_indices)

    @property
    def compression_ratio(self) -> float:
        """Bytes of the full state over bytes of this delta as stored: above 1 it saves something; 0.0 if made by hand."""
        if self.shape is None:
            return 0.0
        full = math.prod(self.shape) * int(self.changed_values.dtype.itemsize)
        return full / (self.size_bytes or len(self.to_bytes()))

    def apply(self, base_state: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The new state: a copy of ``base_state`` with the changes.

        Raises:
            CheckpointRefused: another dtype or shape, another base than this delta was made from, or made by hand.
        """
        shape = self._known_shape()
        base = np.array(base_state, order="C", copy=True)
        if base.dtype != self.changed_values.dtype or base.shape != shape:
            raise CheckpointRefused(
                f"a base of {base.dtype}{list(base.shape)}",
                f"delta {self.checkpoint_id} is of {self.changed_values.dtype}{list(shape)}",
                f"give the state of checkpoint {self.base_checkpoint_id}",
            )
        if array_digest(base) != self.base_digest:
            raise CheckpointRefused(
                f"a base for delta {self.checkpoint_id}",
                f"it is not the state of checkpoint {self.base_checkpoint_id}",
                "apply deltas in order, from the full checkpoint on",
            )
        base.reshape(-1)[self.changed_indices] = self.changed_values
        return base

    def apply_lfsr(self, base_lfsr: int) -> int:
        """The new LFSR state from that of the base."""
        return checked_int("base_lfsr", base_lfsr, 0, _ANY) ^ self.lfsr_delta

    def to_bytes(self) -> bytes:
        """One canonical form: the label, 32 bytes of digest, then the fields as canonical MessagePack."""
        values = self.changed_values
        body = pack(
            [
                self.base_checkpoint_id,
                self.checkpoint_id,
                self.virtual_time_ns,
                self.node_id,
                int_bytes(self.lfsr_delta),
                None if self.shape is None else list(self.shape),
                self.base_digest,
                values.dtype.str,
                self.changed_indices.astype(self._index_type()).tobytes(),
                values.tobytes(),
            ]
        )
        return _DELTA + _body_digest(body) + body

    @staticmethod
    def from_bytes(data: bytes) -> DeltaCheckpoint:
        """The delta that :meth:`to_bytes` wrote.

        Raises:
            RangeError: no bytes. CheckpointRefused: anything else; nothing of it is used.
        """
        data = checked_bytes("a delta", data)
        body = data[len(_DELTA) + 32 :]
        if not data.startswith(_DELTA) or data[len(_DELTA) : len(_DELTA) + 32] != _body_digest(body):
            _refuse_bytes(data, "its digest does not fit")
        try:
            base, new, time, node, lfsr, shape, base_digest, dtype, places, values = unpack(body)
            known = None if shape is None else tuple(checked_int("shape", n) for n in shape)
            changed = np.frombuffer(values, np.dtype(dtype))
            indices = np.frombuffer(places, _index_type(known)).astype(np.int64)
            delta = DeltaCheckpoint(
                base, new, time, node, indices, changed, int_of(lfsr), len(data), shape=known, base_digest=base_digest
            )
            whole = delta.to_bytes() == data
        except (CodecError, ModelError, TypeError, ValueError) as error:
            raise CheckpointRefused(f"a delta of {len(data)} bytes", str(error), "take its bytes whole") from error
        if not whole:
            _refuse_bytes(data, "its fields have another form")
        return delta

    def _index_type(self) -> str:
        return _index_type(self.shape)

    def _known_shape(self) -> tuple[int, ...]:
        if self.shape is None:
            raise CheckpointRefused(
                f"delta {self.checkpoint_id}",
                "it was put together by hand and does not know its base",
                "use compute_delta()",
            )
        return self.shape


def _bytes_of(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(array.tobytes(), np.uint8).reshape(array.size, array.dtype.itemsize)


def _index_type(shape: tuple[int, ...] | None) -> str:
    return ">u4" if shape is not None and math.prod(shape) < 2**32 else ">i8"


def _body_digest(body: bytes) -> bytes:
    digest = Digest("TWDELTA1")
    digest.add(body)
    return digest.digest()


def _refuse_bytes(data: bytes, rule: str) -> None:
    raise CheckpointRefused(f"a delta of {len(data)} bytes", rule, "take the bytes of to_bytes() whole")


class AdaptiveCheckpointInterval:
    """How far checkpoints stand apart: closer where much is rolled back, wider where little is.

    After each :meth:`update` the interval is halved if more than 5 % of the new events were rolled back, doubled if
    less than 1 % were, within [``min_interval``, ``max_interval``]. The unit is the caller's: events or ns.

    Raises:
        RangeError: intervals that are not 1 <= min <= base <= max.
    """

    def __init__(self, base_interval: int = 1000, min_interval: int = 100, max_interval: int = 10000) -> None:
        self.min_interval = checked_int("min_interval", min_interval, 1)
        self.max_interval = checked_int("max_interval", max_interval, self.min_interval)
        self.base_interval = checked_int("base_interval", base_interval, self.min_interval, self.max_interval)
        self.current_interval = self.base_interval
        self._rollbacks = 0
        self._events = 0

    @property
    def is_aggressive(self) -> bool:
        """Rollbacks have brought the interval down to twice its minimum, or below."""
        return self.current_interval <= 2 * self.min_interval

    def update(self, total_rollbacks: int, total_events: int) -> int:
        """Take the totals of rollbacks and events so far; returns the interval from now on.

        Only what is new since the last call counts. Without new events nothing changes, and the new rollbacks
        count at the next call.

        Raises:
            RangeError: a total that is no int, or fell.
        """
        rollbacks = checked_int("total_rollbacks", total_rollbacks, self._rollbacks) - self._rollbacks
        events = checked_int("total_events", total_events, self._events) - self._events
        if not events:
            return self.current_interval
        self._rollbacks, self._events = total_rollbacks, total_events
        if rollbacks * 100 > 5 * events:
            self.current_interval = max(self.min_interval, self.current_interval // 2)
        elif rollbacks * 100 < events:
            self.current_interval = min(self.max_interval, self.current_interval * 2)
        return self.current_interval
