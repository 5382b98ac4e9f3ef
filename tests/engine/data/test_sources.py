import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.terminal.command_line import parse_options
from gan_blocks.engine.data.config import ImageFields
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import ReadRequest, SourceKind
from gan_blocks.engine.data.sources import SOURCES, parse_source, recognized, side_of_source, source_choices
from tests.conftest import write_store

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


def test_the_side_of_images_is_told_without_reading_all_of_them(tmp_path: Path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", images=rng.integers(0, 255, (3, 20, 24, 3), np.uint8))
    (tmp_path / "folder").mkdir()
    Image.fromarray(np.zeros((18, 30), np.uint8)).save(tmp_path / "folder" / "a.png")
    images = rng.integers(0, 255, (4, 16, 16, 1), np.uint8)
    write_store(tmp_path / "store", images, [0, 1, 0, 1], shard_images=2, resolutions=(8,))
    sides = {"a.npz": 20, "folder": 18, "store": 16}
    for name, side in sides.items():
        assert side_of_source(recognized(str(tmp_path / name), option="--images")) == side
    assert side_of_source(recognized("mnist5k", option="--images")) == 32


def test_a_source_is_known_by_its_kind_or_by_what_lies_there(tmp_path: Path):
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 4, 4), np.uint8))
    for spec in (f"npz:{tmp_path / 'a.npz'}", str(tmp_path / "a.npz")):
        source = recognized(spec, option="--against")
        assert (source.name, source.path, source.option) == ("npz", tmp_path / "a.npz", "--against")
    (tmp_path / "text").write_text("none")
    for name, message in (("gone", "there is no file or folder"), ("text", "unknown source; choose one of")):
        with pytest.raises(UserError, match=rf"^--against \S+{name}: {message}"):
            recognized(str(tmp_path / name), option="--against")
