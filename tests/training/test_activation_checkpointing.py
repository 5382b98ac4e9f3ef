import contextlib
import copy
import re
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from gan_blocks import (
    BottleneckDiscriminatorBlock,
    BottleneckGeneratorBlock,
    ConditionalBatchNorm2d,
    CrossReplicaBatchNorm2d,
    ResidualDiscriminatorBlock,
    ResidualGeneratorBlock,
    SelfAttention2d,
    advance_power_iteration,
    checkpoint_activations,
    frozen_power_iteration,
    spectral_norm,
    twice_differentiable,
    zero_centered_penalty,
)
from tests import drawn

draw = partial(drawn.draw, dtype=torch.float32)


def conv(*sizes: int, **options: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(*sizes, **options))


def generator_block(kind: type[nn.Module]) -> nn.Module:
    norm = partial(ConditionalBatchNorm2d, condition_dim=3)
    return kind(16, 8, norm_layer=norm, upsample=True, conv_layer=conv)


def discriminator_block(kind: type[nn.Module]) -> nn.Module:
    return kind(8, 16, downsample=True, conv_layer=conv)


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "BigGAN G": partial(generator_block, ResidualGeneratorBlock),
    "BigGAN D": partial(discriminator_block, ResidualDiscriminatorBlock),
    "BigGAN-deep G": partial(generator_block, BottleneckGeneratorBlock),
    "BigGAN-deep D": partial(discriminator_block, BottleneckDiscriminatorBlock),
}


def build(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BLOCKS[name]()


def trained(block: nn.Module, size: int) -> dict[str, Tensor]:
    """State and gradients after three steps of Adam."""
    optimizer = torch.optim.Adam(block.parameters(), lr=1e-2)
    for step in range(3):
        x = draw(4, block.in_channels, size, size, seed=step).requires_grad_()
        inputs = [x] if "Discriminator" in type(block).__name__ else [x, draw(4, 3, seed=step)]
        optimizer.zero_grad()
        block(*inputs).square().mean().backward()
        optimizer.step()
        advance_power_iteration(block)
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in block.named_parameters()}
    return {**block.state_dict(), **gradients, "gradient of x": x.grad}


@pytest.mark.parametrize("size", [4, 64])  # BatchNorm takes another path for large maps
@pytest.mark.parametrize("name", BLOCKS)
def test_training_has_the_same_bits(name: str, size: int):
    plain, checkpointed = build(name), build(name)
    checkpoint_activations(checkpointed)
    wanted, found = trained(plain, size), trained(checkpointed, size)
    assert found.keys() == wanted.keys()
    assert [name for name, value in found.items() if not torch.equal(value, wanted[name])] == []


def test_running_statistics_move_once_whatever_the_momentum():
    block = nn.Sequential(CrossReplicaBatchNorm2d(2, momentum=1.0), nn.ReLU())
    checkpoint_activations(block)
    x = draw(4, 2, 3, 3).requires_grad_()
    block(x).sum().backward()
    torch.testing.assert_close(block[0].running_mean, x.mean((0, 2, 3)).detach())
    assert block[0].momentum == 1.0


def saved_elements(module: nn.Module, x: Tensor) -> int:
    """How much autograd keeps of a forward pass, not counting parameters."""
    kept: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        y = module(x)
    assert y.requires_grad
    own = {parameter.data_ptr() for parameter in module.parameters()}
    sizes = {value.data_ptr(): value.numel() for value in kept if value.data_ptr() not in own}
    return sum(sizes.values())


def test_only_the_input_is_kept():
    block, x = nn.Sequential(nn.Conv2d(2, 8, 1), nn.Tanh(), nn.Conv2d(8, 2, 1), nn.Tanh()), draw(4, 2, 6, 6)
    assert saved_elements(block, x) >= 4 * 36 * (2 + 8 + 2)
    checkpoint_activations(block)
    assert saved_elements(block, x) == x.numel()


def test_without_a_graph_nothing_is_computed_twice():
    block, calls = nn.Sequential(nn.Linear(2, 2)), []
    block[0].register_forward_hook(lambda *_: calls.append(1))
    checkpoint_activations(block)
    with torch.no_grad():
        block(draw(1, 2))
    assert len(calls) == 1


def test_dropout_is_the_same_in_both_passes_and_the_random_state_that_of_plain_training():
    states = []
    for checkpointed in (False, True):
        block, x = nn.Sequential(nn.Dropout(0.5), nn.Tanh()), torch.ones(1000, requires_grad=True)
        if checkpointed:
            checkpoint_activations(block)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            y = block(x)
            torch.manual_seed(1)  # what is drawn between the passes
            y.sum().backward()
            states.append((x.grad, torch.get_rng_state()))
    (wanted, state), (found, state_after) = states
    assert torch.equal(found, wanted)
    assert torch.equal(state_after, state)


def test_second_derivatives_are_those_of_plain_training():
    found = []
    for checkpointed in (False, True):
        block = build("BigGAN-deep D").double()
        block.act2 = nn.Softplus()  # ReLU has no second derivative
        if checkpointed:
            checkpoint_activations(block)
        x = draw(2, 8, 4, 4).double().requires_grad_()
        (slope,) = torch.autograd.grad(block(x).sum(), x, create_graph=True)
        slope.square().sum().backward()
        found.append([x.grad, *(parameter.grad for parameter in block.parameters() if parameter.grad is not None)])
    assert len(found[0]) > 5
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


def test_attention_takes_the_kernel_of_the_first_pass_though_its_context_has_ended():
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        attention = SelfAttention2d(8)
        nn.init.ones_(attention.gamma)
        if checkpointed:
            checkpoint_activations(attention)
        x = draw(2, 8, 4, 4).requires_grad_()
        with twice_differentiable():
            y = attention(x)
        zero_centered_penalty(x, y).backward()
        found.append([parameter.grad for parameter in attention.parameters()])
    assert found[0][1].abs().max() > 0
    torch.testing.assert_close(found[1], found[0])


def test_bfloat16_autocast_is_that_of_the_first_pass():
    plain, checkpointed, x = build("BigGAN D"), build("BigGAN D"), draw(2, 8, 4, 4)
    checkpoint_activations(checkpointed)
    for block in (plain, checkpointed):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = block(x).square().mean()
        loss.backward()
    assert torch.equal(checkpointed.conv1.parametrizations.weight.original.grad, _gradient(plain))


def _gradient(block: nn.Module) -> Tensor:
    gradient: Tensor = block.conv1.parametrizations.weight.original.grad
    return gradient


def test_keywords_reach_the_module():
    layer = build("BigGAN-deep G")
    checkpoint_activations(layer)
    x, condition = draw(2, 16, 4, 4), draw(2, 3)
    assert torch.equal(layer(x, condition=condition), build("BigGAN-deep G")(x, condition))


def test_a_deep_copy_computes_with_its_own_weights():
    block = nn.Sequential(nn.Linear(2, 1, bias=False))
    checkpoint_activations(block)
    twin = copy.deepcopy(block)
    with torch.no_grad():
        twin[0].weight.zero_()
    twin(torch.ones(1, 2)).sum().backward()
    assert twin(torch.ones(1, 2)).item() == 0
    assert twin[0].weight.grad.tolist() == [[1, 1]]
    assert block[0].weight.grad is None


def test_the_compiler_sees_the_module_as_it_was():
    block, x = build("BigGAN-deep D"), draw(2, 8, 4, 4)
    wanted = block(x)
    checkpoint_activations(block)
    assert torch.equal(torch.compile(block, backend="eager", fullgraph=True)(x), wanted)


def test_rejects_batch_norms_of_torch():
    message = (
        "checkpoint_activations: `module` must be a module without running statistics of torch.nn, but got "
        "module='BatchNorm2d'. They would move twice; take CrossReplicaBatchNorm2d, or give the norm a context "
        "`held_statistics()`."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        checkpoint_activations(nn.Sequential(nn.BatchNorm2d(2)))


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
@pytest.mark.parametrize("normalize", [torch.nn.utils.spectral_norm, torch.nn.utils.parametrizations.spectral_norm])
def test_rejects_spectral_norms_of_torch_whose_vectors_would_advance_twice(normalize):
    with pytest.raises(ValueError, match=r"^checkpoint_activations: `module` must .* torch's own spectral norm,"):
        checkpoint_activations(nn.Sequential(nn.ReLU(), normalize(nn.Linear(2, 2))))


class OwnNorm(nn.Module):
    """A norm from elsewhere that counts its passes, and can be told not to."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0
        self.register_buffer("passes", torch.zeros(()))

    @contextlib.contextmanager
    def held_statistics(self) -> Iterator[None]:
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1

    def forward(self, x: Tensor) -> Tensor:
        self.passes.add_(0.0 if self.held else 1.0)
        return x.tanh()


def test_a_norm_from_elsewhere_holds_its_statistics_in_the_second_pass():
    block = nn.Sequential(nn.Linear(2, 2), OwnNorm(), nn.Linear(2, 2))
    checkpoint_activations(block)
    block(torch.ones(3, 2)).sum().backward()
    assert block[1].passes == 1
    assert block[1].held == 0


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_between_forward_and_backward_raises_as_it_does_without(fused: bool):
    block = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    checkpoint_activations(block)
    optimizer = torch.optim.Adam(block.parameters(), fused=fused)
    x = torch.ones(2, 4, requires_grad=True)
    block(x).sum().backward()
    loss = block(x).sum()
    optimizer.step()
    with pytest.raises(
        RuntimeError, match=r"^checkpoint_activations: the parameter 0\.weight of Sequential has changed"
    ):
        loss.backward()


def test_norms_of_torch_may_take_part_where_their_statistics_do_not_move_twice():
    class Held(nn.BatchNorm2d):
        @contextlib.contextmanager
        def held_statistics(self) -> Iterator[None]:
            yield

    checkpoint_activations(nn.Sequential(Held(3)))
    checkpoint_activations(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.InstanceNorm2d(3)))
    with pytest.raises(ValueError, match="InstanceNorm2d"):
        checkpoint_activations(nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True)))


def held_block() -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(0)
    plain = nn.Sequential(spectral_norm(nn.Linear(8, 8)), nn.ReLU(), spectral_norm(nn.Linear(8, 8)))
    block, x = copy.deepcopy(plain), torch.randn(4, 8, requires_grad=True)
    checkpoint_activations(block)
    for model in (plain, block):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3).add_(0.1)
    return plain, block, x


@pytest.mark.parametrize("training", [True, False])
def test_what_was_read_while_frozen_is_read_so_again(training: bool):
    plain, block, x = held_block()
    gradients = []
    for model in (plain.train(training), block.train(training)):
        with frozen_power_iteration(model):
            y = model(x)
        gradients.append(torch.autograd.grad(y.square().sum(), [x, *model.parameters()]))
    for got, wanted in zip(*gradients, strict=True):
        assert torch.equal(got, wanted)


def test_singular_vectors_that_advance_between_the_passes_are_an_error():
    _, block, x = held_block()
    y = block(x)
    advance_power_iteration(block)
    with pytest.raises(RuntimeError, match=r"^checkpoint_activations: singular vectors of Sequential have advanced"):
        y.sum().backward()
