import dataclasses
import re
from pathlib import Path

import pytest
import torch

from gan_blocks.engine.base.command_line import parse_options
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.config import ImageFields
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import ReadRequest, SourceKind
from gan_blocks.engine.data.sources import SOURCES, parse_source, source_choices

ROOT = Path(__file__).parents[3]


def read_stripes(source: DataSource, request: ReadRequest) -> ImageSet:
    """Eight images of two classes, as bright as the file says."""
    brightness = int(source.existing_path().read_text())
    pixels = torch.full((8, *request.layout.shape), brightness, dtype=torch.uint8)
    return ImageSet(lambda numbers: pixels[numbers], torch.arange(8) % 2, ("a", "b"), request.layout)


STRIPES = SourceKind(
    name="stripes",
    summary="stripes",
    read=read_stripes,
    recognizes=lambda path: path.endswith(".stripes"),
    hint="For stripes",
)


@pytest.fixture
def stripes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "stripes", STRIPES)


@pytest.mark.usefixtures("stripes")
def test_a_source_from_elsewhere_takes_part_in_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("255")
    images = load_images(f"stripes:{tmp_path / 'file'}", resolution=4, channels=1, num_classes=2)
    assert torch.equal(images.batch(torch.tensor([0, 5]))[0], torch.ones(2, 1, 4, 4))
    assert source_choices().endswith(", stripes:PATH")
    for spec, message in {
        "stripes": "--data stripes: the source stripes needs a path: --data stripes:PATH.",
        "stripes:/nowhere": "--data stripes:/nowhere: there is no file or folder /nowhere; check the path.",
        "a.stripes": f"--data a.stripes: unknown source; choose one of {source_choices()}. "
        "For stripes write --data stripes:a.stripes.",
    }.items():
        with pytest.raises(UserError) as error:
            load_images(spec, resolution=4, channels=1, num_classes=2)
        assert str(error.value) == message
    with pytest.raises(SystemExit):
        parse_options(ImageFields, prog="p", description="", args=["--help"])
    assert "stripes:PATH" in re.sub(r"\s*│?\s*\n\s*│?\s*", " ", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("path", "spellings"), [("none", ["x"]), ("optional", ["x", "x:PATH"]), ("required", ["x:PATH"])]
)
def test_a_source_is_spelled_with_and_without_a_path(path: str, spellings: list[str]):
    assert dataclasses.replace(STRIPES, name="x", path=path).spellings() == spellings


def test_a_path_that_the_file_system_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def refuse(source: DataSource, request: ReadRequest) -> ImageSet:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(SOURCES, "stripes", dataclasses.replace(STRIPES, read=refuse))
    with pytest.raises(UserError, match=r"^--data stripes:x: cannot be read: .*Permission denied"):
        load_images("stripes:x", resolution=4, channels=1, num_classes=2)


def test_the_page_of_data_lists_every_source_with_its_summary():
    rows = re.findall(r"^\| `([^`]+)` \| (.*?) \|", (ROOT / "docs" / "data.md").read_text(), re.MULTILINE)
    listed = {spelling: text.replace("`", "") for spelling, text in rows if spelling.partition(":")[0] in SOURCES}
    assert listed == {spelling: kind.summary for kind in SOURCES.values() for spelling in kind.spellings()}


def test_every_source_is_parsed_by_its_own_spellings():
    for kind in SOURCES.values():
        for spelling in kind.spellings():
            assert parse_source(spelling).name == kind.name
