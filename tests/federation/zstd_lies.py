"""Bodies that claim to be zstd and are none, or more than may come: what each is made of, and whether it is too long."""

from __future__ import annotations

import zstandard

SKIPPABLE = (0x184D2A50).to_bytes(4, "little")
MAGIC = zstandard.FRAME_HEADER
BOMB_BYTES = 1 << 28


def bomb(*, states_size: bool) -> bytes:
    """256 MiB of zeros."""
    packer = zstandard.ZstdCompressor(write_content_size=states_size).compressobj(BOMB_BYTES if states_size else -1)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(BOMB_BYTES >> 20)) + packer.flush()


def frame(data: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


def raw_frame(
    *, size: int | None = None, window: int | None = None, dictionary: int = 0, blocks: bytes = b"\1\0\0"
) -> bytes:
    """A frame as RFC 8878, section 3.1.1, has it: with a size stated in 8 bytes, or with a window descriptor."""
    fields = (0 if size is None else 0xC0) | (0x20 if window is None else 0) | (3 if dictionary else 0)
    head = bytes([fields]) + (b"" if window is None else bytes([window]))
    head += dictionary.to_bytes(4, "little") if dictionary else b""
    if size is not None:
        head += size.to_bytes(8, "little")
    elif window is None:
        head += b"\0"
    return MAGIC + head + blocks


def zstd_lies(truth: bytes) -> dict[str, bytes]:
    """By name. ``truth`` is what should have come, above 1 KiB."""
    good = frame(truth)
    dictionary = zstandard.train_dictionary(1 << 12, [truth[:500] + b"%d" % n * 9 for n in range(500)])
    return {
        "bomb that states its size": bomb(states_size=True),
        "bomb that states none": bomb(states_size=False),
        "states 2^63": raw_frame(size=1 << 63),
        "states 2^64 - 1": raw_frame(size=(1 << 64) - 1),
        "states more than it holds": raw_frame(size=len(truth), blocks=b"\1\0\0"),
        "states less than it holds": raw_frame(size=1, blocks=((4 << 3) | 1 | 2).to_bytes(3, "little") + b"x"),
        "window of 16 MiB": raw_frame(window=(24 - 10) << 3, blocks=b"\1\0\0"),
        "window of 3.75 TiB": raw_frame(window=0xFF),
        "a dictionary that nobody has": raw_frame(size=3, dictionary=7),
        "packed with a dictionary": zstandard.ZstdCompressor(dict_data=dictionary).compress(truth),
        "two frames": good + good,
        "a frame and an empty one": good + frame(b""),
        "a frame and garbage": good + b"\0",
        "a frame and a skippable one": good + SKIPPABLE + bytes(4),
        "a skippable frame before it": SKIPPABLE + (3).to_bytes(4, "little") + b"abc" + good,
        "skippable frames without end": (SKIPPABLE + bytes(4)) * 4_096,
        "a skippable frame of 4 GiB": SKIPPABLE + b"\xff\xff\xff\xff" + good,
        "empty blocks without end": raw_frame(window=0, blocks=bytes(3) * 100_000),
        "a reserved block": raw_frame(size=3, blocks=b"\7\0\0"),
        "cut short": good[:-1],
        "cut in its head": good[:5],
        "a magic alone": MAGIC,
        "nothing": b"",
        "no frame": truth,
        "a flipped bit": good[:-3] + bytes([good[-3] ^ 64]) + good[-2:],
    }


TOO_LONG = frozenset({"bomb that states its size", "bomb that states none", "states 2^63"})
