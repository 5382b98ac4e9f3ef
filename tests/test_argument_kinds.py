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


@pytest.mark.parametrize(("name", "option"), MODULES)
@pytest.mark.parametrize("value", [nn.Linear, torch.ones(2), None])
def test_a_class_is_no_module(name, option, value):
    rule = f"{name}: `{option}` must be a module, such as nn.Linear(4, 3), but got {option} of type "
    with pytest.raises(TypeError, match=f"^{re.escape(rule)}"):
        called(name, **{option: value})
