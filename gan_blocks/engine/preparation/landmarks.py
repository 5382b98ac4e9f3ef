"""Files of face landmarks: CelebA's own text format, and tables of comma-separated values in the same columns.

A line is the name of an image file and ten numbers, x and y of each: left eye, right eye, nose, left and right corner
of the mouth, as they lie in the picture. Lines before the first one (a count, the names of the columns) are skipped.

Tested in ``tests/engine/preparation/test_landmarks.py``.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from gan_blocks.engine.base.contents import check_regular, other_content
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.preparation.aligned_crop import FacePoints

__all__ = ["points_of_files", "read_landmarks"]


def read_landmarks(path: Path) -> dict[str, FacePoints]:
    """Read the landmarks of each file name; the nose, which the crop does not use, is left out.

    Raises:
        UserError: If the file is missing, has no such lines, or a line among them that is none.
    """
    check_regular(path, "--landmarks")
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is no text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise UserError(f"--landmarks {path} cannot be read: {reason}.") from error
    found: dict[str, FacePoints] = {}
    for number, line in enumerate(lines, start=1):
        name, *values = [part.strip() for part in (line.split(",") if "," in line else line.split())] or [""]
        points = _points(values)
        if points is None:
            if found and line.strip():
                raise _line_error(path, number, f"must be a file name and ten numbers, but is {line.strip()[:60]!r}")
            continue
        if name in found:
            raise _line_error(path, number, f"names {name} again")
        found[name] = points
    if not found and (what := other_content(path, "text", "empty")) is not None:
        raise UserError(f"--landmarks {path} {what}.")
    if not found:
        raise UserError(f"--landmarks {path} must hold lines of a file name and ten numbers, but has none.")
    return found


def points_of_files(landmarks: dict[str, FacePoints], names: Sequence[str]) -> list[FacePoints | None]:
    """The landmarks of each file, found by its path inside the folder, or by its bare name if no other file has it.

    Args:
        landmarks: By name, as :func:`read_landmarks` gives them.
        names: Paths of the files inside their folder.

    Returns:
        The landmarks in the order of the names; None where there are none.
    """
    bare_names = Counter(PurePath(name).name for name in names)
    found = []
    for name in names:
        bare = PurePath(name).name
        points = landmarks.get(PurePath(name).as_posix())
        if points is None and bare_names[bare] == 1:
            points = landmarks.get(bare)
        found.append(points)
    return found


def _points(values: Sequence[str]) -> FacePoints | None:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    if len(numbers) != 10:
        return None
    left_eye, right_eye, _nose, left_mouth, right_mouth = zip(numbers[::2], numbers[1::2], strict=True)
    return FacePoints(left_eye, right_eye, left_mouth, right_mouth)


def _line_error(path: Path, number: int, problem: str) -> UserError:
    return UserError(f"--landmarks {path}: line {number} {problem}.")
