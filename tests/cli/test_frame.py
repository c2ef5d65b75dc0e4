"""The contract that every command keeps: one JSON object, exit codes, error lines, and commands loaded when needed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidewarp
from tidewarp.cli import COMMANDS, frame, group, main
from tidewarp.cli.problem import escape, explain
from tidewarp.cli.progress import ProgressBar
from tidewarp.cli.values import plain
from tidewarp.errors import (
    Corrupt,
    InternalError,
    MissingExtra,
    OperatorError,
    RuleViolation,
    UnknownPath,
)

SOURCE = str(Path(tidewarp.__file__).parents[1])
RULE = ("value 50", "at most 5", "raise max_cap first")


def single(body, *argv):
    """The exit code of one command with the given body, run in the frame."""

    @click.command()
    @click.option("--n", type=int)
    @frame.json_option
    def command(n, as_json):
        return body(as_json)

    return frame.run(command, list(argv))


def answering(document, code=0):
    def body(as_json):
        frame.emit(document, as_json, lambda shown: f"answer {shown}")
        return code

    return body


def raising(error):
    def body(as_json):
        raise error

    return body


def child(code, *, env=None, **options):
    """The finished child process that ran ``code``, which finds tidewarp and nothing of this one's settings."""
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, **(env or {})}
    return subprocess.run([sys.executable, "-c", code], env=variables, timeout=60, check=False, **options)


NAME = "Grün → 温度 😀"


def emit_name(*argv):
    """The code of a command that prints, and answers with a name of many scripts."""
    return f"""
import sys, click
from tidewarp.cli import frame
@click.command()
@frame.json_option
def command(as_json):
    print("a model may print")
    frame.emit({{"name": {NAME!a}}}, as_json, lambda d: d["name"])
raise SystemExit(frame.run(command, {list(argv)!r}))
"""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuleViolation(*RULE), 1),
        (UnknownPath(*RULE), 1),
        (OperatorError(*RULE), 2),
        (MissingExtra(*RULE), 3),
        (Corrupt(*RULE, seq=4), 1),
    ],
)
def test_error_is_one_line_and_its_exit_code(error, code, capsys):
    """Value, rule and action of any error of ours stand on one line; nothing is printed on stdout."""
    assert single(raising(error)) == code
    assert capsys.readouterr() == ("", "error: value 50: at most 5; raise max_cap first\n")


def test_json_error_is_one_object_beside_the_line(capsys):
    """With --json a failure gives stdout exactly one object, with the exit code that the process ends with."""
    assert single(raising(MissingExtra("kafka", "not installed", "pip install it")), "--json") == 3
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "error": {"value": "kafka", "rule": "not installed", "action": "pip install it"},
        "exit": 3,
    }
    assert err == "error: kafka: not installed; pip install it\n"


@pytest.mark.parametrize(
    "argv", [["--n", "x"], ["--frob"], ["surplus"], ["--n"]], ids=["type", "unknown option", "surplus", "no value"]
)
@pytest.mark.parametrize("json_flag", [[], ["--json"]], ids=["text", "json"])
def test_usage_error_is_bad_input(argv, json_flag, capsys):
    """A word that click refuses ends like any bad input: exit 2, one line, and the object where JSON was asked for."""
    assert single(answering({}), *json_flag, *argv) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: tidewarp: ")
    assert err.endswith("; see tidewarp --help\n")
    assert err.count("\n") == 1
    assert (json.loads(out)["exit"] == 2) if json_flag else (out == "")


def test_unknown_command_is_bad_input(capsys):
    """A command that the table lacks is named, with a pointer to the list."""
    assert main(["replya"]) == 2
    assert "replya" in capsys.readouterr().err


def test_json_after_double_dash_is_an_argument(capsys):
    """Behind ``--`` the word --json is a name, not the option."""
    assert single(answering({}), "--", "--json") == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("act", "action"),
    [
        (lambda folder: (folder / "no").read_text(), "check its name"),
        (lambda folder: folder.read_text(), "name a file"),
        (lambda folder: (folder / "f" / "g").read_text(), "name a folder"),
    ],
    ids=["missing", "folder", "file as folder"],
)
def test_file_trouble_is_bad_input(act, action, tmp_path, capsys):
    """An OSError names its path, the system's reason and what to do; exit 2."""
    (tmp_path / "f").write_text("x")
    assert single(lambda as_json: act(tmp_path)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {tmp_path}")
    assert err.endswith(f"; {action}\n")


@pytest.mark.parametrize("error", [ZeroDivisionError("x\ny"), OSError(5, "no path"), InternalError("a", "b", "c")])
def test_other_exception_is_ours_and_hides_its_traceback(error, capsys, monkeypatch):
    """A fault of ours is one line with exit 1; the traceback is for TIDEWARP_LOG=debug."""
    monkeypatch.delenv("TIDEWARP_LOG", raising=False)
    assert single(raising(error)) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: internal: ")
    assert err.count("\n") == 1
    monkeypatch.setenv("TIDEWARP_LOG", "debug")
    assert single(raising(error)) == 1
    assert capsys.readouterr().err.startswith("Traceback (most recent call last)")


@given(st.text(), st.text(), st.text())
def test_error_line_is_one_printable_line(value, rule, action):
    """Whatever a value holds (line ends, escape sequences, direction marks, surrogates), the line stays one line."""
    line = explain(OperatorError(value, rule, action)).line()
    assert line.isprintable()
    assert line.startswith("error: ")


def test_long_value_is_shortened():
    """A value of a hundred megabytes does not fill the terminal; its length is said."""
    line = explain(OperatorError("x" * 10_000_000, "too long", "shorten it")).line()
    assert len(line) < 300
    assert "(10000000 characters)" in line
    assert line.endswith(": too long; shorten it")


def test_escape_keeps_letters_of_all_scripts():
    """Only what cannot be seen, or moves the cursor, is escaped."""
    assert escape("Grün 温度") == "Grün 温度"
    assert escape("a\n\x1b[31m\u202eb") == "a\\n\\x1b[31m\\u202eb"


def test_answer_for_people_and_for_programs(capsys):
    """One document, two forms; the code that the command returns is the exit code in both."""
    document = {"ok": False, "path": Path("a/b"), "lag_s": float("nan"), "head": b"\x01\xff", "pairs": [(1, 2.5)]}
    assert single(answering(document, 1), "--json") == 1
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "path": "a/b",
        "lag_s": None,
        "head": "01ff",
        "pairs": [[1, 2.5]],
    }
    assert single(answering({"a": "x"}, 1)) == 1
    assert capsys.readouterr().out == "answer {'a': 'x'}\n"


def test_text_answer_cannot_move_the_cursor(capsys):
    """Escape sequences that a journal may hold reach the terminal as text; the answer's own line ends stay."""
    assert single(lambda as_json: frame.emit({"v": "\x1b[2J"}, as_json, lambda d: f"one\n{d['v']}\n")) == 0
    assert capsys.readouterr().out == "one\n\\x1b[2J\n"


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(json_like)
def test_any_document_is_strict_json(value):
    """What a document may hold becomes JSON that a strict reader takes, without NaN and without lone surrogates."""
    text = json.dumps(plain(value), allow_nan=False)
    json.loads(text)
    assert "\\ud8" not in json.dumps(plain("\ud800"), ensure_ascii=True).replace("\\\\", "")


def test_value_without_json_form_is_a_fault_of_ours():
    """A set has no order, so it has no form: the command that emits one is told."""
    with pytest.raises(InternalError, match="set"):
        plain({"a": {1}})


@pytest.mark.parametrize(
    "body",
    [
        lambda as_json: None,
        lambda as_json: [frame.emit({"first": 1}, as_json, str), frame.emit({"second": 2}, as_json, str)],
    ],
    ids=["no answer", "two answers"],
)
def test_json_command_answers_exactly_once(body, capsys):
    """A command that answers never, or twice, is a fault; stdout holds one object all the same."""
    assert single(body, "--json") == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    json.loads(out)
    assert err.startswith("error: internal: ")


def test_error_after_the_answer_adds_no_second_object(capsys):
    """What fails after the answer is an error line and an exit code; stdout keeps its one object."""

    def body(as_json):
        frame.emit({"first": 1}, as_json, str)
        raise OperatorError(*RULE)

    assert single(body, "--json") == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == {"first": 1}
    assert err.startswith("error: value 50")


def test_prints_of_a_model_do_not_reach_json(capsys):
    """With --json all other output goes to stderr; without, it stays where it is."""

    def body(as_json):
        print("a model may print")
        frame.emit({"a": 1}, as_json, lambda d: "answer")

    assert single(body, "--json") == 0
    assert capsys.readouterr() == ('{"a": 1}\n', "a model may print\n")
    assert single(body) == 0
    assert capsys.readouterr() == ("a model may print\nanswer\n", "")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interrupt_is_130_and_says_so(error, capsys):
    """An interrupt is no failure: the usual code, one word, and for programs an object that says it."""
    assert single(raising(error), "--json") == 130
    out, err = capsys.readouterr()
    assert json.loads(out) == {"interrupted": True, "exit": 130}
    assert err == "interrupted\n"


def test_model_that_ends_the_process_is_an_error(capsys):
    """sys.exit(0) in a model must not look like success."""
    assert single(raising(SystemExit(0)), "--json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["exit"] == 1
    assert err.startswith("error: SystemExit(0): ")


def test_broken_pipe_elsewhere_is_not_silent(capsys):
    """Only a closed stdout is quiet; the broken pipe of a child process or a server is an error."""
    assert single(raising(BrokenPipeError(32, "Broken pipe"))) == 1
    assert capsys.readouterr().err.startswith("error: internal: BrokenPipeError")


CLOSED_STDOUT = """
import os, sys
read, write = os.pipe()
os.close(read)
os.dup2(write, 1)
os.close(write)
"""


@pytest.mark.parametrize("arguments", [["--json"], ["--help"], []])
def test_closed_stdout_is_quiet(arguments):
    """``tidewarp … | head`` ends without a word on stderr, with the code of a program that SIGPIPE ended."""
    done = child(CLOSED_STDOUT + emit_name(*arguments), capture_output=True)
    assert done.returncode == 141
    assert done.stderr in (b"", b"a model may print\n")


def test_a_long_answer_to_a_closed_stdout_is_quiet():
    """One that the stream drops when it is refused, so that nothing is left to flush."""
    code = CLOSED_STDOUT + emit_name("--json").replace('{"name": ', '{"more": "x" * 20_000, "name": ')
    done = child(code, capture_output=True)
    assert (done.returncode, done.stderr) == (141, b"a model may print\n")


def test_full_stdout_is_an_error():
    """An answer that cannot be written is not given: one line, exit 2, no second complaint at the end."""
    if not os.path.exists("/dev/full"):
        pytest.skip("facility /dev/full is missing: use Linux")
    with open("/dev/full", "w") as full:
        done = child(emit_name("--json"), stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    assert lines[-1].startswith("error: standard output: No space left")
    assert len(lines) == 2  # and what the model printed


@pytest.mark.parametrize("missing", ["1", "2"])
def test_closed_descriptor_is_survived(missing):
    """A service manager that starts the command without stdout or stderr gets the exit code all the same."""
    shell = f'exec "{sys.executable}" -c "$CODE" {missing}>&-'
    variables = {**os.environ, "PYTHONPATH": SOURCE, "CODE": emit_name("--json")}
    done = subprocess.run(["sh", "-c", shell], env=variables, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


ASCII_ENV = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_answer_survives_the_c_locale():
    """Where stdout can say only ASCII, people see escapes and programs the same object as ever."""
    shown = child(emit_name(), env=ASCII_ENV, capture_output=True)
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[-1] == rb"Gr\xfcn \u2192 \u6e29\u5ea6 \U0001f600"
    answer = child(emit_name("--json"), env=ASCII_ENV, capture_output=True)
    assert json.loads(answer.stdout) == {"name": NAME}


def test_answer_survives_a_latin1_locale(latin1_env):
    """A German Latin-1 terminal gets its umlauts as such, the rest escaped; JSON is the same object as ever."""
    shown = child(emit_name(), env=latin1_env, capture_output=True)
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[-1] == b"Gr\xfcn " + rb"\u2192 \u6e29\u5ea6 \U0001f600"
    answer = child(emit_name("--json"), env=latin1_env, capture_output=True)
    assert json.loads(answer.stdout) == {"name": NAME}


def test_table_in_a_pipe_keeps_long_words():
    """A digest of 64 characters in a table is not broken by the width of a terminal that is not there."""
    from rich.table import Table

    table = Table("name", "digest")
    table.add_row("live", "0" * 64)
    stream = io.StringIO()
    assert "0" * 64 in frame._text(table, stream)


def test_commands_are_loaded_when_they_run():
    """The front door and the list of commands import no command, no plots and no terminal library."""
    code = """
import sys
from tidewarp.cli import main
assert main(["--help"]) == 0 and main([]) == 0 and main(["--version"]) == 0
print(sorted(m for m in sys.modules if m.startswith("tidewarp.cli.") or m in ("plotly", "rich", "numpy", "pandas")))
"""
    done = child(code, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].decode() == str(
        ["tidewarp.cli.frame", "tidewarp.cli.lazy", "tidewarp.cli.problem", "tidewarp.cli.values"]
    )


def test_help_lists_every_command_of_the_table(capsys):
    """The list of commands is the table, with its summaries."""
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name} " in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_keeps_the_frame(name, capsys):
    """Each command of the table exists, explains itself, takes --json and refuses an unknown option with exit 2."""
    context = click.Context(group)
    command = group.get_command(context, name)
    parts = command.list_commands(context) if isinstance(command, click.Group) else [""]
    assert parts
    for words in [[name, *filter(None, [part])] for part in parts]:
        assert main([*words, "--help"]) == 0
        assert "--json" in capsys.readouterr().out
        assert main([*words, "--json", "--no-such-option"]) == 2
        assert json.loads(capsys.readouterr().out)["exit"] == 2


def test_python_m_is_the_command():
    """``python -m tidewarp`` and ``tidewarp`` are one program, with its exit codes."""
    variables = {**os.environ, "PYTHONPATH": SOURCE}
    base = [sys.executable, "-m", "tidewarp"]
    shown = subprocess.run([*base, "--version"], env=variables, capture_output=True, timeout=60, check=True)
    assert shown.stdout.decode() == f"tidewarp {tidewarp.__version__}\n"
    refused = subprocess.run([*base, "nothing"], env=variables, capture_output=True, timeout=60, check=False)
    assert refused.returncode == 2


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_drawn_on_a_terminal_only():
    """A bar shows its label and share on a terminal, and nothing at all in a pipe or when quiet."""
    silent, quiet, terminal = io.StringIO(), Terminal(), Terminal()
    for stream, is_quiet in ((silent, False), (quiet, True), (terminal, False)):
        with ProgressBar("replaying", quiet=is_quiet, stream=stream) as bar:
            bar.progress(0, 100)
            bar.progress(50, 100)
            bar.progress(7, None)
            bar.add("inputs")
    assert silent.getvalue() == quiet.getvalue() == ""
    assert "replaying" in terminal.getvalue()
    assert "50%" in terminal.getvalue()


def test_progress_starts_no_thread():
    """A process that draws a bar may still fork: nothing but its one thread runs."""
    import threading

    with ProgressBar("replaying", stream=Terminal()) as bar:
        bar.progress(1, 2)
        assert threading.active_count() == 1


def test_progress_survives_a_closed_terminal():
    """A terminal that goes away in the middle of a run does not end the run."""
    stream = Terminal()
    with ProgressBar("replaying", stream=stream) as bar:
        bar.progress(1, 2)
        stream.close()
        bar.progress(2, 2)


def test_group_is_what_main_runs():
    """The documented table and click's own list agree."""
    assert group.list_commands(click.Context(group)) == list(COMMANDS)
