import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gan_blocks import multiscale_ssim
from tests.reference import metrics as reference


def smooth(count: int, size: tuple[int, int], *, seed: int, channels: int = 1) -> Tensor:
    """Images in [0, 1] with structure at several scales."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 4, 4, dtype=torch.float64, generator=generator)
    fine = torch.rand(count, channels, *size, dtype=torch.float64, generator=generator)
    return 0.7 * F.interpolate(coarse, size=size, mode="bilinear") + 0.3 * fine


@pytest.mark.parametrize("size", [(16, 16), (32, 16), (48, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_similarity_window_by_window(size: tuple[int, int], channels: int):
    first = smooth(2, size, seed=0, channels=channels)
    second = 0.6 * first + 0.4 * smooth(2, size, seed=1, channels=channels)
    wanted = [reference.multiscale_ssim(a.numpy(), b.numpy()) for a, b in zip(first, second, strict=True)]
    assert all(0.1 < value < 0.99 for value in wanted)
    torch.testing.assert_close(
        multiscale_ssim(first, second, data_range=(0, 1)),
        torch.tensor(wanted, dtype=torch.float64),
        rtol=1e-10,
        atol=0,
    )
    in_float32 = multiscale_ssim(2 * first.float() - 1, 2 * second.float() - 1)
    torch.testing.assert_close(in_float32.double(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-4, atol=0)


def test_opposite_images_are_not_alike_at_all():
    first = smooth(3, (32, 32), seed=0)
    assert multiscale_ssim(first, 1 - first, data_range=(0, 1)).tolist() == [0, 0, 0]
    assert reference.multiscale_ssim(first[0].numpy(), 1 - first[0].numpy()) == 0


def test_equal_images_are_alike_and_order_does_not_matter():
    first, second = smooth(3, (32, 32), seed=0), smooth(3, (32, 32), seed=1)
    torch.testing.assert_close(multiscale_ssim(first, first), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(multiscale_ssim(first, second), multiscale_ssim(second, first))
    assert (multiscale_ssim(first, 0.8 * first + 0.2 * second) > multiscale_ssim(first, second)).all()


def test_pairs_do_not_see_each_other():
    first, second = smooth(3, (32, 32), seed=0), smooth(3, (32, 32), seed=1)
    alone = torch.cat([multiscale_ssim(first[i : i + 1], second[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(multiscale_ssim(first, second), alone)


@pytest.mark.parametrize(
    ("first", "second", "data_range", "message"),
    [
        (
            (2, 1, 24, 32),
            (2, 1, 24, 32),
            (-1, 1),
            "`preds` must be of shape (batch, channels, height, width) with multiples of 16 as height and width, "
            "but got preds of shape (2, 1, 24, 32). "
            'Resize both sets: F.interpolate(images, size=32, mode="bilinear", antialias=True).',
        ),
        (
            (2, 1, 16, 16),
            (1, 1, 16, 16),
            (-1, 1),
            "`target` must be of shape (2, 1, 16, 16), that of `preds`, but got target of shape (1, 1, 16, 16).",
        ),
        (
            (2, 1, 16, 16),
            (2, 1, 16, 16),
            (1, 1),
            "`data_range` must be a smaller number before a greater one, but got data_range=(1, 1).",
        ),
    ],
)
def test_rejects_what_cannot_be_compared(first, second, data_range, message: str):
    with pytest.raises(ValueError, match=r"^multiscale_ssim: ") as error:
        multiscale_ssim(torch.zeros(first), torch.zeros(second), data_range=data_range)
    assert str(error.value) == f"multiscale_ssim: {message}"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 16, 16, dtype=torch.uint8), "of a real floating dtype, but got {} of dtype torch.uint8."),
        ([0.0], "a tensor, but got {} of type list."),
    ],
)
def test_rejects_what_is_no_floating_image(images, message: str):
    good = torch.zeros(2, 1, 16, 16)
    for name, pair in (("preds", (images, good)), ("target", (good, images))):
        with pytest.raises(TypeError, match=rf"^multiscale_ssim: `{name}` must be {message.format(name)}$"):
            multiscale_ssim(*pair)
