"""Fields of the store's byte forms: big-endian integers, counted bytes and texts, counts of items.

A form that is made of these alone has one encoding: an integer has a fixed width, a flag is 0 or 1, a text is strict
UTF-8, and whatever varies in length comes after its length. So what a :class:`Reader` accepts to its
:meth:`~Reader.end` is what these functions write again; only a form with a rule of its own, such as an order of
its items, has to check that rule too. Lengths are compared with the bytes left before anything is made from them.
"""

from __future__ import annotations

import struct

from tidewarp.errors import CodecError

__all__ = [
    "ITEMS_MAX",
    "TEXT_BYTES_MAX",
    "Reader",
    "count",
    "counted",
    "hash32",
    "i64",
    "text16",
    "u8",
    "u16",
    "u32",
    "u64",
]

ITEMS_MAX = 65_536
TEXT_BYTES_MAX = 1_024

_U8, _U16, _U32, _U64, _I64 = (struct.Struct(">" + form) for form in "BHIQq")


class Reader:
    """Reads the fields of one value, front to back.

    ``what`` names the value in errors. ``data`` and ``at``, the place of the next byte, are for readers of fields
    that are made of several.

    Every method raises CodecError where the bytes left are too few, or break the rule that it states.
    """

    __slots__ = ("at", "data", "what")

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.what = what
        self.at = 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self.data) - self.at

    def u8(self) -> int:
        """An unsigned integer of 1 byte."""
        at = self.at
        if at >= len(self.data):
            raise self.refusal("1 bytes are needed and 0 are left")
        self.at = at + 1
        return self.data[at]

    def u16(self) -> int:
        """An unsigned integer of 2 bytes."""
        return self._number(_U16)

    def u32(self) -> int:
        """An unsigned integer of 4 bytes."""
        return self._number(_U32)

    def u64(self) -> int:
        """An unsigned integer of 8 bytes."""
        return self._number(_U64)

    def i64(self) -> int:
        """A signed integer of 8 bytes."""
        return self._number(_I64)

    def flag(self) -> bool:
        """A byte that is 0 or 1."""
        number = self.u8()
        if number > 1:
            raise self.refusal(f"a flag is 0 or 1, not {number}")
        return number == 1

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        at = self.at
        end = at + size
        if end > len(self.data):
            raise self.refusal(f"{size} bytes are needed and {self.left} are left")
        self.at = end
        return self.data[at:end]

    def hash32(self) -> bytes:
        """A hash, a key or a domain."""
        return self.take(32)

    def counted(self) -> bytes:
        """Bytes after their U32 length."""
        return self.take(self._number(_U32))

    def text16(self) -> str:
        """UTF-8 of at most 1,024 bytes after its U16 length."""
        size = self._number(_U16)
        if size > TEXT_BYTES_MAX:
            raise self.refusal(f"a text has at most {TEXT_BYTES_MAX} bytes, not {size}")
        data = self.take(size)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self.refusal(f"a text is UTF-8: {error.reason}") from None

    def count(self, least: int) -> int:
        """A U32 count of items, at most 65,536, for each of which ``least`` bytes are left."""
        number = self._number(_U32)
        if number > ITEMS_MAX:
            raise self.refusal(f"a list has at most {ITEMS_MAX} items, not {number}")
        if number * least > self.left:
            raise self.refusal(f"{number} items need {number * least} bytes and {self.left} are left")
        return number

    def rest(self) -> bytes:
        """All bytes left, maybe none."""
        return self.take(self.left)

    def end(self) -> None:
        """Refuse what trails."""
        if self.left:
            raise self.refusal(f"{self.left} bytes trail")

    def refusal(self, rule: str) -> CodecError:
        """The error that says what is being read, how far, and the ``rule`` that the bytes break."""
        return CodecError(f"{self.what}, byte {self.at} of {len(self.data)}", rule, "send the bytes as they were made")

    def _number(self, form: struct.Struct) -> int:
        at = self.at
        if at + form.size > len(self.data):
            raise self.refusal(f"{form.size} bytes are needed and {self.left} are left")
        self.at = at + form.size
        number: int = form.unpack_from(self.data, at)[0]
        return number


def u8(number: int) -> bytes:
    """An unsigned integer as 1 byte.

    Raises:
        CodecError: out of range, as for each of the functions below.
    """
    return _packed(_U8, number)


def u16(number: int) -> bytes:
    """An unsigned integer as 2 bytes."""
    return _packed(_U16, number)


def u32(number: int) -> bytes:
    """An unsigned integer as 4 bytes."""
    return _packed(_U32, number)


def u64(number: int) -> bytes:
    """An unsigned integer as 8 bytes."""
    return _packed(_U64, number)


def i64(number: int) -> bytes:
    """A signed integer as 8 bytes."""
    return _packed(_I64, number)


def hash32(data: bytes) -> bytes:
    """``data``, which is a hash, a key or a domain.

    Raises:
        CodecError: not 32 bytes.
    """
    if len(data) != 32:
        raise CodecError(f"{len(data)} bytes {data[:12].hex()}", "a hash, a key and a domain have 32 bytes", "give 32")
    return data


def counted(data: bytes) -> bytes:
    """``data`` after its U32 length."""
    return _packed(_U32, len(data)) + data


def text16(text: str) -> bytes:
    """``text`` as UTF-8 after its U16 length.

    Raises:
        CodecError: more than 1,024 bytes, or a lone surrogate.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise CodecError(f"text with {text[error.start]!r}", "a lone surrogate has no UTF-8", "drop it") from None
    if len(data) > TEXT_BYTES_MAX:
        raise CodecError(f"text of {len(data)} bytes", f"a text has at most {TEXT_BYTES_MAX} bytes", "shorten it")
    return _packed(_U16, len(data)) + data


def count(number: int) -> bytes:
    """How many items follow, as U32.

    Raises:
        CodecError: more than 65,536.
    """
    if number > ITEMS_MAX:
        raise CodecError(f"{number} items", f"a list has at most {ITEMS_MAX} items", "split it")
    return _packed(_U32, number)


def _packed(form: struct.Struct, number: int) -> bytes:
    try:
        return form.pack(number)
    except struct.error:
        kind = "a signed" if form is _I64 else "an unsigned"
        raise CodecError(
            f"{number!r:.40}", f"not {kind} integer of {form.size} bytes", "give an int in its range"
        ) from None
