"""Random streams and the exact functions: the same bits on every machine, and the right distributions."""

from __future__ import annotations

import hashlib
import math
import random
import statistics
from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp import seeds
from tidewarp.errors import ModelError, OperatorError
from tidewarp.seeds import Stream, exact_exp, exact_log, mix64, stream_key

PATH = "Line_A.service.milling"
U64 = st.integers(0, 2**64 - 1)


class FixedWord(Stream):
    """A stream whose every word is the same: shows what the ends of the range become."""

    __slots__ = ("word",)

    def __init__(self, word: int) -> None:
        super().__init__(0, "fixed")
        self.word = word

    def bits(self) -> int:
        self.count += 1
        return self.word


def ulps_apart(a: float, b: float) -> int:
    """How many floats lie between two finite floats of one sign, counted in steps."""
    return round(abs(a - b) / math.ulp(min(abs(a), abs(b))))


# --- streams --------------------------------------------------------------------------------------


def test_mix64_is_the_published_splitmix64():
    """The first outputs for seeds 0 and 1234567 are those that other implementations publish."""
    golden = 0x9E3779B97F4A7C15
    assert mix64(golden) == 0xE220A8397B1DCDAF
    assert [mix64(1234567 + i * golden) for i in (1, 2, 3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@given(st.integers())
def test_mix64_looks_at_the_low_64_bits(x):
    """Any int is taken modulo 2**64, and the result fits there."""
    assert mix64(x) == mix64(x % 2**64) < 2**64


def test_the_key_is_the_written_byte_form():
    """SHA-256 over label, seed and path with their lengths, spelled out byte by byte."""
    digest = hashlib.sha256(
        b"\x00\x07TWSEED1"
        b"\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x2a"
        b"\x00\x00\x00\x00\x00\x00\x00\x16Line_A.service.milling"
    ).digest()
    key, gamma = stream_key(42, PATH)
    assert key == int.from_bytes(digest[:8], "big") == 10868733971973554707
    assert gamma == int.from_bytes(digest[8:16], "big") | 1 == 17695040067677775957


@given(U64, st.text(max_size=20))
def test_gamma_is_odd_and_irregular(seed, path):
    """An odd gamma visits every word once; one with few bit changes would make neighbours alike."""
    key, gamma = stream_key(seed, path)
    assert 0 <= key < 2**64
    assert gamma % 2 == 1
    assert 0 < gamma < 2**64
    assert (gamma ^ gamma >> 1).bit_count() >= 24


def test_a_regular_gamma_is_mended():
    """A name whose gamma has 23 bit changes or fewer (found by search) gets it XORed with 1010…"""
    path = next(p for p in map(str, range(10_000)) if (raw_gamma(p) ^ raw_gamma(p) >> 1).bit_count() < 24)
    assert stream_key(0, path)[1] == raw_gamma(path) ^ 0xAAAA_AAAA_AAAA_AAAA


def raw_gamma(path: str) -> int:
    name = path.encode()
    data = b"\x00\x07TWSEED1" + (8).to_bytes(8, "big") + bytes(8) + len(name).to_bytes(8, "big") + name
    return int.from_bytes(hashlib.sha256(data).digest()[8:16], "big") | 1


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_is_a_u64(seed):
    """A seed from the command line that does not fit is the operator's error."""
    with pytest.raises(OperatorError, match="seed"):
        Stream(seed, PATH)


def test_a_name_without_utf8_is_refused():
    """A lone surrogate has no bytes to hash."""
    with pytest.raises(ModelError):
        Stream(1, "\ud800")


def test_golden_stream():
    """These values are in journals: another machine, Python or edit that changes one bit shows here."""
    stream = Stream(42, PATH)

    def three(draw) -> list[str]:
        stream.count = 0
        return [draw().hex() for _ in range(3)]

    assert [stream.bits() for _ in range(3)] == [0xD22AE707943FACDD, 0x83588DBE91612AA6, 0xB010F8841872F04B]
    assert stream.count == 3
    assert three(stream.random) == ["0x1.a455ce0f287f5p-1", "0x1.06b11b7d22c25p-1", "0x1.6021f10830e5ep-1"]
    assert three(stream.normal) == ["0x1.d68ea60e0948ap-1", "0x1.0c6e44fbc31acp-5", "0x1.f54195b01592bp-2"]
    assert three(lambda: stream.exponential(200.0)) == [
        "0x1.580984c9e0231p+8",
        "0x1.1fda9bb522e9fp+7",
        "0x1.d197882c7aec1p+7",
    ]
    assert three(lambda: stream.lognormal(300.0, 60.0)) == [
        "0x1.60e65a32d3b7cp+8",
        "0x1.2816e33659945p+8",
        "0x1.441ed910f0effp+8",
    ]


@given(
    U64,
    st.integers(0, 50),
    st.lists(st.sampled_from(["bits", "random", "normal", "below", "exponential", "lognormal"])),
)
def test_count_is_the_whole_state(seed, skipped, calls):
    """Putting ``count`` back, in this stream or in a new one, repeats every draw."""
    arguments = {"below": (10,), "exponential": (3.0,), "lognormal": (3.0, 1.0)}
    stream, other = Stream(seed, "a"), Stream(seed, "a")
    for _ in range(skipped):
        stream.bits()

    def draws(source: Stream) -> list[float]:
        return [getattr(source, call)(*arguments.get(call, ())) for call in calls]

    start = other.count = stream.count
    first = draws(stream)
    stream.count = start
    assert draws(stream) == first == draws(other)


@pytest.mark.parametrize("method", ["bits", "random", "normal", "exponential", "lognormal"])
def test_one_draw_is_one_word(method):
    """Every draw but ``below`` moves the counter by exactly one, so branches stay comparable draw by draw."""
    stream = Stream(7, PATH)
    arguments = {"exponential": (3.0,), "lognormal": (3.0, 1.0)}.get(method, ())
    for n in range(100):
        assert stream.count == n
        getattr(stream, method)(*arguments)


def test_names_and_seeds_make_different_streams():
    """Another name, or another seed, shares no word among the first thousand."""
    words = [Stream(seed, path) for seed in (0, 1) for path in ("a", "b", "a.b")]
    assert len({stream.bits() for stream in words for _ in range(1000)}) == 6000


def test_uniform_ends():
    """The lowest word gives 0, the highest the float below 1."""
    assert FixedWord(0).random() == 0.0
    assert FixedWord(2**64 - 1).random() == math.nextafter(1.0, 0.0)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 2**32 + 1, 2**63 + 1, 2**64])
def test_below_stays_below(n):
    """Every bound up to 2**64 works, and masks so tightly that at least half of the words count."""
    stream = Stream(3, "below")
    assert all(0 <= stream.below(n) < n for _ in range(200))
    assert stream.count < 200 * 3


@pytest.mark.parametrize("bits", [0, 1, 8, 63, 64])
def test_below_a_power_of_two_rejects_nothing(bits):
    """The mask is the tightest one: such a bound takes the low bits of exactly one word."""
    stream, words = Stream(3, "below"), Stream(3, "below")
    for _ in range(50):
        assert stream.below(2**bits) == words.bits() % 2**bits
    assert stream.count == 50


def test_below_is_unbiased():
    """Each of 6 faces comes up a sixth of the time (chi square, 5 degrees of freedom, p > 1e-6)."""
    stream = Stream(5, "dice")
    counts = [0] * 6
    for _ in range(60_000):
        counts[stream.below(6)] += 1
    assert sum((count - 10_000) ** 2 / 10_000 for count in counts) < 36


@pytest.mark.parametrize("n", [0, -1, 2**64 + 1])
def test_a_bad_bound_is_the_models_error(n):
    """There is no number below 0 or 1 to draw, and no word above 64 bits."""
    stream = Stream(3, "below")
    with pytest.raises(ModelError):
        stream.below(n)
    assert stream.count == 0


@pytest.mark.parametrize("mean", [0.0, -0.0, -1.0, math.nan, math.inf, 2e290, 10**400])
def test_a_bad_mean_is_the_models_error(mean):
    """NaN, zero and negative means are refused where they are used: never an arrival flood."""
    stream = Stream(3, PATH)
    for draw in (lambda: stream.exponential(mean), lambda: stream.lognormal(mean, 1.0)):
        with pytest.raises(ModelError, match="mean"):
            draw()
    assert stream.count == 0


@pytest.mark.parametrize(
    ("mean", "std"), [(1.0, -1e-300), (1e290, -5e-324), (1.0, math.nan), (1.0, math.inf), (1.0, 2e150)]
)
def test_a_bad_std_is_the_models_error(mean, std):
    """A negative or meaningless spread is refused, also where its ratio to the mean would round to zero."""
    stream = Stream(3, PATH)
    with pytest.raises(ModelError, match="std"):
        stream.lognormal(mean, std)
    assert stream.count == 0


@pytest.mark.parametrize("mean", [5e-324, 1.0, 1e290])
@pytest.mark.parametrize("ratio", [0.0, 1e-300, 1e-9, 1.0, 1e150])
@pytest.mark.parametrize("word", [0, 1 << 11, 2**63, 2**64 - 1])
def test_draws_are_finite_at_every_corner(mean, ratio, word):
    """No legal parameter and no word makes a draw infinite, negative or NaN."""
    std = min(ratio * mean, 1e300)
    for draw in (FixedWord(word).exponential(mean), FixedWord(word).lognormal(mean, std)):
        assert 0.0 <= draw < math.inf
        assert math.copysign(1.0, draw) == 1.0


def test_exponential_matches_its_inverse():
    """Each draw is -mean log(1 - u) of its own uniform."""
    stream = Stream(8, PATH)
    for n in range(2000):
        stream.count = n
        u = stream.random()
        stream.count = n
        assert stream.exponential(200.0) == pytest.approx(-200.0 * math.log1p(-u), rel=1e-14)


def test_normal_matches_the_standard_library():
    """AS 241 over all three of its ranges, against an implementation that is not ours, for 2**53 cells."""
    reference = statistics.NormalDist()
    rng = random.Random(4)
    cells = [0, 1, 5, 2**52 - 1, *(rng.getrandbits(rng.randint(1, 52)) for _ in range(20_000))]
    for cell in cells:
        u = (2 * cell + 1) * 2.0**-54  # below 1/2: exact
        assert FixedWord(cell << 11).normal() == pytest.approx(reference.inv_cdf(u), rel=2e-14, abs=1e-300)


@given(st.integers(0, 2**52 - 1))
def test_normal_is_symmetric_and_finite(cell):
    """A word and its complement give opposite values; none is 0 or beyond 8.3."""
    z = FixedWord(cell << 11).normal()
    assert FixedWord((2**53 - 1 - cell) << 11).normal() == -z
    assert 0.0 < -z < 8.3


@given(st.integers(0, 2**53 - 2))
def test_normal_rises_with_its_uniform(cell):
    """Inversion: a greater word is never a smaller value, across the borders of the three ranges too."""
    assert FixedWord(cell << 11).normal() <= FixedWord((cell + 1) << 11).normal() + 1e-15


def test_lognormal_has_the_mean_and_std_of_the_value():
    """The parameters are those of the value and not of its logarithm (100,000 draws, about five standard errors)."""
    stream = Stream(6, PATH)
    values = [stream.lognormal(300.0, 60.0) for _ in range(100_000)]
    assert statistics.fmean(values) == pytest.approx(300.0, abs=1.0)
    assert statistics.stdev(values) == pytest.approx(60.0, abs=1.0)
    logs = [math.log(value) for value in values]
    assert statistics.stdev(logs) == pytest.approx(math.sqrt(math.log1p(0.04)), rel=0.015)


def test_lognormal_without_spread_is_its_mean():
    """std 0 is a constant, and still draws its word."""
    stream = Stream(6, PATH)
    assert stream.lognormal(300.0, 0.0) == 300.0
    assert stream.count == 1


def test_lognormal_keeps_a_small_spread():
    """1 + 1e-20 rounds to 1, yet a relative spread of 1e-10 is in the draws."""
    stream = Stream(6, PATH)
    values = [stream.lognormal(1.0, 1e-10) for _ in range(2000)]
    assert statistics.stdev(values) == pytest.approx(1e-10, rel=0.1)


# --- exact functions ------------------------------------------------------------------------------


@given(st.floats(min_value=5e-324, max_value=1.7976931348623157e308, allow_nan=False))
def test_log_is_within_one_ulp_of_libm(x):
    """Over every float above 0, subnormals included, and exactly 0 only for 1."""
    expected = math.log(x)
    assert exact_log(x) == expected or ulps_apart(exact_log(x), expected) <= 1


@given(st.floats(-745.5, 709.782712893384))
def test_exp_is_within_one_ulp_of_libm(x):
    """Over every exponent whose result is a float, subnormal results included."""
    expected = math.exp(x)
    assert exact_exp(x) == expected or ulps_apart(exact_exp(x), expected) <= 1


def test_both_are_within_one_ulp_of_libm_everywhere():
    """Sixty thousand logarithmically spread arguments each, and the neighbourhood of every branch."""
    rng = random.Random(2)
    for _ in range(30_000):
        for x in (math.ldexp(rng.uniform(0.5, 1.0), rng.randint(-1073, 1024)), rng.uniform(0.5, 2.0)):
            assert exact_log(x) == math.log(x) or ulps_apart(exact_log(x), math.log(x)) <= 1, x.hex()
        for x in (rng.uniform(-745.2, 709.78), rng.choice((-1, 1)) * math.ldexp(rng.random(), rng.randint(-40, 3))):
            assert exact_exp(x) == math.exp(x) or ulps_apart(exact_exp(x), math.exp(x)) <= 1, x.hex()


def test_both_are_less_than_one_ulp_from_the_truth():
    """The method's own bound, against 50 decimal digits instead of another libm."""
    rng = random.Random(3)
    with localcontext() as context:
        context.prec = 50
        for _ in range(2000):
            x, y = rng.uniform(0.25, 4.0), rng.uniform(-20.0, 20.0)
            log, exp = Decimal(x).ln(), Decimal(y).exp()
            assert abs(Decimal(exact_log(x)) - log) < Decimal(math.ulp(float(log)))
            assert abs(Decimal(exact_exp(y)) - exp) < Decimal(math.ulp(float(exp)))


LOGS = {
    5e-324: "-0x1.74385446d71c3p+9",
    1e-310: "-0x1.64e69394d9508p+9",
    0.1: "-0x1.26bb1bbb55515p+1",
    0.7071067811865475: "-0x1.62e42fefa39f1p-2",
    0.7071067811865476: "-0x1.62e42fefa39eep-2",
    0.9999999: "-0x1.ad7f2b1049b9fp-24",
    1.0: "0x0.0p+0",
    1.0000001: "0x1.ad7f2847b6492p-24",
    1.4142135623730951: "0x1.62e42fefa39f0p-2",
    3.0: "0x1.193ea7aad030ap+0",
    10.0: "0x1.26bb1bbb55516p+1",
    1e300: "0x1.5963447f87fb5p+9",
    1.7976931348623157e308: "0x1.62e42fefa39efp+9",
}
EXPS = {
    -800.0: "0x0.0p+0",
    -745.1: "0x0.0000000000001p-1022",
    -720.5: "0x0.00005cf08fff0p-1022",
    -708.5: "0x0.e6cf6d08897acp-1022",
    -10.0: "0x1.7cd79b5647c9ap-15",
    -1.0: "0x1.78b56362cef38p-2",
    -0.3466: "0x1.6a0773cd678a4p-1",
    -1e-9: "0x1.fffffff768fa1p-1",
    0.0: "0x1.0000000000000p+0",
    0.3465: "0x1.6a03146cf6eadp+0",
    1.0: "0x1.5bf0a8b14576ap+1",
    10.0: "0x1.5829dcf950560p+14",
    700.25: "0x1.2fd8e4cbfa413p+1010",
    709.782712893384: "0x1.fffffffffff2ap+1023",
}


NORMALS = {
    0: "-0x1.095b059d67c4cp+3",
    1: "-0x1.052484c516593p+3",
    7: "-0x1.fdb2901ae1688p+2",
    1000: "-0x1.d56c58fdc2fd9p+2",
    125090: "-0x1.aa1b20e5a3f09p+2",
    125091: "-0x1.aa1b1bf7b3b52p+2",
    125092: "-0x1.aa1b1709c6006p+2",
    489669: "-0x1.9d1310490ec30p+2",
    2075079: "-0x1.8ed7bc61d33cdp+2",
    5067289: "-0x1.85cbbc0438563p+2",
    72485797: "-0x1.6990c8dd3b8e3p+2",
    3641770240: "-0x1.3bbab9418be25p+2",
    5265107567: "-0x1.37177163676e2p+2",
    14494994848: "-0x1.2a01c1135be4cp+2",
    452980042419: "-0x1.f1d0c95841410p+1",
    5369901945472: "-0x1.9ecf5267a4916p+1",
    9306672419231: "-0x1.8a4dffd90cd7cp+1",
    26249047472839: "-0x1.60ee84d7824d1p+1",
    33948023966299: "-0x1.560724a879a8dp+1",
    675539944105573: "-0x1.7085226d3e526p+0",
    675539944105574: "-0x1.7085226d3e523p+0",
    675539944105575: "-0x1.7085226d3e520p+0",
    776068080018754: "-0x1.5d625246a264fp+0",
    1135930138405128: "-0x1.251bdf435592ep+0",
    1874984488881043: "-0x1.a027e747334afp-1",
    2105119385213343: "-0x1.740d9af7fb31bp-1",
    3337858009436055: "-0x1.5241140af9ea4p-2",
    3809289826233356: "-0x1.8e35f7c19f0dcp-3",
    4130513695223787: "-0x1.aa0a86ec8c196p-4",
    4286644171390820: "-0x1.eee88b1ff61e8p-5",
    4503599627370495: "-0x1.40d931ff62707p-53",
    4503599627370496: "0x1.40d931ff62707p-53",
    9007199254740991: "0x1.095b059d67c4cp+3",
}


def test_golden_quantiles():
    """To the bit, across all three ranges of AS 241 and both sides of their borders."""
    assert {cell: FixedWord(cell << 11).normal().hex() for cell in NORMALS} == NORMALS


def test_golden_logarithms_and_exponentials():
    """To the bit: these hold on every machine, and a reordered expression does not get past them."""
    assert {x: exact_log(x).hex() for x in LOGS} == LOGS
    assert {x: exact_exp(x).hex() for x in EXPS} == EXPS


GOLDEN_DRAWS = "ef171905963a75ced305eb653c687f9e11990fdc9c0cd31697fdb729b09bf8dd"


def test_a_digest_of_many_values_is_golden():
    """Ten thousand draws of each kind in one hash: rare branches are in it too."""
    stream = Stream(2024, "golden")
    digest = hashlib.sha256()
    for _ in range(10_000):
        for value in (stream.exponential(1.0), stream.normal(), stream.lognormal(2.0, 3.0)):
            digest.update(value.hex().encode())
    assert digest.hexdigest() == GOLDEN_DRAWS


@pytest.mark.parametrize("x", [0.0, -0.0, -1.0, math.nan, math.inf, -math.inf])
def test_no_logarithm_without_a_finite_result(x):
    """An infinite or undefined logarithm is refused instead of travelling on."""
    with pytest.raises(ModelError):
        exact_log(x)


@pytest.mark.parametrize("x", [709.7827128933841, 1e308, math.inf, math.nan])
def test_no_exponential_without_a_finite_result(x):
    """Overflow is refused; underflow is 0."""
    with pytest.raises(ModelError):
        exact_exp(x)
    assert exact_exp(-math.inf) == 0.0


def test_no_libm_is_called(monkeypatch):
    """The module works with every transcendental function of ``math`` taken away."""

    def forbidden(*_args: float) -> float:
        raise AssertionError("libm was called")

    for name in ("log", "log1p", "log2", "log10", "exp", "expm1", "pow", "erf", "gamma"):
        monkeypatch.setattr(seeds.math, name, forbidden)
    stream = Stream(1, PATH)
    assert [exact_log(2.0), exact_exp(0.0)] == [math.ldexp(0xB17217F7D1CF78 // 8, -53), 1.0]
    for _ in range(100):
        stream.normal()
        stream.exponential(1.0)
        stream.lognormal(1.0, 1.0)
