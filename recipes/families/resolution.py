"""The resolution of networks that begin at 4x4 pixels.

Tested with the recipes that call it, such as in ``tests/recipes/test_biggan_deep.py``.
"""

from typing import Any

from gan_blocks.engine import require

__all__ = ["require_doublings"]


def require_doublings(config: Any, widths: str) -> None:
    """The resolution must be 4 doubled once for each number in the field ``widths`` but the first.

    Raises:
        UserError: If it is not.
    """
    size = 4 * 2 ** (len(getattr(config, widths)) - 1)
    rule = f"{size}, which is 4 doubled once for each of --{widths.replace('_', '-')} but the first"
    require(config, "resolution", config.resolution == size, rule)
