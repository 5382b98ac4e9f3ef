import pytest
import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.held_out import held_out_numbers, split_held_out
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.pixels import PixelLayout


def numbered(count: int) -> ImageSet:
    def read(numbers: torch.Tensor) -> torch.Tensor:
        return numbers.byte()[:, None, None, None].expand(-1, 1, 4, 4)

    return ImageSet(read, torch.arange(count) % 4, ("a", "b", "c", "d"), PixelLayout(4, 1))


def test_the_share_is_exact_and_a_function_of_the_seed():
    numbers = held_out_numbers(200, 0.1, seed=3)
    assert numbers.tolist() == sorted(set(numbers.tolist()))
    assert len(numbers) == 20
    assert torch.equal(numbers, held_out_numbers(200, 0.1, seed=3))
    assert not torch.equal(numbers, held_out_numbers(200, 0.1, seed=4))


def test_most_stay_what_they_are_when_images_are_added():
    before, after = (set(held_out_numbers(count, 0.2, seed=0).tolist()) for count in (200, 220))
    assert len(before & after) >= 35


@pytest.mark.parametrize(("share", "count"), [(1e-9, 1), (0.999, 9)])
def test_one_is_held_out_and_one_is_not(share: float, count: int):
    assert len(held_out_numbers(10, share, seed=0)) == count


def test_each_image_is_in_one_part_with_its_label():
    training, held_out = split_held_out(numbered(40), 0.25, seed=1)
    assert held_out is not None
    assert (len(training), len(held_out)) == (30, 10)
    seen = []
    for part in (training, held_out):
        images, labels = part.batch(torch.arange(len(part)))
        numbers = ((images[:, 0, 0, 0] + 1) * 127.5).round().long()
        assert torch.equal(numbers % 4, labels)
        seen += numbers.tolist()
    assert sorted(seen) == list(range(40))


def test_without_a_share_all_are_trained_on():
    images = numbered(8)
    assert split_held_out(images, 0, seed=0) == (images, None)


def test_a_class_without_images_left_is_named():
    with pytest.raises(UserError, match=r"^--hold-out 0\.9 leaves class . without an image to train on"):
        split_held_out(numbered(12), 0.9, seed=0)
    with pytest.raises(UserError, match=r"^--hold-out 0\.5 needs two or more images, but there are 1\.$"):
        split_held_out(numbered(1), 0.5, seed=0)
