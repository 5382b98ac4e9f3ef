import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from gan_blocks import clamp_sigma
from gan_blocks import spectral_norm as blocks_spectral_norm
from gan_blocks.spectral import monitor as monitor_module
from gan_blocks.spectral.monitor import LayerSpectrum, SpectrumMonitor
from gan_blocks.spectral.singular_values.arnoldi import SingularTriplets, top_singular_triplets


def small_gan_part() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(7, 5),
        nn.Linear(5, 12),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 6, 3)),
        nn.Linear(5, 12),
        nn.Linear(500, 450, bias=False),
        nn.Linear(12, 1),
    )


def assert_measures(spectrum: LayerSpectrum, matrix: Tensor, k: int = 3, tol: float = 1e-3) -> None:
    expected = torch.linalg.svdvals(matrix.detach().double())[:k]
    assert spectrum.sigmas.shape == spectrum.error_bound.shape == expected.shape
    assert ((spectrum.sigmas - expected).abs() <= spectrum.error_bound).all()
    assert (spectrum.error_bound <= tol * expected[0]).all()
    assert spectrum.frobenius_norm.item() == pytest.approx(matrix.detach().double().norm().item(), rel=1e-5)


def test_every_weight_is_measured_by_name_in_order_of_depth():
    model = small_gan_part()
    spectra = SpectrumMonitor(model).measure()
    matrices = {
        "0": model[0].weight,
        "1": model[1].weight,
        "2.0": model[2][0].weight.flatten(1),
        "2.2": model[2][2].weight.transpose(0, 1).flatten(1),
        "3": model[3].weight,
        "4": model[4].weight,
        "5": model[5].weight,
    }
    assert list(spectra) == list(matrices)
    for depth, (name, matrix) in enumerate(matrices.items()):
        assert spectra[name].depth == depth
        assert_measures(spectra[name], matrix)


def test_it_follows_weights_that_change():
    model = small_gan_part()
    monitor = SpectrumMonitor(model, k=2, tol=1e-5)
    rng = torch.Generator().manual_seed(1)
    for size in (0.0, 1e-3, 0.1, 10.0):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += size * torch.randn(parameter.shape, generator=rng)
        spectra = monitor.measure()
        assert_measures(spectra["4"], model[4].weight, k=2, tol=1e-5)
        assert_measures(spectra["1"], model[1].weight, k=2, tol=1e-5)


def test_equal_shapes_go_together_and_start_from_the_previous_call(monkeypatch: pytest.MonkeyPatch):
    calls: list[tuple[int, SingularTriplets | None]] = []

    def recorded(weights: Sequence[Tensor], *args: object, **kwargs: object) -> SingularTriplets:
        calls.append((len(weights), kwargs["start"]))
        return top_singular_triplets(weights, *args, **kwargs)

    monkeypatch.setattr(monitor_module, "top_singular_triplets", recorded)
    model = small_gan_part()
    monitor = SpectrumMonitor(model)
    first = monitor.measure()
    assert sorted(n for n, _ in calls) == [1, 1, 1, 1, 1, 2]
    assert all(start is None for _, start in calls)
    calls.clear()
    monitor.measure()
    starts = {n: start for n, start in calls if n == 2}
    assert starts[2].s.equal(torch.stack([first["1"].sigmas, first["3"].sigmas]))
    assert all(start is not None for _, start in calls)


def test_a_model_may_grow_or_change_its_shapes_between_measurements():
    model = nn.Sequential(nn.Linear(4, 5))
    monitor = SpectrumMonitor(model)
    monitor.measure()
    model.append(nn.Linear(4, 5))
    assert list(monitor.measure()) == ["0", "1"]
    model[0] = nn.Linear(6, 5)
    spectra = monitor.measure()
    assert_measures(spectra["0"], model[0].weight)
    assert_measures(spectra["1"], model[1].weight)


def test_normalized_weights_are_measured_before_normalization():
    model = nn.Sequential(nn.Linear(4, 5), nn.Conv2d(3, 4, 3))
    with torch.no_grad():
        model[0].weight.mul_(10)
    originals = [layer.weight.detach().clone() for layer in model]
    for layer in model:
        spectral_norm(layer)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    spectra = SpectrumMonitor(model).measure()
    assert list(spectra) == ["0", "1"]
    assert_measures(spectra["0"], originals[0])
    assert_measures(spectra["1"], originals[1].flatten(1))
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    assert model.training


def test_a_clamp_that_acts_first_is_measured_with_its_effect(rng: torch.Generator):
    matrix = torch.diag(torch.tensor([5.0, 3.0, 2.0, 1.0]))
    layers = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3)))
    layers.load_state_dict({f"{number}.weight": matrix for number in range(3)})
    clamp_sigma(layers[0], maximum=4.0, warmup_iterations=100, generator=rng)
    blocks_spectral_norm(clamp_sigma(layers[1], ratio=1.0, warmup_iterations=100, generator=rng))
    clamp_sigma(blocks_spectral_norm(layers[2]), maximum=0.5)
    spectra = SpectrumMonitor(layers).measure()
    for layer, expected in zip(layers, ([4.0, 3.0, 2.0], [3.0, 3.0, 2.0], [5.0, 3.0, 2.0]), strict=True):
        assert layer.training
        assert layer.parametrizations.weight.original.equal(matrix)
        assert spectra.pop(next(iter(spectra))).sigmas.tolist() == pytest.approx(expected, rel=1e-3)


def test_a_tensor_made_from_several_is_measured_by_its_parts():
    layer = weight_norm(nn.Linear(4, 5))
    spectra = SpectrumMonitor(layer).measure()
    assert list(spectra) == ["weight.original0", "weight.original1"]
    assert_measures(spectra["weight.original1"], layer.parametrizations.weight.original1)


def test_tensors_with_other_names_are_named_and_shared_ones_measured_once():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.rand(3, 4))
            self.scale = nn.Parameter(torch.rand(4))
            self.gate = nn.Bilinear(2, 3, 4)
            self.again = nn.Embedding(3, 4)
            self.again.weight = self.table

    assert list(SpectrumMonitor(nn.Sequential(Tied(), Tied())).measure()) == ["0.table", "0.gate", "1.table", "1.gate"]
    assert list(SpectrumMonitor(nn.Linear(2, 2)).measure()) == ["weight"]


def test_narrow_and_huge_weights_are_measured():
    model = nn.Linear(6, 5, dtype=torch.bfloat16)
    assert_measures(SpectrumMonitor(model).measure()["weight"], model.weight)
    model = nn.Linear(6, 5)
    with torch.no_grad():
        model.weight.mul_(1e25)
    assert_measures(SpectrumMonitor(model).measure()["weight"], model.weight)


def test_the_frobenius_norm_of_a_large_weight_keeps_its_digits(rng: torch.Generator):
    model = nn.Linear(20_000, 100, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.randn(100, 20_000, generator=rng))
    norm = SpectrumMonitor(model, k=1).measure()["weight"].frobenius_norm
    assert norm.item() == pytest.approx(model.weight.detach().double().norm().item(), rel=1e-6)


def test_measuring_takes_no_gradient_and_no_global_randomness():
    model = small_gan_part()
    state = torch.get_rng_state()
    spectra = SpectrumMonitor(model).measure()
    assert torch.get_rng_state().equal(state)
    assert not any(
        spectrum.sigmas.requires_grad or spectrum.frobenius_norm.requires_grad for spectrum in spectra.values()
    )


def test_the_meta_device_gives_shapes():
    spectra = SpectrumMonitor(nn.Linear(5, 2, device="meta")).measure()
    assert spectra["weight"].sigmas.shape == (2,)


@pytest.mark.parametrize("entry", ["nan", "inf"])
def test_names_the_layer_of_a_weight_that_is_not_finite(entry: str):
    model = small_gan_part()
    with torch.no_grad():
        model[2][0].weight[1, 2, 0, 0] = float(entry)
    message = f"SpectrumMonitor: `weight of 2.0` must be finite, but got weight of 2.0={entry}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SpectrumMonitor(model).measure()


def test_rejects_arguments_outside_their_range():
    with pytest.raises(ValueError, match=r"^SpectrumMonitor: `k` must be greater than 0, but got k=0\.$"):
        SpectrumMonitor(nn.Linear(2, 2), k=0)
    with pytest.raises(ValueError, match=r"^SpectrumMonitor: `tol` must be greater than 0, but got tol=0\.$"):
        SpectrumMonitor(nn.Linear(2, 2), tol=0)
    with pytest.raises(
        ValueError, match=r"^SpectrumMonitor: `model` must be a module with weight matrices, but got model='ReLU'\.$"
    ):
        SpectrumMonitor(nn.ReLU()).measure()
