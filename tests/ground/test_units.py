"""Durations, seconds and instants: exact in, exact out, or refused with a reason."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.errors import CodecError, InternalError, OperatorError, TidewarpError
from tidewarp.units import TICK_MAX, TICKS_PER_SECOND, format_instant, in_seconds, parse_instant, ticks

INT64 = st.integers(-TICK_MAX - 1, TICK_MAX)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START_NS = 1386018900 * TICKS_PER_SECOND  # 2013-12-02 21:15:00 UTC


def assert_three_strings(error: TidewarpError) -> None:
    assert all(error.args)
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0, 0),
        (90, 90 * 10**9),
        (-3, -3 * 10**9),
        (0.25, 250_000_000),
        (-0.25, -250_000_000),
        (1e-9, 1),
        ("1ns", 1),
        ("2us", 2_000),
        ("3 ms", 3_000_000),
        ("0.25s", 250_000_000),
        ("-3s", -3 * 10**9),
        (".5s", 500_000_000),
        ("+4.s", 4 * 10**9),
        ("2min", 120 * 10**9),
        ("2.5 h", 9_000 * 10**9),
        ("8h", 28_800 * 10**9),
        ("1d", 86_400 * 10**9),
        (" 1 w ", 604_800 * 10**9),
        ("1e-05s", 10_000),
        ("1.5e3 ms", 1_500_000_000),
        ("0.1s", 100_000_000),
        ("-0.000000001s", -1),
        ("9223372036854775807ns", TICK_MAX),
        ("-9223372036854775808ns", -TICK_MAX - 1),
        (timedelta(days=-1, microseconds=1), -86_400 * 10**9 + 1_000),
        (timedelta(minutes=5), 300 * 10**9),
    ],
)
def test_a_duration_is_exact(duration, expected):
    """Numbers are seconds, text carries its unit, and neither loses a nanosecond."""
    assert ticks(duration) == expected
    assert type(ticks(duration)) is int


@pytest.mark.parametrize(
    "duration",
    [
        *(True, False, None, b"8h", 1j, [], float("nan"), float("inf"), float("-inf"), 1e10, -1e300, 10**10, -(10**10)),
        *(
            "",
            "8",
            "h",
            "8 hours",
            "1 week",
            "8H",
            "8 h h",
            "1,5s",
            "1_0s",
            "1/3s",
            "--3s",
            "nan s",
            "inf s",
            "٣s",
            "0x1s",
        ),
        *("0.5ns", "0.0000000001s", "1e-10s", "9223372036854775808ns", "1e99w", "1e999s", "1" * 100 + "s"),
        pytest.param(10**5000, id="huge"),
        *(timedelta.max, ".s", "e5s"),
    ],
)
def test_a_bad_duration_names_value_rule_and_action(duration):
    """Everything else is the operator's error, whatever its size or type."""
    with pytest.raises(OperatorError) as caught:
        ticks(duration)
    assert_three_strings(caught.value)


@given(st.integers(-(2**23) * 10**9, 2**23 * 10**9))
def test_seconds_and_ticks_are_inverse_up_to_97_days(tick):
    """Splitting whole seconds off keeps every nanosecond up to 2**23 s."""
    assert ticks(in_seconds(tick)) == tick


def test_97_days_are_exact_where_the_short_formula_is_not():
    """The reason for the split: the product in one float is wrong for a part of the times before 2**23 s."""
    rng = random.Random(9)
    times = [rng.randrange(2**22 * 10**9, 2**23 * 10**9) for _ in range(20_000)]
    assert all(ticks(in_seconds(tick)) == tick for tick in times)
    assert sum(round(in_seconds(tick) * 1e9) != tick for tick in times) > 100


@given(st.floats(-9.2e9, 9.2e9), st.floats(-9.2e9, 9.2e9))
def test_floats_keep_their_order(a, b):
    """A later float is never an earlier tick, at any distance from the epoch."""
    assert (ticks(a) <= ticks(b)) or a > b


@given(st.decimals(-1000, 1000, places=12), st.sampled_from(["ns", "us", "ms", "s", "min", "h", "d", "w"]))
def test_text_is_exact_or_refused(number, unit):
    """Text converts as the rational number that it spells; what is not whole ns is refused, never rounded."""
    factor = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}.get(unit) or {
        "min": 60, "h": 3_600, "d": 86_400, "w": 604_800
    }[unit] * 10**9  # fmt: skip
    exact = Fraction(number) * factor
    text = f"{number:f}{unit}"
    if exact.denominator == 1:
        assert ticks(text) == exact
    else:
        with pytest.raises(OperatorError, match="whole nanoseconds"):
            ticks(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2013-12-02 21:15:00", START_NS),
        ("2013-12-02T21:15:00", START_NS),
        ("2013-12-02T21:15", START_NS),
        ("2013-12-02T21:15:00Z", START_NS),
        ("2013-12-02T22:15:00+01:00", START_NS),
        ("2013-12-02T15:45:00-0530", START_NS),
        ("2013-12-02T22:15:00+01", START_NS),
        ("2013-12-02 21:15:00.000000001", START_NS + 1),
        ("2013-12-02 21:15:00,123456789Z", START_NS + 123_456_789),
        ("2013-12-02 21:15:00.5+00:00", START_NS + 500_000_000),
        ("2000-02-29", 951_782_400 * 10**9),
        ("1386018900", START_NS),
        ("1386018900.000000001", START_NS + 1),
        ("1.3860189e9", START_NS),
        ("-0.5", -500_000_000),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2000-02-29 00:00:00", 951_782_400 * 10**9),
        ("2262-04-11T23:47:16.854775807Z", TICK_MAX),
        ("1677-09-21T00:12:43.145224192Z", -TICK_MAX - 1),
        ("2262-04-11 23:47:16", TICK_MAX - 854_775_807),
    ],
)
def test_an_instant_is_exact(text, expected):
    """ISO 8601 with up to nine digits, or Unix seconds, to the nanosecond."""
    assert parse_instant(text, UTC) == expected


def test_a_date_alone_is_its_midnight_in_the_zone():
    """As a date-time without an offset is: local."""
    midnight = parse_instant("2024-07-01 00:00:00", ZoneInfo("Europe/Berlin"))
    assert parse_instant("2024-07-01", ZoneInfo("Europe/Berlin")) == midnight
    assert parse_instant("2024-07-01", UTC) == midnight + 2 * 3_600 * 10**9


def test_milliseconds_are_told_from_seconds():
    """The commonest mistake of a file with numbers is named."""
    with pytest.raises(CodecError, match="not in milliseconds"):
        parse_instant("1386018900000", UTC)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "now",
            "nan",
            "inf",
            "2013-12-02Z",
            "2013-12",
            "21:15:00",
            "2013-12-02x21:15:00",
            "2013-12-02  21:15:00",
            "13-12-02 21:15:00",
        ),
        *("2013-02-29 21:15:00", "2013-13-02 21:15:00", "2013-12-00 21:15:00", "0000-01-01 00:00:00"),
        *(
            "2013-12-02 24:00:00",
            "2013-12-02 21:60:00",
            "2013-12-02 21:15:60",
            "2013-12-02 2a:15:00",
            "2013-12-02 +1:15:00",
        ),
        *(
            "2013-12-02 21:15:00.1234567890",
            "2013-12-02 21:15:00.",
            "2013-12-02T21:15:00+25:00",
            "2013-12-02T21:15:00+1",
        ),
        *(
            " 2013-12-02 21:15:00",
            "2013-12-02 21:15:00\n",
            "２013-12-02 21:15:00",
            "2013-W49-1T21:15:00",
            "1386018900\n",
        ),
        *(
            "1.0000000001",
            "1e10",
            "9223372036.854775808",
            "1677-09-21 00:12:43",
            "2262-04-11 23:47:17",
            "2263-01-01 00:00:00",
        ),
        *("9999-12-31 23:59:59", "0001-01-01 00:00:00", "1" * 5000, "2013-12-02 21:15:00" + "0" * 5000, "1_0", "1e99"),
    ],
)
def test_a_bad_instant_is_the_senders_error(text):
    """Outside data that names no moment is refused in few words, also in a zone of its own, never guessed."""
    for zone in (UTC, ZoneInfo("America/New_York"), timezone(timedelta(0), "also UTC")):
        if text in ("1677-09-21 00:12:43", "2262-04-11 23:47:17") and zone is not UTC:
            continue
        with pytest.raises(CodecError) as caught:
            parse_instant(text, zone)
        assert_three_strings(caught.value)


def test_a_naive_time_is_read_in_the_zone_that_the_caller_names():
    """Summer and winter offsets apply; an offset in the text wins; a doubled hour is its first, a skipped one goes on."""
    berlin = ZoneInfo("Europe/Berlin")

    def utc(text: str) -> str:
        return format_instant(parse_instant(text, berlin))

    assert utc("2013-12-02 21:15:00") == "2013-12-02T20:15:00.000+00:00"
    assert utc("2013-07-02 21:15:00") == "2013-07-02T19:15:00.000+00:00"
    assert utc("2013-07-02 21:15:00Z") == "2013-07-02T21:15:00.000+00:00"
    assert utc("2013-10-27 02:30:00") == "2013-10-27T00:30:00.000+00:00"
    assert utc("2013-03-31 02:30:00") == "2013-03-31T01:30:00.000+00:00"
    assert parse_instant("2013-12-02 21:15:00", timezone(-timedelta(hours=3))) == START_NS + 3 * 3_600 * 10**9


class Nowhere(tzinfo):
    """A zone without offsets."""

    def utcoffset(self, _when):
        return None


def test_a_zone_without_offset_is_the_operators_error():
    """Such a zone cannot place a naive time; a time with its own offset does not ask it."""
    with pytest.raises(OperatorError, match="offset"):
        parse_instant("2013-12-02 21:15:00", Nowhere())
    assert parse_instant("2013-12-02 21:15:00Z", Nowhere()) == START_NS


@given(
    st.datetimes(datetime(1840, 1, 1), datetime(2100, 1, 1)).map(lambda t: t.replace(fold=0)),  # noqa: DTZ001
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "America/New_York"]),
)
def test_local_times_agree_with_datetime(local, name):
    """Offsets with seconds, half-hour steps and changes inside an hour come out as the zone says, cached or not."""
    zone = ZoneInfo(name)
    expected = (local.replace(tzinfo=zone).astimezone(UTC) - EPOCH) // timedelta(microseconds=1) * 1_000
    assert parse_instant(local.isoformat(), zone) == expected
    whole_s = expected - local.microsecond * 1_000
    assert parse_instant(local.replace(microsecond=0).isoformat(sep=" "), zone) == whole_s


def test_a_change_inside_an_hour_is_not_smoothed():
    """Kathmandu's clocks went from 00:00 to 00:15 in 1986: minutes of one local hour have two offsets."""
    zone = ZoneInfo("Asia/Kathmandu")
    before, after = (parse_instant(f"1986-01-01 00:{minute}:00", zone) for minute in ("14", "16"))
    assert format_instant(before) == "1985-12-31T18:44:00.000+00:00"
    assert format_instant(after) == "1985-12-31T18:31:00.000+00:00"


@given(INT64, st.integers(-1439, 1439), st.booleans())
def test_every_instant_survives_text(ns, east_min, as_number):
    """Any int64 of Unix ns, spelled in any offset or as a number, is read back as it was."""
    if as_number:
        text = f"{'-' if ns < 0 else ''}{abs(ns) // 10**9}.{abs(ns) % 10**9:09d}"
    else:
        local = EPOCH + timedelta(seconds=ns // 10**9, minutes=east_min)
        sign, east = "-" if east_min < 0 else "+", abs(east_min)
        text = f"{local:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}{sign}{east // 60:02d}:{east % 60:02d}"
    assert parse_instant(text, UTC) == ns


@given(st.datetimes(datetime(1678, 1, 1), datetime(2261, 12, 31)).map(lambda t: t.replace(microsecond=0)))  # noqa: DTZ001
def test_the_short_way_and_the_long_way_agree(local):
    """The cached form of a common row gives what the general grammar gives, and what datetime gives."""
    expected = (local.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1) * 1_000
    text = local.isoformat(sep=" ")
    assert parse_instant(text, UTC) == parse_instant(text + "Z", UTC) == expected
    assert parse_instant(text, timezone(timedelta(0), "not UTC itself")) == expected


def test_tz_of_the_host_has_no_influence(monkeypatch):
    """Neither reading nor writing an instant looks at TZ."""
    try:
        for zone in ("UTC", "Asia/Kathmandu", "America/St_Johns"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert parse_instant("2013-12-02 21:15:00", UTC) == START_NS
            assert parse_instant("2013-12-02 22:15:00", ZoneInfo("Europe/Berlin")) == START_NS
            assert format_instant(START_NS) == "2013-12-02T21:15:00.000+00:00"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000+00:00"),
        (-1, "1969-12-31T23:59:59.999+00:00"),
        (999_999, "1970-01-01T00:00:00.000+00:00"),
        (TICK_MAX, "2262-04-11T23:47:16.854+00:00"),
        (-TICK_MAX - 1, "1677-09-21T00:12:43.145+00:00"),
    ],
)
def test_an_instant_is_shown_in_utc_floored_to_milliseconds(ns, text):
    """A shown moment is never later than the moment, before 1970 too."""
    assert format_instant(ns) == text


def test_an_instant_beyond_int64_is_not_shown():
    """No caller of ours holds such a number."""
    with pytest.raises(InternalError):
        format_instant(TICK_MAX + 1)
