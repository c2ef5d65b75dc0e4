"""What several tests write into stores of the working directory, by the command."""

from __future__ import annotations

import shutil
from pathlib import Path


def put(run, place, text, *options):
    """Put a file of this text; its reference."""
    Path("file").write_text(text)
    return run("store", "put", place, "file", *options, "--json").done()["ref"]


def fork(run):
    """Let the store A and its copy, the store copy, each have a second record of its own."""
    put(run, "A", "before")
    shutil.copytree("A", "copy")
    put(run, "A", "one history")
    put(run, "copy", "another")
