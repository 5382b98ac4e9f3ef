"""Layers that take labels, where the values of these cannot be looked at: transforms, fake tensors and traces."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from gan_blocks import ClassConditionalBatchNorm2d, ProjectedEmbedding, ProjectionHead, SharedEmbedding
from tests.drawn import draw, randomize

# Each layer with what comes before the labels, one sample of it.
LAYERS: dict[str, tuple[Callable[[], nn.Module], list[Tensor]]] = {
    "ClassConditionalBatchNorm2d": (lambda: ClassConditionalBatchNorm2d(4, num_classes=10).eval(), [draw(3, 4, 2, 2)]),
    "ProjectedEmbedding": (lambda: ProjectedEmbedding(10, 4, 5), []),
    "ProjectionHead": (lambda: ProjectionHead(4, 10), [draw(3, 4)]),
    "SharedEmbedding": (lambda: SharedEmbedding(10, 4), []),
}
every = pytest.mark.parametrize("name", LAYERS)
LABELS = torch.tensor([1, 2, 9])


@every
def test_gradients_per_sample_are_those_of_each_sample_alone(name: str):
    make, inputs = LAYERS[name]
    layer = randomize(make())
    parameters = dict(layer.named_parameters())

    def loss(parameters: dict[str, Tensor], *sample: Tensor) -> Tensor:
        return functional_call(layer, parameters, tuple(value[None] for value in sample)).square().sum()

    together = vmap(grad(loss), (None, *[0] * len(inputs), 0))(parameters, *inputs, LABELS)
    for i, label in enumerate(LABELS):
        alone = grad(loss)(parameters, *(value[i] for value in inputs), label)
        for key in parameters:
            torch.testing.assert_close(together[key][i], alone[key])


@every
def test_runs_on_fake_tensors(name: str):
    make, inputs = LAYERS[name]
    with FakeTensorMode():
        shapes = [value.shape for value in inputs]
        assert len(make()(*map(torch.zeros, shapes), torch.zeros(3, dtype=torch.int64))) == 3


@every
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_traces_keep_no_label(name: str, mode: str):
    make, inputs = LAYERS[name]
    layer = make().double()
    state = layer.state_dict()
    traced = make_fx(partial(functional_call, layer), tracing_mode=mode)(state, (*inputs, LABELS))
    other = (*inputs, LABELS.flip(0))
    assert torch.equal(traced(state, other), layer(*other))


@pytest.mark.parametrize("name", ["ProjectedEmbedding", "SharedEmbedding"])  # jit warns of every other shape check
@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_a_script_keeps_no_label(name: str):
    make, inputs = LAYERS[name]
    layer = make().double()
    traced = torch.jit.trace(layer, (*inputs, LABELS), check_trace=False)  # a warning would be an error
    other = (*inputs, LABELS.flip(0))
    assert torch.equal(traced(*other), layer(*other))
