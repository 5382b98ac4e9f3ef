"""What metrics ask of features, rows of finite floating numbers, enough of them and equally wide, and of images.

Tested through the tests of these metrics.
"""

from torch import Tensor

from gan_blocks._checks import bad_dtype, bad_kind, bad_shape, bad_value, check_real_floating

__all__ = ["check_images", "check_same_width", "check_samples"]


def check_samples(owner: str, name: str, values: Tensor, least: int, rule: str, *, axis: str = "features") -> None:
    """Raise unless ``values`` is a finite floating tensor ``(samples, axis)``; ``rule`` words the least number."""
    if not isinstance(values, Tensor):
        raise bad_kind(owner, name, "a tensor", values)
    if not values.is_floating_point():
        raise bad_dtype(owner, name, "floating point", values)
    if values.dim() != 2 or len(values) < least or values.shape[1] == 0:
        raise bad_shape(owner, name, f"(samples, {axis}) with {rule}", values)
    if not values.isfinite().all():
        bad = int((~values.isfinite()).sum())
        raise bad_value(owner, name, "finite", f"{bad} of {values.numel()} values that are not")


def check_images(owner: str, name: str, images: Tensor) -> None:
    """Raise unless ``images`` is a tensor of a real floating dtype: bytes have another range."""
    if not isinstance(images, Tensor):
        raise bad_kind(owner, name, "a tensor", images)
    check_real_floating(owner, name, images)


def check_same_width(owner: str, real_features: Tensor, fake_features: Tensor) -> None:
    """Raise unless both sets have as many features."""
    if fake_features.shape[1] != real_features.shape[1]:
        raise bad_shape(owner, "fake_features", f"(samples, {real_features.shape[1]})", fake_features)
