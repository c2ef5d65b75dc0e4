"""Events and states as bytes."""

from __future__ import annotations

import struct
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.errors import CodecError, InternalError, RangeError
from tidewarp.kernel import Array, Bytes, Context, LogicalProcess, Model, b1, f64, i64, on, u8
from tidewarp.kernel.lp import form_of_lp
from tidewarp.kernel.objects import Objects, initial_image
from tidewarp.kernel.records import HIDDEN, Event, framed, pack_event, split_frames, split_rows, unpack_event


class Plain(NamedTuple):
    n: i64


class Rich(NamedTuple):
    x: f64
    flag: b1
    cells: Array[u8, (2, 2)]
    blob: Bytes


class Keeper(LogicalProcess):
    n: i64
    cells: Array[f64, 2]

    @on(Plain)
    def plain(self, now: int, plain: Plain, ctx: Context) -> None: ...

    @on(Rich)
    def rich(self, now: int, rich: Rich, ctx: Context) -> None: ...


class Loose(Keeper):
    blob: Bytes


def a_model() -> Model:
    model = Model("m")
    model.add(Keeper, 3, path="keeper", init={"n": [1, 2, 3]})
    model.add(Loose, 2, path="loose", init={"blob": lambda place: b"x" * place})
    model.freeze()
    return model


MODEL = a_model()

plain = st.builds(Plain, st.integers(-(2**63), 2**63 - 1))
cell = st.integers(0, 255)
rich = st.builds(
    Rich,
    st.floats(allow_nan=False),
    st.booleans(),
    st.tuples(st.tuples(cell, cell), st.tuples(cell, cell)),
    st.binary(max_size=30),
)
events = st.tuples(
    st.integers(0, 2**63 - 1),
    st.integers(0, 999_999),
    st.integers(0, 4),
    st.integers(-(2**31), 4),
    st.integers(0, 2**64 - 1),
    plain | rich,
)


@given(events)
def test_an_event_comes_back_from_its_record(event: Event) -> None:
    """Key, class and fields; arrays of a message are tuples, which nobody can change."""
    assert unpack_event(MODEL, pack_event(MODEL, event)) == event


def test_the_record_of_an_event() -> None:
    """The form that is hashed, written out: time, generation, dst, src, src_seq, message, fields."""
    record = pack_event(MODEL, (5, 2, 3, -1, 7, Plain(-2)))
    assert record == struct.pack(">qQqqQHq", 5, 2, 3, -1, 7, 0, -2)


@given(events, st.integers(0, 80), st.binary(min_size=1, max_size=3))
def test_a_record_that_is_torn_or_too_long_is_refused(event: Event, cut: int, more: bytes) -> None:
    """Nothing is believed for its length."""
    record = pack_event(MODEL, event)
    for bad in (record[: min(cut, len(record) - 1)], record + more):
        with pytest.raises(CodecError, match="it is none of model 'm'"):
            unpack_event(MODEL, bad)


def test_a_record_of_an_unknown_message_is_refused() -> None:
    """Its number is beyond the model's messages."""
    with pytest.raises(CodecError):
        unpack_event(MODEL, struct.pack(">qQqqQHq", 5, 2, 3, 1, 7, 9, -2))


def test_a_field_out_of_range_names_the_sender() -> None:
    """The author of the value is who sent it."""
    with pytest.raises(RangeError, match=r"keeper\.1: Plain\.n"):
        pack_event(MODEL, (0, 0, 0, 1, 0, Plain(2**63)))


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_frames_are_split_again(records: list[bytes]) -> None:
    """Each after its U32 length."""
    data = framed(records)
    assert list(map(bytes, split_frames(data))) == records
    assert len(data) == sum(4 + len(record) for record in records)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.integers(1, 30))
def test_torn_frames_are_refused(records: list[bytes], cut: int) -> None:
    """However little is missing; a cut between two frames cannot be seen here."""
    data = framed(records)
    whole = [0]
    for record in records:
        whole.append(whole[-1] + 4 + len(record))
    torn = data[: max(len(data) - cut, 0)]
    if len(torn) in whole:
        assert len(list(split_frames(torn))) == whole.index(len(torn))
    else:
        with pytest.raises(CodecError, match="leads beyond the end"):
            list(split_frames(torn))


def test_rows_of_a_group_follow_each_other() -> None:
    """Hidden words, then the fields; with a length before them where it varies."""
    image = initial_image(MODEL)
    keeper, loose = form_of_lp(Keeper), form_of_lp(Loose)
    rows = list(map(bytes, split_rows(keeper, image.rows[0], 3)))
    assert [HIDDEN.unpack_from(row) for row in rows] == [(0, 0)] * 3
    assert [keeper.unpack(row[16:])[0] for row in rows] == [1, 2, 3]
    assert image.rows[0] == b"".join(rows)
    rows = list(map(bytes, split_rows(loose, image.rows[1], 2)))
    assert [loose.unpack(row[16:])[2] for row in rows] == [b"", b"x"]
    assert image.rows[1] == framed(rows)


def test_rows_of_another_length_are_a_bug_of_ours() -> None:
    """They come from our own engines."""
    with pytest.raises(InternalError, match="please report"):
        split_rows(form_of_lp(Keeper), bytes(100), 3)


@given(st.lists(events, max_size=8, unique_by=lambda event: event[:5]))
def test_an_image_holds_everything(pending: list[Event]) -> None:
    """Objects made of an image give the same image, pending events in key order, whatever order they came in."""
    image = Objects(MODEL, initial_image(MODEL)).image(pending)
    assert [unpack_event(MODEL, record) for record in split_frames(image.pending)] == sorted(
        pending, key=lambda e: e[:5]
    )
    again = Objects(MODEL, image).image([unpack_event(MODEL, record) for record in split_frames(image.pending)])
    assert again == image


def test_a_row_is_put_back() -> None:
    """All fields and hidden words: what undo rests on."""
    objects = Objects(MODEL, initial_image(MODEL))
    before = objects.row(1)
    state = objects.states[1]
    state.n, state.cells[1], state._draws, state._sends = 9, 1.5, 4, 5
    assert objects.row(1) != before
    objects.set_row(1, before)
    assert objects.row(1) == before
    assert objects.fields(1) == {"n": 2, "cells": [0.0, 0.0]}


def test_fields_are_copies() -> None:
    """Who looks at an LP cannot change it."""
    objects = Objects(MODEL, initial_image(MODEL))
    objects.fields(0)["cells"][0] = 5.0
    assert objects.fields(0)["cells"] == [0.0, 0.0]


def test_lps_share_no_array() -> None:
    """Neither with each other nor with their start values."""
    objects = Objects(MODEL, initial_image(MODEL))
    objects.states[0].cells[0] = 7.0
    assert objects.fields(1)["cells"] == [0.0, 0.0]
