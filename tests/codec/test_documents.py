from __future__ import annotations

from collections.abc import Iterator

import pytest

from tidewarp.codec import Document, check_upcasters, documents, pack, pack_document, unpack_document, upcaster
from tidewarp.errors import CodecError, InternalError


@pytest.fixture(autouse=True)
def _no_upcasters(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(documents, "_chains", {})
    monkeypatch.setattr(documents, "_checked", set())
    return


def test_a_document_is_an_array_of_three() -> None:
    data = pack_document("tw.test", 3, {"a": 1})
    assert data == pack(["tw.test", 3, {"a": 1}])
    assert unpack_document(data) == Document("tw.test", 3, {"a": 1}, 3)


@pytest.mark.parametrize(
    "parts", [[], ["s", 1], ["s", 1, 2, 3], {"s": 1}, [1, 1, 0], ["", 1, 0], ["s", 0, 0], ["s", True, 0], ["s", 1.0, 0]]
)
def test_what_is_no_document_is_refused(parts: object) -> None:
    with pytest.raises(CodecError):
        unpack_document(pack(parts))


@pytest.mark.parametrize(("schema", "version"), [("", 1), ("s", 0), ("s", -1)])
def test_no_document_is_written_without_name_and_version(schema: str, version: int) -> None:
    with pytest.raises(CodecError):
        pack_document(schema, version, None)


def test_old_values_are_lifted_step_by_step() -> None:
    """A document of any version is read as the newest; its own version stays known; other schemas are left alone."""
    upcaster("s", 2)(lambda value: {"list": value["one"]})
    upcaster("s", 1)(lambda value: {"one": [value]})
    assert unpack_document(pack_document("s", 1, 7)) == Document("s", 3, {"list": [7]}, 1)
    assert unpack_document(pack_document("s", 2, {"one": 8})) == Document("s", 3, {"list": 8}, 2)
    assert unpack_document(pack_document("s", 3, 9)) == Document("s", 3, 9, 3)
    assert unpack_document(pack_document("t", 1, 9)).version == 1


def test_a_gap_is_found_at_first_use() -> None:
    upcaster("s", 1)(lambda value: value)
    upcaster("s", 3)(lambda value: value)
    with pytest.raises(InternalError, match="no step from version 2"):
        unpack_document(pack_document("s", 4, 0))
    upcaster("s", 2)(lambda value: value)
    check_upcasters()
    assert unpack_document(pack_document("s", 1, 0)).version == 4


def test_the_first_step_may_not_be_missing() -> None:
    upcaster("s", 2)(lambda value: value)
    with pytest.raises(InternalError, match="no step from version 1"):
        check_upcasters()


def test_two_steps_from_one_version_are_refused() -> None:
    upcaster("s", 1)(lambda value: value)
    with pytest.raises(InternalError, match="twice"):
        upcaster("s", 1)(lambda value: value)


def test_a_value_that_a_step_cannot_read_is_the_writers_fault() -> None:
    upcaster("s", 1)(lambda value: value["missing"])
    with pytest.raises(CodecError, match="cannot be lifted"):
        unpack_document(pack_document("s", 1, {}))
