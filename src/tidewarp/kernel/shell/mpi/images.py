"""The state of all ranks as one image."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tidewarp.kernel.lp import form_of_lp
from tidewarp.kernel.model import Model
from tidewarp.kernel.records import Image, framed, split_frames

__all__ = ["joined_image"]

_KEY = struct.Struct(">qQqqQ")


def joined_image(model: Model, pe_of: Sequence[int], workers: int, parts: Sequence[bytes]) -> Image:
    """The image of a run whose LP i is on rank ``pe_of[i] // workers``.

    Each part is one rank's: its rows in LP order, then its pending events in any order, both framed, and these two framed.
    """
    sides = [[bytes(side) for side in split_frames(part)] for part in parts]
    rows = [split_frames(rows) for rows, _ in sides]
    records = [bytes(record) for _, pending in sides for record in split_frames(pending)]
    groups = []
    for group in model.groups:
        mine = [bytes(next(rows[pe_of[lp] // workers])) for lp in range(group.first, group.first + group.count)]
        groups.append(b"".join(mine) if form_of_lp(group.cls).fixed else framed(mine))
    return Image(tuple(groups), framed(sorted(records, key=_KEY.unpack_from)))
