"""Dead letters once more: decoded, checked and stamped as on their first way, and as inputs in the place of their messages.

Their offsets lie below the position of their source, which stays where it is. That an input has the offset of a letter is
all that says that it was driven: no message is both otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tidewarp.codec import unpack
from tidewarp.connect.contract import DeadLetter, Decoder, Raw, Undecodable, Update
from tidewarp.connect.gate.admission import Admission, Moment
from tidewarp.connect.gate.batch import Batch
from tidewarp.connect.gate.state import SourceState, buried

__all__ = ["Cells", "readmitted"]


class Cells:
    """The decoder of what a letter keeps of columns: see ``Readings.raw``."""

    def decode(self, raw: Raw) -> Update:
        """The cell: [tick, path, value]."""
        cell = unpack(raw.payload)
        if type(cell) is not list or len(cell) != 3:
            raise Undecodable(f"message {raw.offset}", "it is [tick, path, value]", "send it again", "decode")
        tick, path, value = cell
        return Update(tick, ((path, value),))


def readmitted(
    admission: Admission,
    source: SourceState,
    decoder: Decoder,
    epoch_ns: int,
    letters: Sequence[DeadLetter],
    moment: Moment,
) -> tuple[list[Batch], list[DeadLetter]]:
    """The inputs that these letters are now, and those that are none, with their reasons of today.

    None is stamped below the present, whatever its source does with late ones. A letter of which another copy came
    in under the same id is a duplicate, and in neither list.
    """
    trial = SourceState(source.name, source.rank, replace(source.policy, late="clamp", full="block"))
    trial.epoch_ns, trial.bound, trial.highest = epoch_ns, source.bound, dict(source.highest)
    own = {buried(letter.id, letter.sha256) for letter in letters}
    trial.ids = {identity: None for identity in source.ids if identity not in own}
    raws = [
        Raw(letter.partition, letter.offset, letter.head, id=letter.id[3:] if letter.id.startswith("at:") else "")
        for letter in letters
    ]
    batches: list[Batch] = []
    unfit: list[DeadLetter] = []
    for batch in admission.one_by_one(trial, decoder, raws, moment):
        unfit += batch.letters
        if batch.inputs:
            fit = Batch(batch.inputs)
            fit.highest = batch.highest
            batches.append(fit.closed(source.positions))
    for one in (one for batch in batches for one in batch.inputs):
        source.note(one)
        source.outstanding += 1
        if one.id:
            source.remember(one.id)
    source.long.update(trial.long)
    source.long_bytes += trial.long_bytes
    return batches, unfit
