"""Presets of a study's Config that extends another recipe's.

Tested in ``tests/recipes/studies/test_appendix_h.py``.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

__all__ = ["extended_presets"]

Extended = TypeVar("Extended")


def extended_presets(
    kind: type[Extended], presets: Mapping[str, Callable[[], Any]]
) -> dict[str, Callable[[], Extended]]:
    """The same presets as Configs of ``kind``; a field that ``kind`` declares has the default that it has there."""
    return {name: partial(_extend, kind, preset) for name, preset in presets.items()}


def _extend(kind: type[Extended], preset: Callable[[], Any]) -> Extended:
    own = inspect.get_annotations(kind)
    return kind(**{name: value for name, value in vars(preset()).items() if name not in own})
