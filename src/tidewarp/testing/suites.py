"""What the suites share: the packages of the extra ``test``, and a bound on how long a connector may take.

A suite is a class of tests. Derive from it in a test module of your own, give it a name that begins with ``Test`` and the
methods that it asks for, and pytest runs its tests on your backend. Nothing of it waits for the wall clock. Set a test that
makes no sense for your backend to None, with the reason beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from tidewarp.errors import MissingExtra

try:
    import hypothesis
    import pytest
    from hypothesis import stateful, strategies
except ImportError as error:
    raise MissingExtra(
        f"package {error.name}",
        "the suites are classes of tests for pytest, with Hypothesis",
        "pip install 'tidewarp[test]'",
    ) from error

__all__ = ["SAFETY_S", "hypothesis", "made", "perform", "pytest", "stateful", "strategies"]

SAFETY_S = 30.0
"""How long one life of a connector may take: it turns a hang into a failure."""

T = TypeVar("T")


def perform(life: Coroutine[Any, Any, T]) -> T:
    """What ``life`` returns, from an event loop of its own. Fails the test if it takes longer than SAFETY_S."""

    async def bounded() -> T:
        try:
            async with asyncio.timeout(SAFETY_S) as bound:
                return await life
        except TimeoutError:
            if bound.expired():
                pytest.fail(f"no end after {SAFETY_S:g} s: a call waits for what never comes", pytrace=False)
            raise  # the connector's own

    return asyncio.run(bounded())


def made(folder: Path) -> Path:
    """``folder``, which is there now."""
    folder.mkdir(exist_ok=True)
    return folder
