"""exp2, log2, the normal and the exponential transform, from + - × ÷ √ and bit operations only.

Library versions differ between numpy, XLA and CUDA; these do not, so every backend gives the same bits. All
in float32. The coefficients are minimax fits (weighted least squares with Lawson's reweighting) in float64:
exp2 within 9e-8 relative, log2 within 5e-8 absolute on the mantissa, the normal within 4e-8 before
rounding. `tests/test_elementary.py` measures the errors that remain after rounding.
"""

from __future__ import annotations

_EXP2 = (
    0.6931469775987213,
    0.2402224208481953,
    0.05550733743701122,
    0.009671512673839838,
    0.001326472714857081,
)
_LOG2 = (
    1.442694961987451,
    -0.721352788073291,
    0.4809232422648505,
    -0.36023963907508677,
    0.28709870029234774,
    -0.24887687419752696,
    0.23404236918844917,
    -0.14581165620135453,
)
# Φ⁻¹ of a tail probability 2^-w as t·P(t)/Q(t), t = √w - 1, for w in [1, 33].
_NORMAL_P = (1.73746046, 2.20042472, 0.76087411, 0.06910728)
_NORMAL_Q = (1.0, 1.45959057, 0.5896336, 0.05865842)
_SQRT_HALF_PATTERN = 0x3F3504F3
# Added to a number below 2^22, it leaves a sum that is whole, and the number, rounded, in its lowest bits.
_NO_FRACTION = 1.5 * 2.0**23
LARGEST_NORMAL = 6.34
_LN2 = 0.6931471805599453


def whole(ops, name: str, body, *arguments):
    """body(ops, *arguments), which a vocabulary with a `call` may keep as a function of that name."""
    call = getattr(ops, "call", None)
    return body(ops, *arguments) if call is None else call(name, body, *arguments)


def _horner(coefficients, x):
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def exp2(ops, x):
    """2**x; x is clamped to [-126, 127], so the result is always a normal number."""
    return whole(ops, "exp2", _exp2, x)


def _exp2(ops, x):
    x = ops.minimum(ops.maximum(x, -126.0), 127.0)
    shifted = x + _NO_FRACTION
    fraction = x - (shifted - _NO_FRACTION)
    # 2**fraction is >= 1 at whole = -126 and <= 1 at 127: added to its exponent, whole keeps it normal.
    return ops.from_bits(ops.bits(fraction * _horner(_EXP2, fraction) + 1.0) + (ops.bits(shifted) << 23))


def _log2_part(ops, pattern):
    """log2, in [-1/2, 1/2], of a number around 1 given by its bits."""
    fraction = ops.from_bits(pattern) - 1.0
    return fraction * _horner(_LOG2, fraction)


def log2(ops, x):
    """log2 of a positive normal number."""
    return whole(ops, "log2", _log2, x)


def _log2(ops, x):
    patterns = ops.bits(x)
    whole = (patterns - _SQRT_HALF_PATTERN) >> 23
    return ops.to_float(whole) + _log2_part(ops, patterns - (whole << 23))


def bits_of_tail(ops, x):
    """-log2 of a probability x·2⁻³², x in [½, 2³²]."""
    return whole(ops, "bits_of_tail", _bits_of_tail, x)


def _bits_of_tail(ops, x):
    patterns = ops.bits(x)
    # 32 less the whole part of log2.
    whole = (_SQRT_HALF_PATTERN + (33 << 23) - 1 - patterns) >> 23
    return ops.to_float(whole) - _log2_part(ops, patterns + (whole << 23) - (32 << 23))


def normal(ops, word):
    """A standard normal from one 32-bit word: sign from the top bit, tail probability from the other 31.

    The tail probability is ((word & 0x7fffffff) + ½)·2⁻³², so the largest |z| is 6.34.
    """
    return whole(ops, "normal", _normal, word)


def _normal(ops, word):
    t = ops.sqrt(bits_of_tail(ops, ops.to_float(ops.low_bits(word)) + 0.5)) - 1.0
    magnitude = t * (_horner(_NORMAL_P, t) / _horner(_NORMAL_Q, t))
    return ops.from_bits(ops.bits(magnitude) | ops.top_bit_clear(word))


def exponential(ops, word):
    """A unit exponential from one word, -log(u) with u = (word + ½)·2⁻³²; exact in the far tail."""
    return whole(ops, "exponential", _exponential, word)


def _exponential(ops, word):
    return bits_of_tail(ops, ops.word_to_float(word) + 0.5) * _LN2
