"""The table of ``pytest -m proof``: a row for each claim, how often it was tried, and how many of its tests failed.

A test states its claim with ``@pytest.mark.proof("killed anywhere, the same digest")`` on itself, its class or its
module; the nearest counts, and equal claims share a row. A test that tries its claim more than once says how often with
``record_property("trials", n)``; the examples of Hypothesis are counted here.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import pytest

COLUMNS = ("claim", "tests", "trials", "wrong", "not run", "seconds")
ALL = "all of them"


def said(report: pytest.TestReport, name: str, default: Any = None) -> Any:
    """A property that was recorded for a test."""
    return dict(report.user_properties).get(name, default)


@dataclass
class Row:
    """What became of the tests of one claim: their node ids, how often they tried it, and the seconds that they took."""

    selected: set[str] = field(default_factory=set)
    run: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)
    trials: int = 0
    took_s: float = 0.0

    def add(self, report: pytest.TestReport) -> None:
        """Count the report of a test's setup, call or teardown."""
        self.took_s += report.duration
        if report.failed:
            self.wrong.add(report.nodeid)
        if report.failed or (report.passed and report.when == "call"):
            self.run.add(report.nodeid)
        if report.when == "call" and not report.skipped:
            self.trials += said(report, "trials", 1)

    def cells(self) -> list[str]:
        """One cell for each of COLUMNS but the claim. What was skipped, or not reached, was not run."""
        counts = len(self.selected), self.trials, len(self.wrong), len(self.selected - self.run)
        return [*(f"{count:,}" for count in counts), f"{self.took_s:.1f}"]


class ProofTable:
    """The plugin of one run: it hears which tests were selected and what became of them."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.all = Row()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """A claim's row is there from now on, whether its tests run or not."""
        for item in session.items:
            for row in (self.rows.setdefault(claim_of(item), Row()), self.all):
                row.selected.add(item.nodeid)
            item.user_properties.append(("claim", claim_of(item)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Count the examples that Hypothesis gives to a test."""
        handle = getattr(getattr(item, "obj", None), "hypothesis", None)
        if handle is None:
            return (yield)
        inner, numbers = handle.inner_test, itertools.count()

        @functools.wraps(inner)
        def counted(*args: Any, **kwargs: Any) -> object:
            next(numbers)
            return inner(*args, **kwargs)

        handle.inner_test = counted
        try:
            return (yield)
        finally:
            handle.inner_test = inner
            item.user_properties.append(("trials", next(numbers)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of each phase of each test."""
        self.rows[said(report, "claim")].add(report)
        self.all.add(report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table; behind it pytest names what failed or was skipped, and why."""
        rows = [[claim, *row.cells()] for claim, row in [*self.rows.items(), (ALL, self.all)]]
        widths = [max(map(len, cells)) for cells in zip(COLUMNS, *rows, strict=True)]
        terminalreporter.section("proof")
        for claim, *cells in [COLUMNS, *rows]:
            numbers = (f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
            terminalreporter.line(f"{claim:<{widths[0]}}" + "".join(numbers))


def claim_of(item: pytest.Item) -> str:
    """The claim of the nearest marker."""
    marker = item.get_closest_marker("proof")
    if marker is None or len(marker.args) != 1:
        raise pytest.UsageError(f"{item.nodeid}: a proof has one claim: mark it with @pytest.mark.proof('what holds')")
    return str(marker.args[0])


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known; make the table only where the proof alone was asked for."""
    config.addinivalue_line("markers", "proof(claim): what the test shows; pytest -m proof ends with a table of claims")
    if config.option.markexpr == "proof":
        config.pluginmanager.register(ProofTable())
