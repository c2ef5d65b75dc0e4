"""``tidewarp bench kernel`` at a small size: that its figures exist, and say what was computed."""

from __future__ import annotations

import json
import math

import pytest

from tidewarp.cli import main
from tidewarp.cli.bench import kernel
from tidewarp.cli.frame import emit
from tidewarp.codec import Digest


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "EVENTS", {"compiled": 400, "python": 400})
    monkeypatch.setattr(kernel, "LPS", 16)
    monkeypatch.setattr(kernel, "CHECKPOINT_LPS", 400)
    monkeypatch.setattr(kernel, "CHUNK", 100)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", kernel.FIGURES)
def test_a_figure_stands_beside_its_reference(name: str) -> None:
    """Both in one unit; a second measurement computes the same."""
    digests = [Digest("TEST"), Digest("TEST")]
    for digest in digests:
        figure = kernel.FIGURES[name]("python", 0.0, digest)
        assert figure.unit in ("ns", "us", "MB/s", "events/s")
        assert math.isfinite(figure.value)
        assert figure.reference > 0
        assert figure.reference_name
    assert digests[0].hexdigest() == digests[1].hexdigest() != Digest("TEST").hexdigest()


@pytest.mark.usefixtures("small")
def test_the_command_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    """All figures, the tier that they are of, one digest; and a table for people."""
    assert main(["bench", "kernel", "--seconds", "0", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [figure["name"] for figure in said["figures"]] == list(kernel.FIGURES)
    assert said["tier"] == "python"
    emit(said, False, kernel._render)
    table = capsys.readouterr().out
    assert "SHA-256" in table
    assert said["digest"] in table
