"""The content encoding ``zstd`` of bodies on their way: RFC 8878, with the bounds that RFC 9659 has for HTTP, and fewer forms.

One frame and nothing behind it, a window of at most 8 MiB, no dictionary. Whatever a frame states of itself, no more is
unpacked than the caller takes and one byte. Without the package ``zstandard`` (extra ``zstd``) nobody asks for it, and nothing
of it is read.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache

from tidewarp.errors import CodecError

__all__ = ["ENCODED_BYTES_MAX", "ZSTD", "TooLong", "accepts_zstd", "is_available", "pack_zstd", "unpack_zstd"]

ZSTD = "zstd"
"""Its name in ``Content-Encoding`` and ``Accept-Encoding``."""

ENCODED_BYTES_MAX = 16 << 20
"""Bytes that come out of one body, at most; what is longer travels as it is."""

_LEVEL = 1
_WINDOW_BYTES_MAX = 8 << 20
_MAGIC = (0xFD2FB528).to_bytes(4, "little")
_BLOCKS_MAX = 1 << 16  # a writer fills blocks of 128 KiB; so many of any size are walked through in no time
_UNKNOWN = (1 << 64) - 1  # what a frame states that states no size
_RLE, _RESERVED = 1, 3
_ACTION = "send one plain frame of zstd, or the bytes without encoding"


class TooLong(CodecError):
    """More bytes than the reader takes would come out."""


@cache
def is_available() -> bool:
    """Is the package here that reads and writes it?"""
    return importlib.util.find_spec("zstandard") is not None


def accepts_zstd(accepted: str) -> bool:
    """Does a header ``Accept-Encoding`` ask for it? RFC 9110, section 12.5.3; what it prefers is not weighed."""
    for one in accepted.lower().split(","):
        name, *parameters = (part.strip() for part in one.split(";"))
        if name == ZSTD:
            return not any(re.fullmatch("q *= *0([.]0*)?", part) for part in parameters)
    return False


def pack_zstd(data: bytes) -> bytes:
    """One frame that holds ``data`` and states its size."""
    import zstandard

    return zstandard.ZstdCompressor(level=_LEVEL).compress(data)


def unpack_zstd(data: bytes, size_max: int) -> bytes:
    """What the frame ``data`` holds, at most ``size_max`` bytes.

    Raises:
        TooLong: it states more, or holds more.
        CodecError: no frame of the form above, one that is damaged, or the package is missing.
    """
    if not is_available():
        raise CodecError(
            "a body in zstd", "it cannot be read without the package zstandard", "send it without encoding"
        )
    import zstandard

    what = f"{len(data)} bytes of zstd"
    if data[:4] != _MAGIC:
        raise CodecError(what, "it begins with no frame", _ACTION)
    try:
        stated = zstandard.get_frame_parameters(data)
        if stated.dict_id:
            raise CodecError(what, f"it wants dictionary {stated.dict_id}", _ACTION)
        if stated.content_size != _UNKNOWN and stated.content_size > size_max:
            raise TooLong(what, f"it states {stated.content_size} bytes, at most {size_max} may come", _ACTION)
        end = _end_of_frame(data, zstandard.frame_header_size(data), has_checksum=stated.has_checksum)
        if end != len(data):
            raise CodecError(what, f"its frame ends at {end}: one frame, whole, and nothing behind it", _ACTION)
        # Not decompress(max_output_size=…): that one believes the size that a frame states.
        reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX).stream_reader(data)
        with reader:
            found: bytes = reader.read(min(stated.content_size, size_max) + 1)
    except zstandard.ZstdError as error:
        raise CodecError(what, str(error), _ACTION) from None
    if len(found) > size_max:
        raise TooLong(what, f"at most {size_max} bytes may come out of it, and more do", _ACTION)
    if stated.content_size not in (_UNKNOWN, len(found)):
        raise CodecError(what, f"it states {stated.content_size} bytes and holds {len(found)}", _ACTION)
    return found


def _end_of_frame(data: bytes, at: int, *, has_checksum: bool) -> int:
    """Where the frame ends whose first block begins at ``at``; beyond ``data`` if it is cut short. RFC 8878, section 3.1.1.2."""
    for _ in range(_BLOCKS_MAX):
        header = int.from_bytes(data[at : at + 3], "little")
        is_last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == _RESERVED:
            raise CodecError(f"{len(data)} bytes of zstd", "a block of a kind that is reserved", _ACTION)
        at += 3 + (1 if kind == _RLE else size)
        if at > len(data):
            return at
        if is_last:
            return at + 4 * has_checksum
    raise CodecError(f"{len(data)} bytes of zstd", f"a frame has at most {_BLOCKS_MAX} blocks", _ACTION)
