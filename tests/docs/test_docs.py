"""Every code block of the documentation runs, and prints what the page says that it prints.

A page is README.md, CONTRIBUTING.md or a file of docs/. Its blocks run in their order, in a folder that is empty at first.
The fence says what a block is:

    python title="boiler.py"   a file: saved under this name; any language
    python                     a program: run twice, as a reader does who tries it again
    sh                         commands, as pasted into a shell; the first that fails ends the page's test
    text                       what the block above it prints; a block without one prints nothing

In a text block "..." stands for anything within one line, and alone on a line for any lines. A comment ``<!-- not run: reason -->``
above the fence leaves a block alone. ``--8<-- "file"`` is the text of that file, as in mkdocs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
    if path.name != "ARCHITECTURE.md"  # its blocks are drawings
)
NOT_RUN_MAX = 6
SECONDS_MAX = 120  # of one block: a hang ends, no speed is asserted

_FENCE = re.compile(
    r"^(?P<marker><!-- not run: [^\n]* -->\n)?^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_TITLE = re.compile(r'title="([^"]+)"')
_SNIPPET = re.compile(r'^--8<-- "([^"]+)"$', re.MULTILINE)

# What differs from run to run: the journal's key, made at random, and with it its domain and head; how many records there
# are, which depends on how far a source was read when a run stopped; where the clock stood when it was heard that one had
# ended; and how long things took.
_VARIES = [
    (re.compile(r"^(head +|domain +)[0-9a-f]{64}$", re.MULTILINE), r"\1HEX"),
    (re.compile(r"(domain[=\": ]+)[0-9a-f]{64}"), r"\1HEX"),
    (re.compile(r"platform=.*"), "PLATFORM"),
    (re.compile(r"[\d,]+ records"), "N records"),
    (re.compile(r"\S+ ended( +source=\S+ admitted=)\d+"), r"AT ended\1TICK"),
    (re.compile(r"[\d.]+ s of wall time"), "SECONDS"),
    (re.compile(r"\d+ passed(, \d+ skipped)? in [\d.]+s"), "PASSED"),
    (re.compile(r"in [\d.]+ s \([\d,]+x\)"), "SPEED"),
]


class Block(NamedTuple):
    """One fenced block; ``output`` is the text block below it, "" if there is none."""

    line: int
    language: str
    title: str | None
    text: str
    output: str
    reason: str | None  # why it is not run


def _included(snippet: re.Match[str]) -> str:
    return (ROOT / snippet[1]).read_text(encoding="utf-8").rstrip("\n")


def blocks(page: str) -> list[Block]:
    """The blocks of a page, each with its output. Fails for what nobody would run or compare."""
    source = (ROOT / page).read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for match in _FENCE.finditer(source):
        line = source.count("\n", 0, match.start("text"))
        info, text = match["info"].strip(), _SNIPPET.sub(_included, match["text"])
        language = info.split(" ")[0]
        if language == "text" and match["marker"] is None:
            follows = bool(found) and not found[-1].output and not source[end : match.start()].strip()
            assert follows, f"{page}:{line}: a text block stands directly below the block that prints it"
            found[-1] = found[-1]._replace(output=text)
        else:
            title = _TITLE.search(info)
            reason = match["marker"][len("<!-- not run: ") : -len(" -->\n")] if match["marker"] else None
            found.append(Block(line, language, title and title[1], text, "", reason))
        end = match.end()
    assert source.count("```") == 2 * len(_FENCE.findall(source)), f"{page}: a fence is indented or not closed"
    return found


def _lines(text: str) -> str:
    for pattern, stand_in in _VARIES:
        text = pattern.sub(stand_in, text)
    return "\n".join(line.rstrip() for line in text.splitlines())


def _is_shown(expected: str, printed: str) -> bool:
    pattern = ""
    for line in _lines(expected).split("\n"):
        inline = ".*".join(map(re.escape, line.split("...")))
        pattern += "(?:.*\n)*" if line.strip() == "..." else f"{inline}\n"
    return re.fullmatch(pattern, _lines(printed) + "\n") is not None


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "TIDEWARP_LOG")}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", "NO_COLOR": "1"}


def _commands(block: Block, folder: Path) -> Iterator[list[str]]:
    if block.language == "sh":
        yield ["bash", "-e", "-c", block.text]
    elif block.language == "python":
        (folder / "program.py").write_text(block.text)
        yield from [[sys.executable, "program.py"]] * 2
    else:
        pytest.fail(f"line {block.line}: nobody knows how to run {block.language!r}; save it, run it, or say why not")


def _run(block: Block, page: str, folder: Path) -> None:
    for command in _commands(block, folder):
        done = subprocess.run(
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        what = f"{page}:{block.line} ended with {done.returncode} and printed\n{done.stdout}"
        if done.returncode:
            pytest.fail(what, pytrace=False)
        if not _is_shown(block.output, done.stdout):
            pytest.fail(f"{what}and the page says\n{block.output}", pytrace=False)


def _run_page(page: str, folder: Path) -> None:
    for block in blocks(page):
        if block.reason is not None:
            continue
        if block.title is not None:
            (folder / block.title).write_text(block.text)
        else:
            _run(block, page, folder)


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[None]]]:
    """The pages that were selected, two at a time: each is a chain of processes that mostly start."""
    pages = [item.callspec.params["page"] for item in request.session.items if "runs" in item.fixturenames]
    with ThreadPoolExecutor(2) as pool:
        yield {page: pool.submit(_run_page, page, tmp_path_factory.mktemp("page")) for page in pages}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_runs_and_prints_what_stands_below_it(page, runs):
    """In order, in one folder: what a reader gets who does what the page says."""
    runs[page].result()


def _addresses(page: str) -> list[str]:
    """The files ``NAME.url`` that programs in the background write, in order; of a loop, one for each value."""
    names: list[str] = []
    for block in blocks(page):
        for name in re.findall(r"> (\S+\.url) &$", block.text, re.MULTILINE):
            loop = re.search(r"for (\w+) in ([^;]*); do", block.text)
            values = loop[2].split() if loop and f"${loop[1]}" in name else [""]
            names += [name.replace(f"${loop[1]}", value) if loop else name for value in values]
    return names


@pytest.mark.parametrize("page", [page for page in PAGES if _addresses(page)])
def test_who_waits_for_an_address_does_not_find_an_earlier_one(page):
    """Each server of a page writes a file of its own: in one that is there already stands where another one answered."""
    names = _addresses(page)
    assert sorted(names) == sorted(set(names))


def test_what_is_not_run_says_why_and_is_little():
    """A block that nobody runs is one that may be wrong."""
    reasons = [f"{page}:{one.line}: {one.reason}" for page in PAGES for one in blocks(page) if one.reason is not None]
    assert len(reasons) <= NOT_RUN_MAX, "\n".join(reasons)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_links_of_a_page_outside_the_site_lead_somewhere(page):
    """mkdocs checks those of the site's pages."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_first_screen_of_the_readme_has_the_two_commands():
    """Each does all its set-up."""
    assert [block.text.strip() for block in blocks("README.md") if block.language == "sh"][:2] == [
        "pip install . && tidewarp demo",
        "pip install -e '.[test]' && pytest",
    ]
