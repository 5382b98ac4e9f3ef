"""Area resampling from its definition, in exact fractions."""

from fractions import Fraction
from math import floor


def area_resample(pixels: list[list[int]], size: int) -> list[list[int]]:
    """Mean level of the square that each new pixel covers, halves rounded up."""
    side = len(pixels)
    length = Fraction(side, size)
    result = []
    for i in range(size):
        row = []
        for j in range(size):
            total = Fraction(0)
            for y in range(side):
                for x in range(side):
                    height = _overlap(i * length, (i + 1) * length, y)
                    width = _overlap(j * length, (j + 1) * length, x)
                    total += height * width * pixels[y][x]
            row.append(floor(total / length**2 + Fraction(1, 2)))
        result.append(row)
    return result


def _overlap(start: Fraction, stop: Fraction, pixel: int) -> Fraction:
    return max(Fraction(0), min(stop, Fraction(pixel + 1)) - max(start, Fraction(pixel)))
