import numpy as np
import pytest
import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.pictures.sheets import to_uint8


def test_images_become_bytes_the_ends_of_the_range_included():
    images = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).reshape(1, 1, 1, 5)
    assert to_uint8(images).tolist() == [[[[0], [0], [128], [255], [255]]]]
    assert to_uint8(images).dtype == np.uint8


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_are_not_finite_are_no_pictures(value: float):
    with pytest.raises(UserError, match=r"^the images hold values that are not finite: the generator .* diverged\.$"):
        to_uint8(torch.full((1, 1, 2, 2), value))
