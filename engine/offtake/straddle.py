"""How many values of a bin lie under a level inside it.

Of a bin are known n, the sum and the sum of squares of its remainders l, which are whole and in [a, b]; m and
v are their mean and variance, u the greatest remainder under the level. Each of these is at least
P(l <= u), since its polynomial in l is at least 1 on [a, u] and at least 0 on [u + 1, b] (the method of
Chebyshev and Markov; Krein and Nudelman, The Markov Moment Problem, 1977):
    (b - m) / (b - u)
    v / (v + (m - u)^2)                             u < m (Cantelli)
    1 - E[(l - a)(l - u)] / ((b - a)(b - u))
and the same, mirrored, bound P(l >= u + 1). Between the bounds the likely share is that of an evenly filled
bin with an atom, where mean and variance say that there is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

_NOISE = 3.0  # standard deviations that chance is taken to explain


@dataclass(frozen=True)
class Remainders:
    """n values l of a bin, of which the sum, the sum of squares and the range [a, b] are known."""

    n: int
    total: int
    squares: int
    a: int
    b: int

    def up_to(self, u: int, level: int) -> tuple[int, float, int]:
        """Least possible, likely and most possible number of l <= u; an atom near `level` is taken to be
        there.
        """
        if u < self.a:
            return 0, 0.0, 0
        if u >= self.b:
            return self.n, float(self.n), self.n
        most = math.floor(self.n * self._most(u))
        least = self.n - math.floor(self.n * self._mirrored()._most(-u - 1))
        return least, min(max(self.n * self._likely(u, level), least), most), most

    def _mirrored(self) -> Remainders:
        return Remainders(self.n, -self.total, self.squares, -self.b, -self.a)

    def _most(self, u: int) -> Fraction:
        """Upper bound of P(l <= u), a <= u < b."""
        a, b = self.a, self.b
        mean, square = Fraction(self.total, self.n), Fraction(self.squares, self.n)
        variance = square - mean * mean
        bounds = [
            Fraction(1),
            (b - mean) / (b - u),
            1 - (square - (a + u) * mean + a * u) / ((b - a) * (b - u)),
        ]
        if u < mean:
            bounds.append(variance / (variance + (mean - u) ** 2))
        return min(bounds)

    def _likely(self, u: int, level: int) -> float:
        """P(l <= u) of values spread evenly over [a, b] but for a part q at one place."""
        places = self.b - self.a + 1
        centre, even = (self.a + self.b) / 2, (places * places - 1) / 12
        off = self.total / self.n - centre
        wide = (self.squares - 2 * centre * self.total) / self.n + centre * centre
        # q (place - centre) = off and q ((place - centre)^2 - even) = wide - even.
        lack = even - wide
        reach = (math.hypot(lack, 2 * off * math.sqrt(even)) - lack) / (2 * off) if off else 0.0
        q = off / reach if reach else lack / even
        share = (u - self.a + 1) / places
        if q < _NOISE / math.sqrt(self.n):
            return share
        q, place = min(q, 1.0), centre + reach
        blur = 0.5 + _NOISE * math.sqrt((1 - q) * even / self.n) / q
        return (1 - q) * share + q * ((level if abs(place - level) <= blur else place) <= u)
