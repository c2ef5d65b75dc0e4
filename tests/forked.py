"""Work in a child that is forked off: it may die there, and has nothing to import again."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def forked(work: Callable[[], object]) -> int:
    """How a child that does ``work`` ends: 0; 1 with a traceback, if it raised; minus the number of a signal.

    Needs the facility fork. What this process has open is the child's as well, so it opens what it works on itself.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
