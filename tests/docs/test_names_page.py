"""The page of names has those of the code: paths, published keys, counts, metrics, variables of the environment."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import pytest

import tidewarp as tw
from tidewarp.connect.outbox import Delivery, Outbox
from tidewarp.process import DistributionConfig, Environment, SimulationContext
from tidewarp.process.topology import OPERATIONS
from tidewarp.twin.observations import STAGES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "names.md").read_text(encoding="utf-8")
SOURCES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")}
OF_THE_TESTS = {"TIDEWARP_REQUIRE"}


def named(section: str) -> list[str]:
    """What the first cells of the tables of a section name, in their order."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return [name for cell in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall("`(.+?)`", cell)]


def found(pattern: str, *, under: str = "") -> set[str]:
    place = str(ROOT / "src" / "tidewarp" / under)
    return {
        match for path, text in SOURCES.items() if str(path).startswith(place) for match in re.findall(pattern, text)
    }


def general(paths: Iterable[str]) -> set[str]:
    """Paths of a line S with one thing of each kind, called n, as the page writes them."""
    parameters = "|".join(DistributionConfig.model_fields)
    wide = (path.replace("S.", "{sim}.", 1).replace(".n", ".{name}", 1) for path in paths)
    return {re.sub(rf"(name\}}|up|down)\.({parameters})$", r"\1.{parameter}", path) for path in wide}


def test_the_paths_are_those_that_a_line_declares():
    """One thing of each kind; the parameters of distributions as one row."""
    times = DistributionConfig("constant", mean=1)
    line = SimulationContext(Environment(), "S").add_resource("n", 1).add_container("n", 1.0).add_store("n", 1)
    line.add_variable("n", 1.0).add_service("n", "constant", mean=1).add_arrival("n", "constant", mean=1)
    line.add_breakdown("n", "n", times, times)
    assert set(named("Paths")) == general(line.env.registry.paths())
    listed = re.search(r"`\{parameter\}` is (.*?)\. ", PAGE, re.DOTALL)
    assert listed is not None
    assert re.findall("`(.+?)`", listed[1]) == [*DistributionConfig.model_fields]


def test_the_operations_on_a_line_are_those_of_its_topology():
    """Each with the fields that it needs and may have; those of a distribution have a table of their own."""
    text = (ROOT / "docs" / "reference" / "process.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1:4] for row in text.splitlines() if re.match(r"\| `(add_|remove)", row)]
    told: dict[str, tuple[set[str], set[str]]] = {}
    for operations, needed, possible in rows:
        for operation in re.findall("`(.+?)`", operations):
            told[operation] = set(re.findall(r"`(\w+)`", needed)), set(re.findall(r"`(\w+)`", possible))
    assert told.keys() == OPERATIONS.keys()
    for operation, (needs, may) in OPERATIONS.items():
        shown = told[operation]
        assert shown[0] == needs
        assert shown[1] == may or operation in ("add_service", "add_arrival")


def test_the_keys_are_those_that_the_code_publishes():
    """``system.`` belongs to us: a model's own keys are its author's."""
    literals = found(r'"(system\.[\w.]+)"')
    assert literals == set(re.findall(r"`(system\.[\w.]+)`", PAGE))
    assert found(r'"(system\.[\w.]+)"', under="process") <= set(named("Keys of outputs"))


def test_the_counts_of_a_run_are_the_fields_of_its_summary():
    """In their order."""
    assert named("Counts of a run") == [field.name for field in fields(tw.Summary)]


def test_the_counts_of_a_sink_are_those_of_the_outbox():
    """And so are its states."""
    outbox = Outbox()
    outbox.register("s", Delivery())
    counts, states = (
        [*outbox.counts()["s"], "nonfinite", "unobserved"],
        named("Counts of a sink"),
    )  # two of its connector
    assert states[: len(counts)] == counts
    body = re.search(
        r"def state\(self\) -> str:\n(.*?)\n\n", SOURCES[ROOT / "src/tidewarp/connect/outbox.py"], re.DOTALL
    )
    assert body is not None
    assert set(states[len(counts) :]) == set(re.findall(r'"(\w+)"', body[1]))


def test_the_states_of_a_source_are_those_of_the_gate():
    """In any order."""
    text = SOURCES[ROOT / "src/tidewarp/connect/gate/state.py"]
    body = re.search(r"def state\(self\) -> str:\n(.*?)\n\n", text, re.DOTALL)
    assert body is not None
    assert set(named("States of a source")) == set(re.findall(r'"(\w+)"', body[1]))


def test_the_stages_are_those_that_are_observed():
    """In their order, in one row."""
    row = re.search(r"\| `system.stage.{stage}.seconds` \|(.*)", PAGE)
    assert row is not None
    assert re.findall(r"`(\w+)`", row[1]) == [*STAGES]


def test_the_rules_of_dead_letters_are_those_of_the_code():
    """The last argument of every Undecodable, and what the gate counts by itself."""
    raised = found(r'(?:Undecodable|_bad)\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*?"([a-z]+)",?\s*\)', under="connect")
    raised |= found(r'_word\(message, "(\w+)"\)', under="connect/decoders")
    by_the_gate = found(r'(?:rule(?:, update)? = |_bury\(source, raw, )"([a-z]+)"', under="connect/gate")
    assert {"json", "shape", "avro"} <= raised
    assert {"value", "decode", "late", "size"} <= by_the_gate
    assert (raised | by_the_gate) == set(named("Dead letters"))


@pytest.mark.parametrize("under", ["twin", "connect"])
def test_the_metrics_are_those_that_a_probe_is_told(under):
    """Each is counted somewhere, and none is counted that is not on the page."""
    told = found(r'probe\.add\("(\w+)"', under=under)
    assert told
    assert told <= set(named("Metrics")) == found(r'probe\.add\("(\w+)"')


def test_the_variables_are_those_that_the_code_reads():
    """Every TIDEWARP_ name in the source, and no other."""
    assert set(named("Variables of the environment")) == found(r"\b(TIDEWARP_[A-Z_]+)\b") | OF_THE_TESTS
