"""Two empty sites."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from node import Node


@pytest.fixture
def a() -> Iterator[Node]:
    node = Node("a")
    yield node
    node.close()


@pytest.fixture
def b() -> Iterator[Node]:
    node = Node("b")
    yield node
    node.close()
