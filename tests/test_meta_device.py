"""Modules that were made without memory: ``to_empty`` and ``reset_parameters`` give what construction gives."""

import inspect
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import gan_blocks
from gan_blocks import (
    AdaptiveGaussianNoise,
    BiasedActivation,
    BottleneckDiscriminatorBlock,
    BottleneckGeneratorBlock,
    ClassConditionalBatchNorm2d,
    ConditionalBatchNorm2d,
    CrossReplicaBatchNorm2d,
    EqualizedConv2d,
    EqualizedConvTranspose2d,
    EqualizedLinear,
    FiLM2d,
    FromRGB,
    LearnedConstant2d,
    MinibatchDiscrimination,
    PlainDiscriminatorBlock,
    PlainGeneratorBlock,
    ProgressiveDiscriminatorBlock,
    ProgressiveDiscriminatorHead,
    ProgressiveGeneratorBlock,
    ProgressiveGeneratorStem,
    ProjectedEmbedding,
    ProjectionHead,
    ResidualDiscriminatorBlock,
    ResidualGeneratorBlock,
    SelfAttention2d,
    SharedEmbedding,
    ToRGB,
    UnconditionalHead,
)

conditional_norm = partial(ConditionalBatchNorm2d, condition_dim=3)
MODULES: dict[str, Callable[[], nn.Module]] = {
    "AdaptiveGaussianNoise": AdaptiveGaussianNoise,
    "BiasedActivation": lambda: BiasedActivation(4),
    "BottleneckDiscriminatorBlock": lambda: BottleneckDiscriminatorBlock(4, 8),
    "BottleneckGeneratorBlock": lambda: BottleneckGeneratorBlock(8, 4, norm_layer=conditional_norm),
    "ClassConditionalBatchNorm2d": lambda: ClassConditionalBatchNorm2d(4, 3),
    "ConditionalBatchNorm2d": lambda: ConditionalBatchNorm2d(4, 3),
    "CrossReplicaBatchNorm2d": lambda: CrossReplicaBatchNorm2d(4),
    "EqualizedConv2d": lambda: EqualizedConv2d(64, 64, 3),
    "EqualizedConvTranspose2d": lambda: EqualizedConvTranspose2d(64, 64, 3),
    "EqualizedLinear": lambda: EqualizedLinear(128, 128),
    "FiLM2d": lambda: FiLM2d(4, 3),
    "FromRGB": lambda: FromRGB(3, 512),
    "LearnedConstant2d": lambda: LearnedConstant2d(4, 4),
    "MinibatchDiscrimination": lambda: MinibatchDiscrimination(4),
    "PlainDiscriminatorBlock": lambda: PlainDiscriminatorBlock(3, 4),
    "PlainGeneratorBlock": lambda: PlainGeneratorBlock(4, 3),
    "ProgressiveDiscriminatorBlock": lambda: ProgressiveDiscriminatorBlock(64, 64),
    "ProgressiveDiscriminatorHead": lambda: ProgressiveDiscriminatorHead(64, 64),
    "ProgressiveGeneratorBlock": lambda: ProgressiveGeneratorBlock(64, 64),
    "ProgressiveGeneratorStem": lambda: ProgressiveGeneratorStem(64, 64),
    "ProjectedEmbedding": lambda: ProjectedEmbedding(3, 4, 5),
    "ProjectionHead": lambda: ProjectionHead(4, 3),
    "ResidualDiscriminatorBlock": lambda: ResidualDiscriminatorBlock(3, 4),
    "ResidualGeneratorBlock": lambda: ResidualGeneratorBlock(4, 3, norm_layer=conditional_norm),
    "SelfAttention2d": lambda: SelfAttention2d(8),
    "SharedEmbedding": lambda: SharedEmbedding(3, 4),
    "ToRGB": lambda: ToRGB(512),
    "UnconditionalHead": lambda: UnconditionalHead(4),
}
# Their vectors follow a weight that they do not hold: see the last test.
WITH_A_WEIGHT = {"SigmaClamp", "SpectralNorm"}


def test_every_module_with_state_is_here():
    public = {name for name in gan_blocks.__all__ if inspect.isclass(getattr(gan_blocks, name))}
    modules = {name for name in public if issubclass(getattr(gan_blocks, name), nn.Module)}
    without = {"EqualizedLearningRate", "FullSkipZ", "HierarchicalSkipZ", "MinibatchStdDev", "NoSkipZ", "PixelNorm"}
    assert modules - without - WITH_A_WEIGHT == MODULES.keys()


@pytest.mark.parametrize("name", MODULES)
def test_emptied_and_reset_it_is_as_it_was_made(name: str):
    torch.manual_seed(0)
    made = MODULES[name]()
    with torch.device("meta"):
        reset = MODULES[name]()
    assert all(tensor.is_meta for tensor in [*reset.parameters(), *reset.buffers()])
    reset.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in [*reset.parameters(), *reset.buffers()]:
            tensor.fill_(float("nan") if tensor.is_floating_point() else -1)
    torch.manual_seed(0)
    for module in reset.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    equalized = any(isinstance(part, gan_blocks.EqualizedLearningRate) for part in made.modules())
    state = reset.state_dict()
    assert state.keys() == made.state_dict().keys()
    for key, value in made.state_dict().items():
        # A constructor of torch draws a weight of its own before that of the equalized layer.
        same = alike if equalized else torch.equal
        assert same(state[key], value), key


def alike(first: Tensor, second: Tensor) -> bool:
    """Whether both have the same mean and deviation, as far as so many draws tell."""
    error = 4 / first.numel() ** 0.5
    moments = zip(torch.std_mean(first, correction=0), torch.std_mean(second, correction=0), strict=True)
    return all(abs(one - other) <= error for one, other in moments)


LAYERS = [name for name in MODULES if getattr(gan_blocks, name).__module__.split(".")[1] in {"conditioning", "layers"}]


@pytest.mark.parametrize("name", MODULES)
def test_it_can_be_made_of_fake_tensors(name: str):
    with FakeTensorMode():
        assert all(isinstance(parameter.data, FakeTensor) for parameter in MODULES[name]().parameters())


@pytest.mark.parametrize("name", LAYERS)
def test_what_owns_tensors_takes_device_and_dtype(name: str):
    kind = getattr(gan_blocks, name)
    assert {"device", "dtype"} <= inspect.signature(kind).parameters.keys()
    arguments = dict.fromkeys(("num_features", "channels", "in_channels", "out_channels", "height"), 8)
    arguments |= {
        "kernel_size": 1,
        "in_features": 8,
        "out_features": 8,
        "num_classes": 8,
        "embedding_dim": 8,
        "condition_dim": 8,
    }
    taken = {key: value for key, value in arguments.items() if key in inspect.signature(kind).parameters}
    module = kind(**taken, device="meta", dtype=torch.float64)
    tensors = [tensor for tensor in [*module.parameters(), *module.buffers()] if tensor.is_floating_point()]
    assert tensors
    assert all(tensor.is_meta and tensor.dtype == torch.float64 for tensor in tensors)


@pytest.mark.parametrize("register", [gan_blocks.spectral_norm, partial(gan_blocks.clamp_sigma, maximum=1.0)])
@pytest.mark.parametrize("layer", [partial(nn.Linear, 16, 16), partial(nn.Conv2d, 3, 8, 3)], ids=["linear", "conv"])
def test_singular_vectors_settle_on_a_weight_that_has_its_values_before_they_are_reset(register, layer):
    with torch.device("meta"):
        model = nn.Sequential(register(layer()))
    model.to_empty(device="cpu")
    tracker, raw = model[0].parametrizations.weight[0], model[0].parametrizations.weight.original
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(float("nan"))
        raw.copy_(torch.randn(raw.shape, generator=torch.Generator().manual_seed(0)))
    torch.manual_seed(0)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    if register is gan_blocks.spectral_norm:
        assert 0.99 < torch.linalg.matrix_norm(model[0].weight.flatten(1), 2) < 1.6
    for rows in (tracker.u, tracker.v):
        torch.testing.assert_close(rows @ rows.mT, torch.eye(len(rows)))
    torch.manual_seed(0)
    made = layer()
    with torch.no_grad():
        made.weight.copy_(raw)
    torch.testing.assert_close(register(made).weight, model[0].weight, rtol=0.05, atol=0.05)
