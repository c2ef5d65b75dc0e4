"""The README's programs run as printed and print what it says."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_every_program_runs_and_prints_what_stands_below_it(tmp_path):
    """A python block that is followed by a plain one prints exactly that, twice: the second time it resumes."""
    programs = [(n, text) for n, (language, text) in enumerate(BLOCKS) if language == "python"]
    assert len(programs) == 2
    for n, program in programs:
        (tmp_path / "program.py").write_text(program)
        expected = BLOCKS[n + 1][1] if "print(" in program else ""
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
            )
            assert (done.stderr, done.stdout) == ("", expected)


def test_the_first_screen_has_the_two_commands():
    """Each does all its set-up; both stand in the first lines."""
    shells = [text.strip() for language, text in BLOCKS if not language and text.startswith("pip ")]
    assert shells == ["pip install . && tidewarp demo", "pip install -e '.[test]' && pytest"]
