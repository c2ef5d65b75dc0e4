"""The plots of a run of the factory line, as data for plotly.js. Colours are legible on light and on dark ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidewarp.cli.history import DAY_S, Day, History

__all__ = ["Figure", "figures"]

_BLUE, _ORANGE, _RED, _TEAL, _GREY = "#3b8fd9", "#d98b00", "#e0483e", "#14a08c", "#888888"
_MINUTES = [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000]
_STATES = (("slow", _ORANGE), ("tripped", _RED), ("cold", _BLUE))


@dataclass(frozen=True)
class Figure:
    """One plot: its traces and layout, and what is said about it. ``alt`` stands in its place for a screen reader."""

    name: str
    title: str
    caption: str
    alt: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    is_tall: bool = False


class _Calendar:
    """Virtual seconds as plotly's dates, ms since 1970, and the kill on that axis."""

    def __init__(self, epoch_ns: int, killed_s: float, end_s: float) -> None:
        self._epoch_ms = epoch_ns // 10**6
        self.killed_ms = self.ms(killed_s)
        self._range = [self._epoch_ms, self.ms(end_s)]

    def ms(self, at_s: float) -> int:
        return self._epoch_ms + round(at_s * 1_000)

    def noon(self, day: int) -> int:
        return self.ms((day + 0.5) * DAY_S)

    def layout(self, y: str, **more: Any) -> dict[str, Any]:
        """The layout that all plots over time share, with the moment of the kill."""
        clear = "rgba(0,0,0,0)"
        line = {"type": "line", "x0": self.killed_ms, "x1": self.killed_ms, "yref": "paper", "y0": 0, "y1": 1}
        note = {
            "x": self.killed_ms,
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "text": "SIGKILL",
            "showarrow": False,
        }
        return {
            "paper_bgcolor": clear,
            "plot_bgcolor": clear,
            "margin": {"l": 56, "r": 12, "t": 24, "b": 36},
            "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.06, "x": 0},
            "xaxis": {"type": "date", "gridcolor": "#8883", "linecolor": _GREY, "range": self._range},
            "yaxis": _axis(y),
            "shapes": [{**line, "line": {"color": _RED, "width": 1.5, "dash": "dash"}}],
            "annotations": [{**note, "font": {"color": _RED}}],
            **more,
        }


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, "gridcolor": "#8883", "zeroline": False, "automargin": True, **more}


def figures(history: History, table: Sequence[Day], killed_at: Mapping[str, Any]) -> list[Figure]:
    """All plots, in the order of the page. ``table`` is the history by day."""
    calendar = _Calendar(history.epoch_ns, killed_at["virtual_time_s"], history.end_s)
    return [
        _temperature(history, calendar),
        _in_progress(history, calendar),
        _made_per_day(table, calendar),
        _time_to_make(table, calendar),
    ]


def _temperature(history: History, calendar: _Calendar) -> Figure:
    degf = [round(value, 2) for _, value in history.readings]
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "temperature",
            "x": [calendar.ms(tick / 1e9) for tick, _ in history.readings],
            "y": degf,
            "line": {"color": _TEAL, "width": 1},
            "showlegend": False,
        }
    ]
    counts = dict.fromkeys((name for name, _ in _STATES), 0)
    for name, color in _STATES:
        x: list[int | None] = []
        for state, begin_s, end_s in history.spells():
            if state == name:
                x += [calendar.ms(begin_s), calendar.ms(end_s), None]
        counts[name] = len(x) // 3
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": x,
                "y": [None if at is None else name for at in x],
                "yaxis": "y2",
                "line": {"color": color, "width": 12},
                "marker": {"symbol": "line-ns-open", "color": color, "size": 11, "line": {"width": 1}},
                "connectgaps": False,
                "showlegend": False,
                "hoverinfo": "x+name",
            }
        )
    states = {
        "title": {"text": ""},
        "type": "category",
        "categoryorder": "array",
        "categoryarray": [name for name, _ in reversed(_STATES)],
        "range": [-0.6, 2.6],
        "domain": [0, 0.2],
        "gridcolor": "#8883",
        "automargin": True,
        "fixedrange": True,
    }
    spells = ", ".join(f"{count} times {name}" for name, count in counts.items())
    return Figure(
        "temperature",
        "Measured temperature and what it did to the furnace",
        f"All {len(degf):,} readings as the model took them, in the order of their times, rounded to 0.01 °F. "
        "Below: when the furnace was slow (above 95 °F), tripped (above 105 °F, until the repair is done) or cold (below 50 °F).",
        f"Line of {len(degf)} temperatures from {min(degf):.1f} to {max(degf):.1f} °F. The furnace was {spells}.",
        data,
        calendar.layout("°F", yaxis=_axis("°F", domain=[0.27, 1]), yaxis2=states, hovermode="closest"),
        is_tall=True,
    )


def _in_progress(history: History, calendar: _Calendar) -> Figure:
    x = [calendar.ms(at_s) for at_s, _ in history.samples]
    lines = (
        ("in_progress", "in progress", _TEAL),
        ("furnace_queue", "waiting for the furnace", _ORANGE),
        ("lathe_queue", "waiting for the lathe", _BLUE),
    )
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": x,
            "y": [sample[key] for _, sample in history.samples],
            "line": {"color": color, "width": 1.3, "shape": "hv"},
        }
        for key, name, color in lines
    ]
    highest = max((sample["in_progress"] for _, sample in history.samples), default=0)
    return Figure(
        "progress",
        "Work in progress and queues",
        "Parts on the line, and those of them that wait, at every hour. Queues grow while the furnace is slow or stands, and are "
        "worked off afterwards. What was in progress at the kill came back from the journal: the curves go on at the dashed line.",
        f"Three lines of hourly counts; the most parts in progress are {highest}.",
        data,
        calendar.layout("parts", hovermode="x unified", yaxis=_axis("parts", rangemode="tozero")),
    )


def _made_per_day(table: Sequence[Day], calendar: _Calendar) -> Figure:
    x = [calendar.noon(number) for number in range(len(table))]
    bars = (("finished", [day.finished for day in table], _TEAL), ("scrapped", [day.scrapped for day in table], _RED))
    data = [
        {"type": "bar", "name": name, "x": x, "y": y, "marker": {"color": color}, "width": 0.85 * DAY_S * 1_000}
        for name, y, color in bars
    ]
    finished, scrapped = (sum(y) for _, y, _ in bars)
    return Figure(
        "days",
        "Parts per day",
        f"{finished:,} parts were finished and {scrapped:,} scrapped after a second fault. Days are of UTC; the last is cut where the telemetry ends.",
        f"Bars of {len(table)} days; in all {finished} parts finished and {scrapped} scrapped.",
        data,
        calendar.layout("parts", barmode="stack", hovermode="x unified"),
    )


def _time_to_make(table: Sequence[Day], calendar: _Calendar) -> Figure:
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": [calendar.noon(number) for number in range(len(table))],
            "y": [None if value is None else round(value / 60, 1) for value in (day.made_quantile(q) for day in table)],
            "line": {"color": color, "width": 1.5},
            "marker": {"size": 4},
        }
        for q, name, color in ((0.5, "half of the parts", _TEAL), (0.9, "nine in ten", _ORANGE))
    ]
    made = sorted(made_s for day in table for made_s in day.made_s)
    half, most = made[len(made) // 2] / 60, made[-1] / 60
    return Figure(
        "made",
        "Time to make a part",
        "From order to finish, by the day of finish: half of the parts, and nine in ten, took no longer. The scale is logarithmic. "
        f"Over all parts the median is {half:.0f} minutes, the longest {most / 60:,.1f} hours.",
        f"Two lines over {len(table)} days; overall median {half:.0f} minutes, longest {most:.0f} minutes.",
        data,
        calendar.layout("minutes", yaxis=_axis("minutes", type="log", tickvals=_MINUTES), hovermode="x unified"),
    )
