from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn, optim

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.runs.checkpoints import load_latest_checkpoint, save_checkpoint
from gan_blocks.engine.runs.optimizers import flatten_optimizer, restore_optimizer
from gan_blocks.engine.runs.weights import load_weights
from tests.engine.runs.saved_checkpoints import METADATA

MakeOptimizer = Callable[[list[nn.Parameter]], optim.Optimizer]


def fused_adam(parameters: list[nn.Parameter]) -> optim.Optimizer:
    return optim.Adam(parameters, lr=1e-2, betas=(0.0, 0.999), fused=True)


def network(seed: int, memory_format: torch.memory_format = torch.channels_last) -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(2 * 4, 1))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return net.to(memory_format=memory_format)


def train(net: nn.Module, optimizer: optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        images = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        net(images.to(memory_format=torch.channels_last)).square().mean().backward()
        optimizer.step()


def fitted(make: MakeOptimizer = fused_adam) -> tuple[nn.Module, optim.Optimizer]:
    net = network(0)
    optimizer = make(list(net.parameters()))
    train(net, optimizer, range(3))
    return net, optimizer


def saved_state(make: MakeOptimizer = fused_adam) -> dict[str, Tensor]:
    net, optimizer = fitted(make)
    return flatten_optimizer(optimizer, net)


@pytest.mark.parametrize(
    "make",
    [
        fused_adam,
        lambda parameters: optim.Adam(parameters, lr=1e-2, fused=True, amsgrad=True),
        lambda parameters: optim.Adam(parameters, lr=1e-2),
        lambda parameters: optim.AdamW(parameters, lr=1e-2, foreach=True),
        lambda parameters: optim.RMSprop(parameters, lr=1e-3, momentum=0.9, centered=True),
        lambda parameters: optim.SGD(parameters, lr=1e-2, momentum=0.9),
        lambda parameters: optim.SGD(parameters, lr=1e-2),
        lambda parameters: optim.Adafactor(parameters, lr=1e-2),
        lambda parameters: optim.Adam([{"params": parameters[:3]}, {"params": parameters[3:], "amsgrad": True}], 1e-2),
        lambda parameters: optim.RMSprop(
            [{"params": parameters[:3]}, {"params": parameters[3:], "momentum": 0.9}], 1e-3
        ),
    ],
    ids=[
        *("fused adam", "fused amsgrad", "adam", "foreach adamw", "rmsprop", "momentum", "sgd"),
        *("adafactor", "amsgrad in one group", "momentum in one group"),
    ],
)
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format], ids=["nhwc", "nchw"])
def test_training_continues_bit_for_bit_in_new_instances(
    tmp_path: Path, make: MakeOptimizer, memory_format: torch.memory_format
):
    net = network(0, memory_format)
    optimizer = make(list(net.parameters()))
    train(net, optimizer, range(3))
    tensors = {"generator": net.state_dict(), "optimizer_g": flatten_optimizer(optimizer, net)}
    save_checkpoint(tmp_path, 3, tensors, METADATA, keep_last=1)
    train(net, optimizer, range(3, 6))

    resumed = network(1, memory_format)
    resumed_optimizer = make(list(resumed.parameters()))
    found = load_latest_checkpoint(tmp_path)
    load_weights(resumed, found.tensors["generator"], "generator")
    restore_optimizer(resumed_optimizer, resumed, found.tensors["optimizer_g"])
    train(resumed, resumed_optimizer, range(3, 6))

    for name, value in net.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    now, then = flatten_optimizer(resumed_optimizer, resumed), flatten_optimizer(optimizer, net)
    assert now.keys() == then.keys()
    assert all(torch.equal(now[name], then[name]) for name in then)


def test_without_its_state_the_optimizer_would_go_elsewhere():
    net, optimizer = fitted()
    other = network(1)
    other.load_state_dict(net.state_dict())
    train(net, optimizer, range(3, 4))
    train(other, fused_adam(list(other.parameters())), range(3, 4))
    assert not torch.equal(net[0].weight, other[0].weight)


def test_state_is_named_after_parameters():
    state = saved_state()
    expected = {
        f"{layer}.{kind}.{key}"
        for layer in (0, 2, 4)
        for kind in ("weight", "bias")
        for key in ("exp_avg", "exp_avg_sq", "step")
    }
    assert state.keys() == expected
    assert state["0.weight.step"].item() == 3
    assert state["0.weight.exp_avg"].shape == (4, 3, 3, 3)


def test_restored_moments_lie_in_memory_as_their_parameters_do():
    net = network(1)
    optimizer = fused_adam(list(net.parameters()))
    contiguous = {name: value.contiguous() for name, value in saved_state().items()}
    restore_optimizer(optimizer, net, contiguous)
    for parameter in net.parameters():
        assert optimizer.state[parameter]["exp_avg"].stride() == parameter.stride()


def test_the_optimizer_does_not_share_memory_with_what_was_read():
    net, state = network(1), saved_state()
    optimizer = fused_adam(list(net.parameters()))
    restore_optimizer(optimizer, net, state)
    for value in state.values():
        value.fill_(float("nan"))
    assert all(value.isfinite().all() for value in flatten_optimizer(optimizer, net).values())


def test_the_order_of_parameters_and_groups_may_change():
    net, state = network(1), saved_state()
    *rest, first, second = net.parameters()
    optimizer = optim.Adam([{"params": [second, first], "lr": 0.5}, {"params": rest}], lr=1e-2, fused=True)
    restore_optimizer(optimizer, net, state)
    restored = flatten_optimizer(optimizer, net)
    assert restored.keys() == state.keys()
    assert all(torch.equal(restored[name], state[name]) for name in state)


def test_learning_rates_come_from_the_new_optimizer():
    net = network(1)
    optimizer = optim.Adam(net.parameters(), lr=0.123, betas=(0.5, 0.9), fused=True)
    restore_optimizer(optimizer, net, saved_state())
    assert optimizer.param_groups[0]["lr"] == 0.123
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.9)


def test_an_optimizer_that_never_stepped_is_restored_to_having_no_state():
    fresh = network(0)
    state = flatten_optimizer(fused_adam(list(fresh.parameters())), fresh)
    assert all(name.endswith(".no_state") and value.numel() == 0 for name, value in state.items())
    net, optimizer = fitted()
    restore_optimizer(optimizer, net, state)
    assert not any(optimizer.state.values())


def test_a_parameter_that_never_had_a_gradient_is_restored_beside_those_that_had(tmp_path: Path):
    net = nn.ModuleDict({"used": nn.Linear(2, 1), "growing": nn.Linear(2, 1)})
    optimizer = fused_adam(list(net.parameters()))
    net["used"](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path, 1, {"optimizer_g": flatten_optimizer(optimizer, net)}, METADATA, keep_last=1)
    other = fused_adam(list(net.parameters()))
    restore_optimizer(other, net, load_latest_checkpoint(tmp_path).tensors["optimizer_g"])
    assert set(other.state) == set(net["used"].parameters())


def test_every_missing_unexpected_and_misshapen_entry_is_named():
    state = saved_state()
    for name in ("4.bias.exp_avg", "4.bias.exp_avg_sq", "4.bias.step"):
        del state[name]
    state |= {"9.weight.step": torch.tensor(1.0), "2.weight.exp_avg": torch.ones(2, 4)}
    net = network(1)
    optimizer = fused_adam(list(net.parameters()))
    with pytest.raises(UserError) as error:
        restore_optimizer(optimizer, net, state, "optimizer_g")
    assert str(error.value) == (
        "optimizer_g does not fit the network it is loaded into; "
        "missing keys: 4.bias.exp_avg, 4.bias.exp_avg_sq, 4.bias.step; unexpected keys: 9.weight.step; "
        "wrong shapes: 2.weight.exp_avg (2, 4) instead of (2, 4, 1, 1)."
    )
    assert not optimizer.state


def test_rejects_a_model_that_does_not_own_the_parameters():
    net, optimizer = fitted()
    with pytest.raises(ValueError, match=r"^`model` must own all parameters of the optimizer, but got 6 that are not"):
        flatten_optimizer(optimizer, network(0))
    with pytest.raises(ValueError, match="but got 6 that are not its own"):
        restore_optimizer(optimizer, network(0), flatten_optimizer(optimizer, net))
