"""`tidewarp bench spiking` at a small size: its keys, its checks, and a reference that answers, dies or is missing."""

import json
import sys

import pytest

from tidewarp.cli import main

SMALL = ["bench", "spiking", "--tier", "python", "--populations", "3", "--neurons", "16", "--fan", "2", "--end", "0.05"]
KEYS = {"spikes", "rate_hz", "sensor_events", "late_events", "neuron_steps_per_s", "v_deep_mean", "real_time_factor"}
KEYS |= {"reference_real_time_factor", "reference_rate_hz", "ratio", "committed", "seconds", "events_per_s", "digest"}
KEYS |= {"rolled_back", "rollbacks", "gvt_rounds", "verified", "seed", "runs", "compile_seconds", "peak_rss_bytes"}

CHILD = """#!{python}
import json, sys
import numpy
given = numpy.load(sys.argv[2])
print(json.dumps({greeting}), flush=True)
for line in sys.stdin:
    {answer}
"""


def answer(capsys, *arguments, code=0):
    assert main([*SMALL, *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def child(tmp_path):
    """A program in place of the Python with Brian2: what it says first, and to each request."""

    def make(greeting, answer):
        path = tmp_path / "python"
        path.write_text(CHILD.format(python=sys.executable, greeting=greeting, answer=answer))
        path.chmod(0o755)
        return ["--reference", "brian2", "--reference-python", str(path)]

    return make


def test_the_command_prints_one_object(capsys):
    """All keys; the same digest from another engine whose sensors are late, verified."""
    first = answer(capsys, "--repeat", "2")
    assert first.keys() >= KEYS
    assert first["ratio"] is first["verified"] is None
    assert len({one["digest"] for one in first["runs"]}) == 1
    assert first["spikes"] == pytest.approx(first["rate_hz"] * 3 * 16 * 0.05)
    late = answer(
        capsys, *["--kernel", "optimistic", "--workers", "2", "--sensor-late-ms", "10", "--window", "0.02", "--verify"]
    )
    assert late["digest"] == first["digest"]
    assert late["verified"]
    assert late["late_events"] == late["sensor_events"] > 0 == first["late_events"]
    assert main(SMALL) == 0
    assert "x real time" in capsys.readouterr().out


def test_identity_and_form_change_the_model(capsys):
    """Each is another model with a digest of its own; without identity neurons there is no deep compartment."""
    found = [answer(capsys), answer(capsys, "--identity", "none"), answer(capsys, "--connect", "dense")]
    found.append(answer(capsys, "--stochastic", "16", "--connect", "procedural"))
    assert len({one["digest"] for one in found}) == 4
    assert found[1]["v_deep_mean"] is None
    assert found[0]["v_deep_mean"] == found[2]["v_deep_mean"] >= 0.0
    assert len({one["spikes"] for one in found}) == 1, "forms and observers change nothing in the populations"


def test_a_reference_runs_in_turn_with_the_rounds(capsys, child):
    """It gets the whole network; the ratio is the median over rounds of its time by ours."""
    asked = "print(json.dumps({'seconds': 100.0, 'spikes': int(given['neurons'])}), flush=True)"
    found = answer(capsys, "--repeat", "3", *child("{'version': '0'}", asked))
    assert found["reference_rate_hz"] == pytest.approx(1 / 0.05)
    assert found["reference_real_time_factor"] == pytest.approx(0.05 / 100.0)
    speeds = sorted(0.05 / one["seconds"] for one in found["runs"])
    assert found["ratio"] == pytest.approx(speeds[1] / (0.05 / 100.0))


def test_a_reference_that_is_missing_is_named_with_its_remedy(capsys, child):
    """Exit code 3 and the command that installs it."""
    found = answer(capsys, *child("{'error': 'No module named brian2'}", "pass"), code=3)
    assert "tidewarp[bench]" in found["error"]["action"]
    assert "No module named brian2" in found["error"]["rule"]


def test_a_reference_that_dies_is_an_error(capsys, child):
    """With its last words, not a wait for ever."""
    found = answer(capsys, *child("{'version': '0'}", "sys.exit('out of memory')"), code=2)
    assert "out of memory" in found["error"]["rule"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--neurons", "4"],
        ["--delay-ms", "0.5"],
        ["--delay-ms", "nan"],
        ["--sensor-late-ms", "-1"],
        ["--density", "2"],
        ["--rate-hz", "900"],
        ["--sensor-hz", "-1"],
        ["--end", "0"],
        ["--verify", "--digest", "off"],
        ["--identity", "deep"],
    ],
)
def test_a_value_that_breaks_its_rule_is_refused(capsys, arguments):
    """Exit code 2, before anything runs."""
    assert answer(capsys, *arguments, code=2)["error"]["rule"]
