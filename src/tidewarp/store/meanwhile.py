"""Two waits at once: a piece of work in a thread of its own, while the caller does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["meanwhile"]


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Do ``work`` while the block runs; behind it, where the system gives no thread.

    Both are done at the end, and the thread is gone: the process may fork.

    Raises:
        BaseException: what the block raises, else what ``work`` does.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # raised again below, where somebody can handle it
            errors.append(error)

    thread = threading.Thread(target=run, name="tidewarp-meanwhile")
    try:
        thread.start()
    except RuntimeError:  # there are too many, or the interpreter ends
        yield
        work()
        return
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]
