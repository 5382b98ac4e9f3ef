from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_blocks.engine.data.pixels import (
    DamagedImageError,
    ImageFacts,
    PixelLayout,
    conversion_notes,
    inspect_file,
    read_file,
    to_pixels,
)

GRAY, RGB = PixelLayout(4, 1), PixelLayout(4, 3)


def random_image(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def transparent_palette() -> Image.Image:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(("size", "left", "top"), [((7, 4), 1, 0), ((8, 4), 2, 0), ((4, 9), 0, 2), ((4, 4), 0, 0)])
def test_the_center_square_is_cropped_along_the_long_edge(size: tuple[int, int], left: int, top: int):
    image = random_image(*size)
    expected = np.asarray(image)[top : top + 4, left : left + 4].transpose(2, 0, 1)
    pixels = to_pixels(image, RGB)
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, expected)


def test_larger_images_are_averaged_by_area():
    image = random_image(12, 10)
    square = np.asarray(image)[:, 1:11].astype(np.float64)
    weights = np.zeros((4, 10))
    for i in range(4):
        for pixel in range(10):
            weights[i, pixel] = max(0.0, min(2.5 * (i + 1), pixel + 1) - max(2.5 * i, pixel)) / 2.5
    expected = np.einsum("iy,jx,yxc->cij", weights, weights, square)
    assert np.abs(to_pixels(image, RGB) - expected).max() < 0.5 + 1e-9


def test_smaller_images_are_enlarged_by_bicubic_interpolation():
    image = random_image(2, 3)
    expected = image.crop((0, 0, 2, 2)).resize((4, 4), Image.Resampling.BICUBIC)
    assert np.array_equal(to_pixels(image, RGB), np.asarray(expected).transpose(2, 0, 1))


def plain(mode: str, color: object) -> Image.Image:
    return Image.new(mode, (4, 4), color)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image", "rgb", "gray"),
    [
        (plain("L", 90), (90, 90, 90), 90),
        (plain("1", 1), (255, 255, 255), 255),
        (plain("RGB", (200, 100, 50)), (200, 100, 50), 124),
        (plain("LA", (90, 0)), (255, 255, 255), 255),
        (plain("LA", (90, 255)), (90, 90, 90), 90),
        (plain("RGBA", (200, 100, 50, 0)), (255, 255, 255), 255),
        (plain("RGBA", (255, 55, 55, 51)), (255, 215, 215), 227),
        (plain("CMYK", (255, 0, 0, 0)), (0, 255, 255), 179),
        (plain("I;16", 257 * 90), (90, 90, 90), 90),
        (plain("I;16", 257 * 90 + 129), (91, 91, 91), 91),
        (plain("I", 65535), (255, 255, 255), 255),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_mode_becomes_what_a_viewer_shows(image: Image.Image, rgb: tuple[int, ...], gray: int):
    assert to_pixels(image, RGB)[:, 0, 0].tolist() == list(rgb)
    assert to_pixels(image, GRAY)[:, 0, 0].tolist() == [gray]


def test_a_transparent_palette_entry_is_white():
    pixels = to_pixels(transparent_palette(), RGB)
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert pixels[:, 1, 1].tolist() == [10, 20, 30]


@pytest.mark.parametrize(("image", "reason"), [(plain("F", 0.5), "floating-point"), (plain("I", 70000), "16 bits")])
def test_levels_without_a_known_range_are_refused_not_clipped(image: Image.Image, reason: str):
    with pytest.raises(ValueError, match=reason):
        to_pixels(image, GRAY)


FILES = {
    "gray.png": (random_image(9, 5, "L"), {}, ImageFacts("L", enlarged=False, cropped=True)),
    "deep.png": (plain("I;16", 1000), {}, ImageFacts("I;16", enlarged=False)),
    "palette.gif": (random_image(8, 8, "P"), {}, ImageFacts("P", enlarged=False)),
    "palette.png": (transparent_palette(), {}, ImageFacts("PA", enlarged=False)),
    "color-key.png": (random_image(8, 8), {"transparency": (1, 2, 3)}, ImageFacts("RGBA", enlarged=False)),
    "alpha.webp": (plain("RGBA", (1, 2, 3, 100)), {"lossless": True}, ImageFacts("RGBA", enlarged=False)),
    "photo.jpg": (random_image(64, 48), {}, ImageFacts("RGB", enlarged=False, cropped=True)),
    "print.jpeg": (random_image(64, 48, "CMYK"), {}, ImageFacts("CMYK", enlarged=False, cropped=True)),
    "dot.jpg": (random_image(1, 1), {}, ImageFacts("RGB", enlarged=True)),
    "small.bmp": (random_image(9, 3), {}, ImageFacts("RGB", enlarged=True, cropped=True)),
    "scan.tif": (random_image(6, 6, "1"), {}, ImageFacts("1", enlarged=False)),
}


@pytest.mark.parametrize("name", FILES)
def test_reading_and_inspecting_a_file_report_the_same_facts(name: str, tmp_path: Path):
    image, options, facts = FILES[name]
    image.save(tmp_path / name, **options)
    pixels, found = read_file(str(tmp_path / name), RGB)
    assert pixels.shape == RGB.shape
    assert found == facts
    assert inspect_file(str(tmp_path / name), RGB) == facts


def test_an_image_is_turned_upright_as_exif_says(tmp_path: Path):
    image = random_image(4, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the top of the scene is at the right edge of the file
    image.save(tmp_path / "phone.png", exif=exif)
    pixels, facts = read_file(str(tmp_path / "phone.png"), RGB)
    assert np.array_equal(pixels, np.rot90(np.asarray(image), k=-1).transpose(2, 0, 1))
    assert facts.turned
    assert inspect_file(str(tmp_path / "phone.png"), RGB).turned


def test_the_first_image_of_an_animation_is_read(tmp_path: Path):
    frames = [plain("RGB", (200, 0, 0)), plain("RGB", (0, 0, 200))]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert read_file(str(tmp_path / "moving.gif"), RGB)[0][:, 0, 0].tolist() == [200, 0, 0]


def saved(kind: str) -> bytes:
    buffer = BytesIO()
    random_image(64, 64).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("read", [read_file, inspect_file])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_truncated_file_of_any_format_is_damaged(kind: str, read, tmp_path: Path):
    data = saved(kind)
    (tmp_path / "x").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(DamagedImageError, match=r"."):
        read(str(tmp_path / "x"), RGB)


@pytest.mark.parametrize("read", [read_file, inspect_file])
@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a"])
def test_a_file_that_is_no_image_is_damaged(data: bytes, read, tmp_path: Path):
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(DamagedImageError, match=r".") as caught:
        read(str(tmp_path / "x.png"), RGB)
    assert "\n" not in str(caught.value)


def test_running_out_of_memory_is_not_blamed_on_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(path: str) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryError):
        read_file("x.png", RGB)


def test_notes_count_conversions_enlargements_turns_and_crops():
    facts = [ImageFacts("RGB", enlarged=False)] * 1200 + [ImageFacts("L", enlarged=True)] * 3
    facts += [ImageFacts("RGBA", enlarged=False, turned=True), ImageFacts("I;16", enlarged=True, cropped=True)]
    assert conversion_notes(Counter(facts), RGB) == [
        "converted 5 of 1,205 images to RGB (transparent pixels over white): "
        "3 gray, 1 RGB with transparency, 1 16-bit gray",
        "enlarged 4 of 1,205 images to 4 x 4 by bicubic interpolation",
        "turned 1 of 1,205 images upright, as their EXIF orientation says",
        "cropped 1 of 1,205 images to the square in their middle",
    ]


def test_what_is_not_known_of_all_images_is_not_counted():
    facts = [ImageFacts("RGB", enlarged=False, cropped=None), ImageFacts("RGB", enlarged=False, cropped=True)]
    assert conversion_notes(Counter(facts), RGB) == []


def test_there_are_no_notes_when_nothing_was_converted():
    assert conversion_notes(Counter([ImageFacts("L", enlarged=False)] * 3), GRAY) == []
    assert conversion_notes(Counter([ImageFacts("RGB", enlarged=False)] * 3), GRAY) == [
        "converted 3 of 3 images to gray: 3 RGB"
    ]
