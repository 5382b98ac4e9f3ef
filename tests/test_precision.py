import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gan_blocks
from gan_blocks import (
    UniformPrior,
    discrete_mode_coverage,
    frechet_distance,
    standing_statistics,
    truncated_normal,
)
from gan_blocks import _precision as precision
from gan_blocks._precision import exact_products, full_precision, to_float64


def test_full_precision_switches_autocast_off_and_passes_the_meta_device():
    x = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(x):
        assert (x @ x).dtype == torch.float32
    with full_precision(x.to("meta")):
        assert (x @ x).dtype == torch.float32


def settings() -> list[str]:
    return [torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision]


@pytest.fixture
def precision_restored() -> Iterator[None]:
    yield
    torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"
    torch.backends.fp32_precision = "none"


def ask_by_one_word() -> None:
    torch.set_float32_matmul_precision("medium")


def ask_cuda() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def ask_onednn() -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


@pytest.mark.usefixtures("precision_restored")
@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="torch before 2.9 has one setting for all")
@pytest.mark.parametrize("ask", [ask_by_one_word, ask_cuda, ask_onednn])
def test_exact_products_hold_off_a_lower_precision_for_a_while(ask: Callable[[], None]):
    ask()
    asked = settings()
    assert set(asked) & {"tf32", "bf16"}
    with contextlib.suppress(KeyError), exact_products():
        assert not set(settings()) & {"tf32", "bf16"}
        raise KeyError
    assert settings() == asked


# --- devices without float64 ---


class OnADevice(Tensor):
    """A stand-in for a tensor on a device without float64: there it can be neither made nor converted."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is Tensor.cpu:
            return args[0].as_subclass(Tensor)
        if function is Tensor.copy_ and not isinstance(args[1], cls):
            args = (args[0], args[1].to(args[0].dtype))
        result = super().__torch_function__(function, types, args, kwargs)
        if isinstance(result, cls) and result.dtype == torch.float64:
            raise TypeError(f"{function.__name__}: the device has no float64")
        return result


def on_a_device(values: Tensor) -> Tensor:
    return values.as_subclass(OnADevice)


@pytest.fixture
def device_without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_WITHOUT_FLOAT64", {"cpu"})


def test_the_stand_in_has_no_float64():
    with pytest.raises(TypeError, match="no float64"):
        on_a_device(torch.ones(2)).double()


@pytest.mark.usefixtures("device_without_float64")
def test_float64_is_computed_on_the_cpu_where_a_device_has_none(rng: torch.Generator):
    assert type(to_float64(on_a_device(torch.ones(2)))) is Tensor
    real, fake = torch.randn(2, 50, 3, generator=rng)
    assert frechet_distance(on_a_device(real), on_a_device(fake)) == frechet_distance(real, fake)
    modes = torch.randint(8, (50,), generator=rng)
    coverage = discrete_mode_coverage(on_a_device(modes), num_modes=8)
    assert coverage.kl_divergence == discrete_mode_coverage(modes, num_modes=8).kl_divergence


@pytest.mark.usefixtures("device_without_float64")
@pytest.mark.parametrize("norm", [nn.BatchNorm2d(3), gan_blocks.CrossReplicaBatchNorm2d(3)], ids=["torch", "ours"])
def test_standing_statistics_are_pooled_where_a_device_has_no_float64(norm: nn.Module, rng: torch.Generator):
    batches = torch.randn(4, 8, 3, 5, 5, generator=rng)
    expected = copy.deepcopy(norm)
    standing_statistics(norm, [(on_a_device(batch),) for batch in batches])
    standing_statistics(expected, [(batch,) for batch in batches])
    torch.testing.assert_close(norm.running_var.as_subclass(Tensor), expected.running_var)
    torch.testing.assert_close(expected.running_var, batches.var((0, 1, 3, 4), correction=0))


@pytest.mark.usefixtures("device_without_float64")
def test_truncated_normals_have_their_law_where_a_device_has_no_float64(rng: torch.Generator):
    z = truncated_normal(200_000, threshold=0.7, generator=rng)
    assert z.dtype == torch.float32
    assert z.abs().max() <= 0.7
    assert abs(z.mean().item()) < 5e-3
    expected = gan_blocks.TruncatedNormalPrior(1, threshold=0.7).variance.sqrt().item()
    assert z.std().item() == pytest.approx(expected, rel=0.01)


def test_moments_of_priors_do_not_follow_the_default_device():
    with torch.device("meta"):
        assert UniformPrior(3).mean.device.type == "cpu"
