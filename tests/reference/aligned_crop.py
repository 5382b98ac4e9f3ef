"""The oriented crop of Appendix C of Karras et al. 2018, with complex numbers and loops; x is real, y imaginary."""

import math


def rectangle(e0: complex, e1: complex, m0: complex, m1: complex) -> tuple[complex, float, complex, complex]:
    """Center, size, unit vector to the right, unit vector to the top; y points down in the image."""
    x_prime = e1 - e0
    y_prime = (e0 + e1) / 2 - (m0 + m1) / 2
    c = (e0 + e1) / 2 - 0.1 * y_prime
    s = max(4.0 * abs(x_prime), 3.6 * abs(y_prime))
    x = x_prime - y_prime * -1j  # where y points down, a quarter turn against the clock is -1j: up becomes left
    x /= abs(x)
    return c, s, x, x * -1j


def mirror(place: int, length: int) -> int:
    while not 0 <= place < length:
        if length == 1:
            return 0
        place = -place if place < 0 else 2 * (length - 1) - place
    return place


def extended_pixel(image: list[list[float]], column: int, row: int, size: float) -> float:
    """Level of one gray pixel inside or outside the image."""
    height, width = len(image), len(image[0])

    def level(x: int, y: int) -> float:
        return image[mirror(y, height)][mirror(x, width)]

    away = math.hypot(max(-column, column - width + 1, 0), max(-row, row - height + 1, 0))
    if away == 0:
        return level(column, row)
    sigma = 0.02 * size
    reach = math.ceil(3 * sigma)
    total = weights = 0.0
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            weight = math.exp(-(dx * dx + dy * dy) / (2 * sigma * sigma))
            total += weight * level(column + dx, row + dy)
            weights += weight
    share = min(away / (0.1 * size), 1.0)
    return (1 - share) * level(column, row) + share * total / weights


def crop(
    image: list[list[float]], points: tuple[complex, complex, complex, complex], resolution: int
) -> list[list[float]]:
    """Unrounded levels of the crop of a gray image."""
    c, s, x, y = rectangle(*points)
    factor = 4
    while resolution * factor < s:
        factor *= 2
    known: dict[tuple[int, int], float] = {}

    def pixel(column: int, row: int) -> float:
        if (column, row) not in known:
            known[column, row] = extended_pixel(image, column, row, s)
        return known[column, row]

    def sample(point: complex) -> float:
        left, top = math.floor(point.real), math.floor(point.imag)
        right_share, lower_share = point.real - left, point.imag - top
        upper = (1 - right_share) * pixel(left, top) + right_share * pixel(left + 1, top)
        lower = (1 - right_share) * pixel(left, top + 1) + right_share * pixel(left + 1, top + 1)
        return (1 - lower_share) * upper + lower_share * lower

    side = resolution * factor
    result = []
    for row in range(resolution):
        line = []
        for column in range(resolution):
            total = 0.0
            for i in range(factor):
                for j in range(factor):
                    right = (column * factor + j + 0.5) / side - 0.5
                    down = (row * factor + i + 0.5) / side - 0.5
                    total += sample(c + s * (right * x - down * y))
            line.append(total / factor**2)
        result.append(line)
    return result
