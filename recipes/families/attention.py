"""Where the non-local blocks of a network stand: after which of its stages.

Tested in ``tests/recipes/families/test_attention.py``.
"""

from collections.abc import Sequence

__all__ = ["attention_names", "fit_stages", "stages_at"]


def stages_at(wanted: Sequence[int], heights: Sequence[int]) -> list[int]:
    """The stages that non-local blocks follow.

    Args:
        wanted: Heights that they stand at. Of several stages of one height, the first gets the first of that height.
        heights: Height that each stage ends at; each height that is wanted must be among them as often.
    """
    found: list[int] = []
    for height in wanted:
        found.append(next(stage for stage, size in enumerate(heights) if size == height and stage not in found))
    return found


def fit_stages(wanted: Sequence[int], heights: Sequence[int]) -> bool:
    """Whether there are stages enough of each height that is wanted."""
    return all(wanted.count(height) <= heights.count(height) for height in wanted)


def attention_names(wanted: Sequence[int], heights: Sequence[int]) -> dict[int, str]:
    """Names of the non-local blocks by the stage that they follow: the height, and which of that height from two on."""
    names: dict[int, str] = {}
    for stage in sorted(stages_at(wanted, heights)):
        before = [heights[other] for other in names].count(heights[stage])
        names[stage] = str(heights[stage]) if not before else f"{heights[stage]}_{before + 1}"
    return names
