"""The site builds without a warning, loads nothing from elsewhere, and its generated page is that of the present commands."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import tidewarp
from tidewarp import sinks, sources, testing
from tidewarp.twin.documents import FORMS

ROOT = Path(__file__).parents[2]
_LOADS = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "object": "data",
    "embed": "src",
}
_STYLE_LOADS = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")]+)")


class _Loads(HTMLParser):
    """Collects what a page loads by itself; links that a reader may follow are not among it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get(_LOADS.get(tag, ""))
        if target and re.match(r"(?:[a-z]+:)?//", target):
            self.found.append(target)


@pytest.fixture(scope="module")
def site(require, tmp_path_factory):
    require("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(folder),
    ]  # --quiet hides warnings from it
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_loads_nothing_from_elsewhere(site):
    """No font, script, style or picture of another host: it can be read without a network, and tells nobody who reads it."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loads = _Loads()
        loads.feed(text)
        assert loads.found + _STYLE_LOADS.findall(text) == [], page
    for style in site.rglob("*.css"):
        assert _STYLE_LOADS.findall(style.read_text(encoding="utf-8")) == [], style


def test_the_page_of_commands_is_that_of_the_present_commands():
    """Its text comes from the commands; python scripts/commands_page.py writes it anew."""
    made = runpy.run_path(str(ROOT / "scripts" / "commands_page.py"))["page"]()
    assert (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8") == made


def test_the_page_of_the_journal_has_the_fields_of_the_documents():
    """Of those about the run; the columns of inputs have a page-long story of their own."""
    text = (ROOT / "docs" / "reference" / "journal.md").read_text(encoding="utf-8")
    rows = [f"| `{schema}/1` | `{{{', '.join(form.__struct_fields__)}}}`" for schema, form in FORMS.items()]
    assert [row for row in rows if row not in text] == []


def test_every_public_name_has_its_place_in_the_reference(site):
    """Of the front door, of the sources, the sinks and the tools for tests."""
    text = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html"))
    shown = {name.rpartition(".")[2] for name in re.findall(r'id="(tidewarp\.[\w.]+)"', text)}
    public = [getattr(tidewarp, name) for name in tidewarp.__all__ if name not in ("__version__", "sinks", "sources")]
    public += [getattr(module, name) for module in (sinks, sources, testing) for name in module.__all__]
    assert {thing.__name__ for thing in public} - shown == set()
