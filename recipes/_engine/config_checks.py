"""Checks for the ``__post_init__`` of a Config or of a command's Options, worded as the options that set its fields."""

from recipes._engine.errors import UserError

__all__ = [
    "check_threads",
    "require",
    "require_at_least",
    "require_each_once",
    "require_positive",
    "require_within",
]

MOST_THREADS = 1024  # torch crashes on numbers that no machine has


def check_threads(threads: int | None) -> None:
    """Raise UserError unless torch can have so many threads; None leaves the number to torch."""
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UserError(f"--threads must be from 1 to {MOST_THREADS:,}, but got {threads}.")


def require(config: object, field: str, holds: bool, rule: str) -> None:
    """Raise UserError, naming the field's option and value, unless its rule holds."""
    if not holds:
        value = getattr(config, field)
        shown = (" ".join(map(str, value)) or "none") if isinstance(value, tuple) else value
        raise UserError(f"--{field.replace('_', '-')} must be {rule}, but got {shown}.")


def require_positive(config: object, *fields: str) -> None:
    """Each field, or each entry of a tuple (of two or more), must be greater than 0, or None where that is allowed."""
    for field in fields:
        value = getattr(config, field)
        if isinstance(value, tuple):
            require(config, field, len(value) > 1 and min(value) > 0, "two or more numbers greater than 0")
        else:
            require(config, field, value is None or value > 0, "greater than 0")


def require_at_least(config: object, low: float, *fields: str) -> None:
    """Each field must be ``low`` or greater."""
    for field in fields:
        require(config, field, getattr(config, field) >= low, f"at least {low}")


def require_each_once(config: object, *fields: str) -> None:
    """Each field is a tuple that must not be empty, nor hold anything twice."""
    for field in fields:
        values = getattr(config, field)
        require(config, field, 0 < len(values) == len(set(values)), "one or more, each once")


def require_within(config: object, low: float, high: float, *fields: str) -> None:
    """Each field must lie in [low, high]."""
    for field in fields:
        require(config, field, low <= getattr(config, field) <= high, f"from {low} to {high}")
