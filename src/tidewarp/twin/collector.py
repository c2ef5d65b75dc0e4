"""The cyclic garbage collector while a twin runs."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["patient_collector"]

_YOUNG = 100_000  # objects, about 10 MB: a batch of 8,192 inputs is 25,000, made and freed within a turn


@contextlib.contextmanager
def patient_collector() -> Iterator[None]:
    """Look for cyclic garbage less often than after each 700 objects, as long as this lasts; what is off stays off.

    Inputs are many tuples and no cycles: looking for some among them took a third of the time of a busy twin.
    """
    before = gc.get_threshold()
    if before[0]:
        gc.set_threshold(max(before[0], _YOUNG), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
