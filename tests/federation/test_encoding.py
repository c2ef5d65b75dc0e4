"""The content encoding zstd: what was packed comes back, and of everything else no more is unpacked than was asked for."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.errors import CodecError
from tidewarp.federation import encoding
from tidewarp.federation.encoding import TooLong, accepts_zstd, pack_zstd, unpack_zstd


@pytest.fixture(autouse=True)
def zstd(require):
    require("zstd")


LIMIT = 1 << 20
TRUTH = random.Random(1).randbytes(3_000) + bytes(3_000)


@given(st.binary(max_size=10_000), st.integers(0, 5))
def test_what_was_packed_comes_back(data, less):
    """Whole where there is room for all of it, and not at all where there is not."""
    packed = pack_zstd(data)
    assert unpack_zstd(packed, len(data) + less) == data
    if data:
        with pytest.raises(TooLong):
            unpack_zstd(packed, len(data) - 1)


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("states_size", [True, False])
@pytest.mark.parametrize("level", [1, 3, 19])
def test_frames_of_other_writers(level, states_size, checksum):
    """With a size and a checksum or without."""
    import zstandard

    packer = zstandard.ZstdCompressor(level=level, write_content_size=states_size, write_checksum=checksum)
    for data in (b"", b"x", TRUTH, bytes(300_000)):
        assert unpack_zstd(packer.compress(data), 300_000) == data


def test_every_lie_is_refused_in_bounded_memory():
    """Bombs of both kinds, sizes, windows, dictionaries, what stands before a frame and behind it."""
    from zstd_lies import TOO_LONG, zstd_lies

    for name, data in zstd_lies(TRUTH).items():
        tracemalloc.start()
        try:
            with pytest.raises(TooLong if name in TOO_LONG else CodecError) as caught:
                unpack_zstd(data, LIMIT)
            assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT, name
        finally:
            tracemalloc.stop()
        assert caught.value.action, name
        assert isinstance(caught.value, TooLong) == (name in TOO_LONG), name


@given(st.integers(0, 8 * 200), st.binary(max_size=4))
def test_bytes_that_differ(at, behind):
    """A flipped bit and other bytes behind it give the data, other data of a size that may come, or a refusal."""
    packed = bytearray(pack_zstd(TRUTH))
    packed[at // 8 % len(packed)] ^= 1 << at % 8
    try:
        assert len(unpack_zstd(bytes(packed) + behind, 6_000)) <= 6_000
    except CodecError:
        pass


def test_what_a_header_asks_for():
    """Its name among others, unless with a weight of nothing."""
    for text in ("zstd", "gzip, zstd", "ZSTD;q=0.5", "br;q=1.0 , zstd ;q=0.001"):
        assert accepts_zstd(text), text
    for text in ("", "gzip", "*", "zstd;q=0", "zstd; q=0.000", "xzstd", "zstd2"):
        assert not accepts_zstd(text), text


def test_without_the_package(monkeypatch):
    """Nothing is read, with the reason."""
    monkeypatch.setattr(encoding, "is_available", lambda: False)
    with pytest.raises(CodecError, match="zstandard"):
        unpack_zstd(pack_zstd(b"x"), 10)
