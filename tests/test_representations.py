"""What ``repr`` and ``help`` say: the settings of everything that is made, and every name in its place."""

import inspect
import re
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from torch import nn

import gan_blocks
from gan_blocks import BatchNormTable

# Values that stand for nothing else: what repr shows of them was given here.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "AdaptiveGaussianNoise": {"strength": 0.37, "threshold": 0.61, "decay": 0.83},
    "AnnealedNormalPrior": {"dim": 37, "milestones": ((0, 1.5), (61, 0.7))},
    "BernoulliPrior": {"dim": 37},
    "BiasedActivation": {"num_features": 37},
    "BottleneckDiscriminatorBlock": {
        "in_channels": 36,
        "out_channels": 75,
        "downsample": True,
        "bottleneck_ratio": 3,
        "groups": 5,
    },
    "BottleneckGeneratorBlock": {
        "in_channels": 75,
        "out_channels": 36,
        "upsample": True,
        "bottleneck_ratio": 3,
        "groups": 5,
    },
    "CategoricalPrior": {"dim": 37},
    "CensoredNormalPrior": {"dim": 37},
    "ClassConditionalBatchNorm2d": {
        "num_features": 37,
        "num_classes": 61,
        "eps": 0.0037,
        "momentum": 0.43,
        "statistics": "batch",
    },
    "ConditionalBatchNorm2d": {
        "num_features": 37,
        "condition_dim": 61,
        "eps": 0.0037,
        "momentum": 0.43,
        "statistics": "batch",
    },
    "CrossReplicaBatchNorm2d": {
        "num_features": 37,
        "eps": 0.0037,
        "momentum": 0.43,
        "affine": False,
        "statistics": "batch",
    },
    "EqualizedConv2d": {
        "in_channels": 37 * 11,
        "out_channels": 61 * 11,
        "kernel_size": 5,
        "stride": 3,
        "padding": 7,
        "dilation": 2,
        "groups": 11,
        "bias": False,
        "gain": (37 * 25) ** 0.5 / 4,
    },
    "EqualizedConvTranspose2d": {
        "in_channels": 37,
        "out_channels": 61,
        "kernel_size": 5,
        "stride": 3,
        "padding": 4,
        "bias": False,
        "gain": (37 * 25) ** 0.5 / 4,
    },
    "EqualizedLearningRate": {"scale": 0.37},
    "EqualizedLinear": {"in_features": 37, "out_features": 61, "bias": False, "gain": 37**0.5 / 4},
    "ExponentialMovingAverage": {"model": nn.Linear(37, 61), "decay": 0.83},
    "FeatureMoments": {"num_features": 37},
    "FiLM2d": {"num_features": 37, "condition_dim": 61},
    "FromRGB": {"image_channels": 37, "out_channels": 61},
    "FullSkipZ": {"latent_dim": 37, "embedding_dim": 61, "num_blocks": 5},
    "GrowthSchedule": {
        "final_resolution": 128,
        "initial_resolution": 8,
        "stabilize_images": 3700,
        "fade_images": 6100,
        "batch_sizes": ((8, 41),),
        "learning_rates": ((8, 0.0043),),
    },
    "HierarchicalSkipZ": {"latent_dim": 36, "embedding_dim": 61, "num_blocks": 5},
    "LearnedConstant2d": {"num_features": 37, "height": 5, "width": 7},
    "MinibatchDiscrimination": {"in_features": 37, "num_kernels": 61, "kernel_dim": 7},
    "MinibatchStdDev": {"group_size": 37, "eps": 0.0043},
    "NoSkipZ": {"latent_dim": 37, "embedding_dim": 61, "num_blocks": 5},
    "NormalBernoulliPrior": {"dim": 38},
    "NormalPrior": {"dim": 37, "std": 0.61},
    "PixelNorm": {"eps": 0.0043},
    "PlainDiscriminatorBlock": {"in_channels": 37, "out_channels": 61},
    "PlainGeneratorBlock": {"in_channels": 37, "out_channels": 61},
    "ProgressiveDiscriminatorBlock": {"in_channels": 37, "out_channels": 61},
    "ProgressiveDiscriminatorHead": {"in_channels": 37, "hidden_channels": 61, "stddev_layer": None},
    "ProgressiveGeneratorBlock": {"in_channels": 37, "out_channels": 61},
    "ProgressiveGeneratorStem": {"latent_dim": 37, "out_channels": 61},
    "ProjectedEmbedding": {"num_classes": 37, "embedding_dim": 61, "out_features": 43},
    "ProjectionHead": {"in_features": 37, "num_classes": 61},
    "RademacherPrior": {"dim": 37},
    "ResidualDiscriminatorBlock": {
        "in_channels": 36,
        "out_channels": 72,
        "hidden_channels": 40,
        "downsample": True,
        "preactivation": False,
        "kernel_size": 5,
        "dilation": 2,
        "groups": 4,
    },
    "ResidualGeneratorBlock": {
        "in_channels": 36,
        "out_channels": 72,
        "upsample": True,
        "kernel_size": 5,
        "dilation": 2,
        "groups": 4,
    },
    "SelfAttention2d": {"channels": 40},
    "SharedEmbedding": {"num_classes": 37, "embedding_dim": 61},
    "SigmaClamp": {
        "weight": torch.ones(37, 61),
        "maximum": 0.43,
        "num_singular_values": 3,
        "n_power_iterations": 7,
    },
    "SpectralNorm": {
        "weight": torch.ones(37, 61),
        "num_singular_values": 3,
        "n_power_iterations": 7,
        "eps": 0.0043,
        "dim": 1,
    },
    "SpectrumMonitor": {"model": nn.Linear(37, 61), "k": 5, "tol": 0.0043},
    "SphericalPrior": {"dim": 37},
    "SpikeAndSlabPrior": {"dim": 37},
    "ToRGB": {"in_channels": 37, "image_channels": 61},
    "TopKSchedule": {"batch_size": 64, "gamma": 0.83, "floor": 37, "decay_steps": 610},
    "TruncatedBatchNormStatistics": {
        "truncations": torch.tensor([0.25, 0.75]),
        "tables": {"norm": BatchNormTable(torch.zeros(2, 37), torch.ones(2, 37))},
    },
    "TruncatedNormalPrior": {"dim": 37, "threshold": 0.83, "std": 0.61},
    "UnconditionalHead": {"in_features": 37},
    "UniformPrior": {"dim": 37},
    "VariableVariancePrior": {"dim": 37, "lowest_variance": 0.43, "highest_variance": 1.61},
}
# Of which repr shows what they amount to, or which are gone once it is made.
NOT_SHOWN = {
    ("EqualizedConv2d", "gain"): "scale=0.25",
    ("EqualizedConvTranspose2d", "gain"): "scale=0.25",
    ("EqualizedLinear", "gain"): "scale=0.25",
    ("BottleneckDiscriminatorBlock", "bottleneck_ratio"): "Conv2d(25, 25",
    ("BottleneckGeneratorBlock", "bottleneck_ratio"): "Conv2d(25, 25",
    ("SigmaClamp", "ratio"): "",  # instead of a maximum
    ("SigmaClamp", "warmup_iterations"): "",
    ("SigmaClamp", "dim"): "",
    ("SpectralNorm", "warmup_iterations"): "",
    ("TopKSchedule", "floor_share"): "",  # instead of a floor
    ("TopKSchedule", "decay_images"): "",  # instead of steps
    ("HierarchicalSkipZ", "latent_dim"): "36",
}


def made_here() -> list[str]:
    """The public classes of which there are objects, but for tuples, whose fields are shown by Python."""
    classes = [name for name in gan_blocks.__all__ if inspect.isclass(getattr(gan_blocks, name))]
    return [
        name
        for name in classes
        if not issubclass(kind := getattr(gan_blocks, name), tuple)
        and not inspect.isabstract(kind)
        and not getattr(kind, "_is_protocol", False)
    ]


def settings(kind: type) -> list[str]:
    """The arguments that are numbers or words."""
    found = inspect.signature(kind).parameters.values()

    def plain(annotation: Any) -> bool:
        parts = (
            [part for part in get_args(annotation) if part is not type(None)]
            if annotation.__class__.__name__
            in (
                "UnionType",
                "Union",
            )
            else [annotation]
        )
        return all(part in (int, float, bool, str) or get_origin(part) is Literal for part in parts)

    return [parameter.name for parameter in found if plain(parameter.annotation)]


def test_every_class_is_tried_here():
    assert sorted(ARGUMENTS) == sorted(made_here())


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_repr_shows_the_settings(name: str):
    kind, arguments = getattr(gan_blocks, name), ARGUMENTS[name]
    hidden = {setting for owner, setting in NOT_SHOWN if owner == name} | {"zero_init_residual"}  # a first value
    assert set(settings(kind)) <= set(arguments) | hidden
    shown = repr(kind(**arguments))
    for setting, value in arguments.items():
        if (name, setting) in NOT_SHOWN:
            assert NOT_SHOWN[name, setting] in shown
        elif isinstance(value, bool):
            assert repr(kind(**{**arguments, setting: not value})) != shown, setting
        elif isinstance(value, int | float | str | tuple):
            assert re.search(rf"(?<![\w.]){re.escape(str(value))}(?![\w.])", shown), (setting, shown)


def test_help_lists_every_name_once_with_the_part_that_it_is_of():
    """In the order of the parts' building on each other, each with its names in the order of the alphabet."""
    blocks = re.findall(r"^(\w+): \S.*\n((?:    .*\n)+)", gan_blocks.__doc__ or "", re.MULTILINE)
    listed = {part: re.findall(r"\w+", names) for part, names in blocks}
    for names in listed.values():
        assert names == sorted(names, key=lambda name: (name.lower(), name))
    homes = {name: getattr(gan_blocks, name).__module__.split(".")[1] for name in gan_blocks.__all__}
    assert sorted((name, part) for part, names in listed.items() for name in names) == sorted(homes.items())
