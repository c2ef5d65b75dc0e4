"""The page of a demo: one HTML file that needs nothing else, with plots by the plotly.js that the plotly wheel carries.

The page forbids itself, by its content security policy, to load anything from anywhere.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tidewarp.cli.figures import Figure, figures
from tidewarp.cli.history import Day, History, days
from tidewarp.cli.problem import escape
from tidewarp.cli.values import plain

__all__ = ["write_report"]

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --good: #57c26e; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .3rem; }
figure { margin: 0; }
.plot { height: 22rem; }
.tall { height: 30rem; }
.equal { color: var(--good); font-weight: 600; }
.different { color: var(--bad); font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top; }
.days { font-size: .85em; }
.days th, .days td { text-align: right; white-space: nowrap; }
code, pre { font: .8em/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .7rem; white-space: pre-wrap; }
dl { display: grid; gap: .1rem 1.5rem; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); }
dl div { border-bottom: 1px solid var(--line); display: flex; gap: 1rem; justify-content: space-between; }
dd { font-variant-numeric: tabular-nums; font-weight: 600; margin: 0; text-align: right; }
summary { cursor: pointer; padding: .4rem 0; }
"""
_SCRIPT = """
const plots = JSON.parse(document.getElementById("plots").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const touch = matchMedia("(pointer: coarse)").matches;
function draw() {
  const color = getComputedStyle(document.body).color;
  for (const { id, data, layout } of plots) {
    const font = { color, family: "system-ui, sans-serif", size: 13 };
    const dragmode = touch ? false : "zoom";  // a finger scrolls the page
    Plotly.react(id, data, { ...layout, font, dragmode }, { responsive: true, displayModeBar: false });
  }
}
draw();
dark.addEventListener("change", draw);
"""
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_COLUMNS = (
    "day", "lowest °F", "mean °F", "highest °F", "h slow", "h tripped", "h cold",
    "finished", "scrapped", "in progress", "median min", "90 % min",
)  # fmt: skip


def write_report(path: Path, document: Mapping[str, Any], history: History) -> None:
    """Write the page about ``document``, what the demo found, and ``history``, the recovered run, to ``path``."""
    from plotly.offline import get_plotlyjs  # a tenth of a second that no other command needs

    table = days(history)
    shown = figures(history, table, document["killed_at"])
    data = [{"id": one.name, "data": one.data, "layout": one.layout} for one in shown]
    page = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>tidewarp demo: killed, recovered, replayed</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
        *_head(document),
        *_made(document),
        *(_plot(one) for one in shown),
        *_day_table(table, history.epoch_ns),
        "</main>",
        f'<script type="application/json" id="plots">{_inside_script(data)}</script>',
        f"<script>{get_plotlyjs()}</script>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n",
    ]
    path.write_text("\n".join(page), encoding="utf-8")


def _text(value: object) -> str:
    """Data as text of the page."""
    return html.escape(escape(plain(str(value))))


def _inside_script(value: object) -> str:
    """JSON that cannot end the element that it stands in."""
    return json.dumps(plain(value), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _head(document: Mapping[str, Any]) -> Iterator[str]:
    is_equal = document["equal"] and document["outputs_equal"]
    verdict = "The three digests are equal." if is_equal else "The runs differ."
    yield "<h1>A factory line on real telemetry: killed, recovered, replayed</h1>"
    yield f'<p class="{"equal" if is_equal else "different"}">{verdict}</p>'
    rows = [
        ("undisturbed", "one process, from the first reading to the last", document["digest_live"]),
        ("recovered", "killed with SIGKILL half-way; a second process went on", document["digest_recovered"]),
        ("replayed", "from the recovered run's journal, without its source", document["digest_replayed"]),
    ]
    yield "<table><thead><tr><th>run</th><th>how, and its digest</th></tr></thead><tbody>"
    for name, how, digest in rows:
        yield f'<tr><th scope="row">{_text(name)}</th><td>{_text(how)}<br><code>{_text(digest)}</code></td></tr>'
    yield "</tbody></table>"
    killed, seconds = document["killed_at"], document["seconds"]
    facts = {
        "readings": f"{document['readings']:,}",
        "of these late": document["late"],
        "of these at a repeated time": document["repeated_times"],
        "days of virtual time": f"{document['virtual_days']:.1f}",
        "outputs": f"{document['outputs']:,}",
        "outputs of the two runs equal": "yes" if document["outputs_equal"] else "NO",
        "readings journaled at the kill": f"{killed['readings']:,}",
        "outputs sent at the kill": f"{killed['outputs']:,}",
        "parts in progress at the kill": killed["parts_in_progress"],
        "undisturbed run, seconds": f"{seconds['uninterrupted']:.1f}",
        "recovery and rest, seconds": f"{seconds['recovered']:.1f}",
        "replay, seconds": f"{seconds['replayed']:.1f}",
    }
    cells = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items())
    yield f"<h2>Figures</h2>\n<dl>{cells}</dl>"


def _made(document: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>How this was made</h2>"
    yield (
        "<p>The telemetry is real: the temperature of an industrial machine, a reading every five minutes. The factory "
        "line is a model: orders arrive at random, parts pass furnace, lathe and inspection, and the furnace slows, "
        "trips and stands still by the measured temperature. Every reading was checked, put in the order of its time "
        "and written to the journal before the model saw it; that is why a killed run can go on, and why a "
        "journal alone gives the same run again. A digest is the SHA-256 over all inputs, all outputs and the final state.</p>"
    )
    yield f"<p>Journal <code>{_text(document['journal'])}</code>, model <code>{_text(document['model'])}</code>, seed "
    yield f"{_text(document['seed'])}, head of the journal <code>{_text(document['head'])}</code>. Check it yourself:</p>"
    yield f"<pre>{chr(10).join(map(_text, document['next']))}</pre>"


def _plot(one: Figure) -> str:
    tall = " tall" if one.is_tall else ""
    return (
        f'<h2 id="{one.name}-title">{_text(one.title)}</h2>\n<figure>\n<figcaption>{_text(one.caption)}</figcaption>\n'
        f'<div class="plot{tall}" id="{one.name}" role="img" aria-label="{_text(one.alt)}"></div>\n</figure>'
    )


def _day_table(table: Sequence[Day], epoch_ns: int) -> Iterator[str]:
    yield "<h2>Day by day</h2>\n<p>The plots in figures. Parts in progress are those at the day's last hour.</p>"
    yield f"<details><summary>Show {len(table)} days</summary>"
    heads = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    yield f'<div class="wide"><table class="days"><thead><tr>{heads}</tr></thead><tbody>'
    first = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=epoch_ns // 1_000)
    for number, day in enumerate(table):
        cells = "".join(f"<td>{cell}</td>" for cell in _cells(day))
        yield f'<tr><th scope="row">{(first + timedelta(days=number)).date()}</th>{cells}</tr>'
    yield "</tbody></table></div></details>"


def _cells(day: Day) -> Iterator[str]:
    degf = day.degf
    yield from (f"{value:.1f}" for value in (min(degf), sum(degf) / len(degf), max(degf))) if degf else ("–",) * 3
    yield from (f"{day.hours.get(state, 0.0):.1f}" for state in ("slow", "tripped", "cold"))
    yield from map(str, (day.finished, day.scrapped, "–" if day.in_progress is None else day.in_progress))
    yield from (
        "–" if value is None else f"{value / 60:.0f}" for value in (day.made_quantile(0.5), day.made_quantile(0.9))
    )
