"""The reference page of the kernel names everything that the kernel offers."""

from __future__ import annotations

import re
from pathlib import Path

from tidewarp import kernel

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "kernel.md"


def test_every_name_of_the_kernel_has_its_place() -> None:
    """Rendered from its docstring, or in the table of kinds."""
    text = PAGE.read_text(encoding="utf-8")
    rendered = set(re.findall(r"^::: tidewarp\.[\w.]*?(\w+)$", text, re.MULTILINE))
    listed = set(re.findall(r"\w+", " ".join(re.findall(r"members: \[(.*)\]", text))))
    kinds = set(re.findall(r"`(\w+)(?:\[[^`]*)?`", text))
    assert set(kernel.__all__) - rendered - listed - kinds == set()
