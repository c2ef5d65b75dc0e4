"""Random numbers that are a function of (seed, name, count), and the two functions that make them exact.

A :class:`Stream` keeps nothing but how many words it has drawn, so putting ``count`` back rewinds it: rollback,
replay and branches all rest on that. Draw c of a stream is ``mix64(key + c * gamma)``: SplittableRandom
(Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).

libm's ``log`` and ``exp`` differ between machines in the last bit, and one bit is enough for another
digest. :func:`exact_log` and :func:`exact_exp` follow the method of Sun's fdlibm with basic IEEE 754
operations in one fixed order (each rounded once: Python never fuses a multiplication with an addition;
``frexp``, ``ldexp`` inside the normal range and ``sqrt`` are exact or correctly rounded), so they agree
everywhere. Changing the order of any expression below changes every run that was ever recorded.
"""

from __future__ import annotations

import hashlib
import math

from tidewarp.errors import ModelError, OperatorError

__all__ = ["Stream", "exact_exp", "exact_log", "mix64", "normal_of", "stream_key"]

_MASK = 2**64 - 1
_LABEL = b"TWSEED1"
_MEAN_MAX = 1e290  # above it, a draw in the tail would not fit a float
_STD_MAX = 1e300
_RATIO_MAX = 1e150  # std / mean; its square must fit a float
# Powers of two by ldexp: `2.0**-53` would be computed by libm's pow.
_TO_UNIT = math.ldexp(1.0, -53)
_TO_HALF_UNIT = math.ldexp(1.0, -54)
_TO_SUBNORMAL = math.ldexp(1.0, -1000)


def mix64(x: int) -> int:
    """Scramble the low 64 bits of ``x`` (a bijection of U64; Stafford's variant 13, as in SplitMix64)."""
    x &= _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


def stream_key(seed: int, path: str) -> tuple[int, int]:
    """``(key, gamma)`` of the stream that ``path`` (an LP's path or a dotted name of use) has under ``seed`` (U64).

    The first 128 bits of SHA-256 over the label ``TWSEED1`` with its U16 length, then the seed as U64 and the
    path as UTF-8, each after its U64 length; integers are big-endian. That is the byte form of
    ``codec.Digest``, written here because seeds stands below codec. gamma is made odd, and more irregular
    if it has fewer than 24 changes between neighbouring bits (Steele et al., section 5).

    Raises:
        OperatorError: a seed outside U64.
        ModelError: a path that is not valid Unicode.
    """
    if not 0 <= seed <= _MASK:
        raise OperatorError(f"seed {seed!r}", "a seed is a whole number from 0 to 2**64 - 1", "choose another seed")
    try:
        name = path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ModelError(f"stream {path!r}", "its name has no UTF-8 form", "name it in plain text") from error
    digest = hashlib.sha256(len(_LABEL).to_bytes(2, "big") + _LABEL)
    for part in (seed.to_bytes(8, "big"), name):
        digest.update(len(part).to_bytes(8, "big") + part)
    start = digest.digest()
    gamma = int.from_bytes(start[8:16], "big") | 1
    if (gamma ^ gamma >> 1).bit_count() < 24:
        gamma ^= 0xAAAA_AAAA_AAAA_AAAA
    return int.from_bytes(start[:8], "big"), gamma


class Stream:
    """The random numbers of one consumer, named by ``path``: no other consumer shifts them.

    ``count`` is how many 64-bit words were drawn and the whole state: save it, put it back, and the
    same numbers come again. Every method draws one word, but :meth:`below`, which may draw more.
    """

    __slots__ = ("_gamma", "_key", "count", "path")

    def __init__(self, seed: int, path: str) -> None:
        self._key, self._gamma = stream_key(seed, path)
        self.path = path
        self.count = 0

    @property
    def key(self) -> tuple[int, int]:
        """(key, gamma), each of 64 bits: what names the stream, for a generator of another kind beside it."""
        return self._key, self._gamma

    def bits(self) -> int:
        """The next 64 random bits, as an int."""
        self.count = count = self.count + 1
        x = self._key + count * self._gamma & _MASK
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
        return x ^ x >> 31

    def random(self) -> float:
        """A float in [0, 1): the upper 53 bits of a word, each value equally likely."""
        return (self.bits() >> 11) * _TO_UNIT

    def unit_exponential(self) -> float:
        """An exponentially distributed value >= 0 of mean 1, by inversion."""
        return 0.0 - _log(1.0 - (self.bits() >> 11) * _TO_UNIT)  # of self.random(), written out

    def below(self, n: int) -> int:
        """A whole number in [0, n), each equally likely: low bits of a word, drawn anew while they are n or more.

        Raises:
            ModelError: n < 1 or n > 2**64.
        """
        if not 1 <= n <= _MASK + 1:
            raise ModelError(f"below({n!r})", "the bound is a whole number from 1 to 2**64", "check it before drawing")
        mask = (1 << (n - 1).bit_length()) - 1
        while (x := self.bits() & mask) >= n:
            pass
        return x

    def exponential(self, mean: float) -> float:
        """An exponentially distributed value >= 0 in the unit of ``mean``, by inversion.

        Raises:
            ModelError: a mean that is not above 0 and at most 1e290, NaN included.
        """
        _check_mean("exponential", mean)
        return 0.0 - mean * _log(1.0 - self.random())

    def normal(self) -> float:
        """A standard normal value, by inversion (Wichura, algorithm AS 241, PPND16, Applied Statistics 37, 1988).

        The uniform is the middle of one of 2**53 equal cells of (0, 1): never 0 or 1, and symmetric, so that
        u and 1 - u give opposite values. |result| < 8.3.
        """
        return normal_of(self.bits())

    def lognormal(self, mean: float, std: float) -> float:
        """A lognormal value >= 0 whose own mean and standard deviation are ``mean`` and ``std`` (not its logarithm's).

        ``std`` 0 gives ``mean``; the word is drawn all the same.

        Raises:
            ModelError: a mean that is not above 0 and at most 1e290, std < 0, above 1e150 times the mean or above 1e300, NaN.
        """
        _check_mean("lognormal", mean)
        if not 0.0 <= std <= min(_RATIO_MAX * mean, _STD_MAX):
            raise ModelError(f"lognormal std {std!r}", "std is 0 to 1e150 times the mean, at most 1e300", "correct std")
        ratio = std / mean
        variance = _log_of_one_plus(ratio * ratio)
        return mean * _exp(math.sqrt(variance) * self.normal() - 0.5 * variance)


def normal_of(bits: int) -> float:
    """The standard normal value of 64 random bits, as :meth:`Stream.normal` draws it."""
    return _normal_of_top(bits >> 11)


def _normal_of_top(top: int) -> float:
    """The same of their upper 53 bits: a number that an int64 holds, for the compiled tier."""
    cell = 2 * top + 1 - 2**53  # odd, |cell| < 2**53: q and the tail below are exact
    q = cell * _TO_HALF_UNIT  # u - 1/2
    if -0.425 <= q <= 0.425:
        return _normal_centre(q)
    tail = math.sqrt(-_log((2**53 - abs(cell)) * _TO_HALF_UNIT))
    z = _normal_shoulder(tail - 1.6) if tail <= 5.0 else _normal_tail(tail - 5.0)
    return z if q > 0.0 else -z


def _check_mean(what: str, mean: float) -> None:
    if not 0.0 < mean <= _MEAN_MAX:
        raise ModelError(f"{what} mean {mean!r}", "a mean is above 0 and at most 1e290", "correct the mean")


def exact_log(x: float) -> float:
    """The natural logarithm, less than 1 ulp from the truth, and the same bits on every machine.

    Raises:
        ModelError: x <= 0, infinity or NaN: there is no finite result.
    """
    if not 0.0 < x < math.inf:
        raise ModelError(f"exact_log({x!r})", "a logarithm needs a finite number above 0", "check before calling")
    return _log(x)


def exact_exp(x: float) -> float:
    """The exponential of x, less than 1 ulp from the truth, and the same bits on every machine; 0 below -745.14.

    Raises:
        ModelError: x > 709.782712893384 (no float holds the result) or NaN.
    """
    if not x <= 709.782712893384:
        raise ModelError(f"exact_exp({x!r})", "the result must fit a float: x at most 709.78", "limit the exponent")
    return _exp(x) if x >= -745.1332191019412 else 0.0


_LN2_HIGH = 6.93147180369123816490e-01  # 32 bits: a product with an exponent is exact
_LN2_LOW = 1.90821492927058770002e-10
_LN2_INVERSE = 1.44269504088896338700
_SQRT_HALF = 0.7071067811865476


# The cores check nothing and use only what Numba compiles, so that both tiers can share them.


def _log(x: float) -> float:
    """The logarithm of x for finite x > 0.

    x = 2**k (1 + f) with |f| < 0.42; s = f / (2 + f); log(1 + f) = f - (f²/2 - s (f²/2 + R(s²))).
    """
    m, k = math.frexp(x)
    if m < _SQRT_HALF:
        m, k = m + m, k - 1
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    odd = z * (
        6.666666666666735130e-01
        + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01))
    )
    even = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
    half = 0.5 * f * f
    return k * _LN2_HIGH - ((half - (s * (half + (even + odd)) + k * _LN2_LOW)) - f)


def _exp(x: float) -> float:
    """The exponential for -745.2 < x < 709.8: x = k log 2 + r, |r| < 0.35, and a rational form of exp r in r²."""
    k = int(_LN2_INVERSE * x + (0.5 if x >= 0.0 else -0.5))
    high = x - k * _LN2_HIGH
    low = k * _LN2_LOW
    r = high - low
    t = r * r
    p = t * 4.13813679705723846039e-08 - 1.65339022054652515390e-06
    p = t * p + 6.61375632143793436117e-05
    p = t * p - 2.77777777770155933842e-03
    c = r - t * (t * p + 1.66666666666666019037e-01)
    y = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
    if k > -1021:
        return math.ldexp(y, k)
    return math.ldexp(y, k + 1000) * _TO_SUBNORMAL  # one IEEE rounding; not every ldexp rounds subnormals so


def _log_of_one_plus(y: float) -> float:
    """log(1 + y) for y >= 0, small y included: the rounding of 1 + y is divided out again (Kahan)."""
    u = 1.0 + y
    if u == 1.0:
        return y
    return _log(u) if y >= 1.0 else _log(u) * (y / (u - 1.0))


# Wichura's rational approximations, numerator and denominator by Horner's rule side by side.


def _normal_centre(q: float) -> float:
    """The normal quantile of 1/2 + q for |q| <= 0.425."""
    r = 0.180625 - q * q
    n, d = 2.5090809287301226727e3, 5.2264952788528545610e3
    n, d = n * r + 3.3430575583588128105e4, d * r + 2.8729085735721942674e4
    n, d = n * r + 6.7265770927008700853e4, d * r + 3.9307895800092710610e4
    n, d = n * r + 4.5921953931549871457e4, d * r + 2.1213794301586595867e4
    n, d = n * r + 1.3731693765509461125e4, d * r + 5.3941960214247511077e3
    n, d = n * r + 1.9715909503065514427e3, d * r + 6.8718700749205790830e2
    n, d = n * r + 1.3314166789178437745e2, d * r + 4.2313330701600911252e1
    n, d = n * r + 3.3871328727963666080, d * r + 1.0
    return q * n / d


def _normal_shoulder(r: float) -> float:
    """The upper quantile for a tail of exp(-(r + 1.6)²), r + 1.6 <= 5."""
    n, d = 7.74545014278341407640e-4, 1.05075007164441684324e-9
    n, d = n * r + 2.27238449892691845833e-2, d * r + 5.47593808499534494600e-4
    n, d = n * r + 2.41780725177450611770e-1, d * r + 1.51986665636164571966e-2
    n, d = n * r + 1.27045825245236838258, d * r + 1.48103976427480074590e-1
    n, d = n * r + 3.64784832476320460504, d * r + 6.89767334985100004550e-1
    n, d = n * r + 5.76949722146069140550, d * r + 1.67638483018380384940
    n, d = n * r + 4.63033784615654529590, d * r + 2.05319162663775882187
    n, d = n * r + 1.42343711074968357734, d * r + 1.0
    return n / d


def _normal_tail(r: float) -> float:
    """The upper quantile for a tail of exp(-(r + 5)²), r > 0."""
    n, d = 2.01033439929228813265e-7, 2.04426310338993978564e-15
    n, d = n * r + 2.71155556874348757815e-5, d * r + 1.42151175831644588870e-7
    n, d = n * r + 1.24266094738807843860e-3, d * r + 1.84631831751005468180e-5
    n, d = n * r + 2.65321895265761230930e-2, d * r + 7.86869131145613259100e-4
    n, d = n * r + 2.96560571828504891230e-1, d * r + 1.48753612908506148525e-2
    n, d = n * r + 1.78482653991729133580, d * r + 1.36929880922735805310e-1
    n, d = n * r + 5.46378491116411436990, d * r + 5.99832206555887937690e-1
    n, d = n * r + 6.65790464350110377720, d * r + 1.0
    return n / d
