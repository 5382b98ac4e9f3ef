"""What every part says of an argument of the wrong kind: a layer for its class, or a class for its layer."""

import inspect
import re
from contextlib import AbstractContextManager

import pytest
import torch
from torch import nn

import gan_blocks

PARTS = {name: getattr(gan_blocks, name) for name in gan_blocks.__all__}
SIGNATURES = {name: inspect.signature(part).parameters for name, part in PARTS.items() if callable(part)}
FACTORIES = [(name, option) for name, options in SIGNATURES.items() for option in options if option.endswith("_layer")]
FLAGS = [
    (name, option)
    for name, options in SIGNATURES.items()
    for option, about in options.items()
    if PARTS[name].__module__.startswith("gan_blocks.blocks.") and about.annotation is bool
]
PASSED_ON = {"kernel_size", "stride", "padding", "dilation"}  # to torch, whose convolutions take pairs too
SIZES = [
    (name, option)
    for name, options in SIGNATURES.items()
    for option, about in options.items()
    if PARTS[name].__module__.split(".")[1] in {"blocks", "conditioning", "latents", "layers"}
    and inspect.isclass(PARTS[name])
    and not inspect.isabstract(PARTS[name])
    and about.annotation in (int, int | None)
    and not (name.startswith("Equalized") and option in PASSED_ON)
]
# A convolution is only called, so that a function will do.
MODULES = [
    (name, first)
    for name, options in SIGNATURES.items()
    for first, about in list(options.items())[:1]
    if str(about.annotation) in {str(nn.Module), "~ModuleT"} and first != "conv"
]


def called(name, **options):
    """Call a part with one wrong option, and 8 for each other that has no default."""
    needed = {
        option: 8
        for option, about in SIGNATURES[name].items()
        if about.default is about.empty and about.kind is not about.VAR_KEYWORD
    }
    result = PARTS[name](**{**needed, **options})
    if isinstance(result, AbstractContextManager):
        with result:
            pass


def test_the_signatures_are_found():
    assert {("ResidualGeneratorBlock", "norm_layer"), ("SelfAttention2d", "conv_layer")} <= set(FACTORIES)
    assert ("BottleneckGeneratorBlock", "upsample") in FLAGS
    assert {("SelfAttention2d", "channels"), ("NormalPrior", "dim"), ("MinibatchStdDev", "group_size")} <= set(SIZES)
    assert {("spectral_norm", "module"), ("SpectrumMonitor", "model"), ("init_orthogonal_", "module")} <= set(MODULES)


@pytest.mark.parametrize(("name", "option"), FACTORIES)
@pytest.mark.parametrize(
    ("value", "end"), [(nn.ReLU(), "Pass the class ReLU, or a functools.partial of it."), (3, "int.")]
)
def test_a_layer_makes_no_layers(name, option, value, end):
    rule = f"{name}: `{option}` must be a class or function that makes layers, but got {option} of type "
    with pytest.raises(TypeError, match=f"^{re.escape(rule)}.*{re.escape(end)}$"):
        called(name, **{option: value})


@pytest.mark.parametrize(("name", "option"), FLAGS)
def test_a_word_is_no_flag(name, option):
    rule = f"{name}: `{option}` must be True or False, but got {option} of type str."
    with pytest.raises(TypeError, match=f"^{re.escape(rule)}$"):
        called(name, **{option: "nearest"})


@pytest.mark.parametrize(("name", "option"), SIZES)
@pytest.mark.parametrize("value", [8.0, True, "8"])
def test_sizes_are_whole_numbers(name, option, value):
    rule = f"{name}: `{option}` must be a whole number, but got {option} of type {type(value).__name__}."
    with pytest.raises(TypeError, match=f"^{re.escape(rule)}$"):
        called(name, **{option: value})


@pytest.mark.parametrize(("name", "option"), MODULES)
@pytest.mark.parametrize("value", [nn.Linear, torch.ones(2), None])
def test_a_class_is_no_module(name, option, value):
    got = "the class Linear." if value is nn.Linear else f"{option} of type {type(value).__name__}."
    rule = f"{name}: `{option}` must be a module, such as nn.Linear(4, 3), but got {got}"
    with pytest.raises(TypeError, match=f"^{re.escape(rule)}"):
        called(name, **{option: value})


X = torch.ones(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: gan_blocks.normalized_layer("conv"),
            "normalized_layer: `layer` must be a class or function that makes layers, but got layer of type str.",
        ),
        (
            lambda: gan_blocks.ExponentialMovingAverage(nn.ReLU(), decay="0.9"),
            "ExponentialMovingAverage: `decay` must be a number from 0 to 1, but got decay of type str.",
        ),
        (
            lambda: gan_blocks.ResidualDiscriminatorBlock("8", 8),
            "ResidualDiscriminatorBlock: `in_channels` must be a whole number, but got in_channels of type str.",
        ),
        (
            lambda: gan_blocks.ResidualDiscriminatorBlock(3, 8)(X.numpy()),
            "ResidualDiscriminatorBlock: `x` must be a tensor, but got x of type ndarray.",
        ),
        (
            lambda: gan_blocks.hinge_generator_loss(fake_logits=torch.ones(4, dtype=torch.int64)),
            "hinge_generator_loss: `fake_logits` must be of a real floating dtype, but got fake_logits of dtype "
            "torch.int64.",
        ),
        (
            lambda: gan_blocks.hinge_generator_loss(fake_logits=[1.0, 2.0]),
            "hinge_generator_loss: `fake_logits` must be a tensor, or a sequence of tensors, but got fake_logits of "
            "type list. It holds one of type float.",
        ),
        (
            lambda: gan_blocks.r1_penalty(nn.Linear, X),
            "r1_penalty: `discriminator` must be a module or a function of images, but got the class Linear.",
        ),
        (
            lambda: gan_blocks.gradient_penalty(None, real_images=X, fake_images=X),
            "gradient_penalty: `discriminator` must be a module or a function of images, but got discriminator of type "
            "NoneType.",
        ),
    ],
)
def test_other_kinds_are_named(call, message):
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: gan_blocks.SharedEmbedding(10, 4)(torch.tensor([10])),
            "SharedEmbedding: `y` must be at least 0 and less than num_classes=10, but got 10.",
        ),
        (
            lambda: gan_blocks.SharedEmbedding(10, 4)(torch.zeros(4, 1, dtype=torch.int64)),
            "SharedEmbedding: `y` must be of shape (batch,), but got y of shape (4, 1).",
        ),
        (
            lambda: gan_blocks.spectral_norm(nn.Sequential(nn.Linear(3, 3))),
            "spectral_norm: `name` must be an initialized parameter of Sequential (it has none), but got "
            "name='weight'. "
            "All layers of a model are normalized by normalize_layers.",
        ),
    ],
)
def test_values_that_do_not_fit_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
