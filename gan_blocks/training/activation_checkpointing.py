"""Activations that are computed again in the backward pass instead of being kept until then.

Tested in ``tests/training/test_activation_checkpointing.py``.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.checkpoint import checkpoint

from gan_blocks._checks import bad_value, check_module
from gan_blocks.spectral.torch_layouts import torch_singular_vectors
from gan_blocks.spectral.tracking import SingularVectorTracker

__all__ = ["checkpoint_activations"]

_FUSED_UPDATES = "_gan_blocks_fused_updates"


def checkpoint_activations(module: nn.Module) -> None:
    """Let a module keep only its inputs for the backward pass, which then computes its activations a second time.

    Where autograd records, memory falls from all activations of the module to its inputs, and time rises by one more
    forward pass. Give it each block of a network rather than the whole: then at most one block's activations exist at
    a time. Nothing else changes, neither the names of the state_dict nor a bit of what training computes:

    - the second pass leaves the running statistics of :class:`CrossReplicaBatchNorm2d`, and of any other with a
      context ``held_statistics()``, as the first one has moved them. Across processes it gathers the batch's
      statistics once more, in the same order in all of them, so each process has to checkpoint the same modules;
    - it reads the spectral norms' singular vectors of the first pass: they only advance once a weight has changed;
    - it draws the same random numbers, such as those of dropout, and computes under the same autocast and by the same
      attention kernels.

    A weight that has been changed between the two passes, as by the step of an optimizer, would give the gradient of
    other weights: the backward pass raises then, as it does without this, and where singular vectors have advanced. A
    write through ``.data`` goes unseen, as it does without this.

    Second derivatives pass through as well. Under :func:`torch.compile`, which chooses by itself what to compute again,
    the module runs as if it had not been changed. A deep copy is checkpointed like its original.

    Args:
        module: The module, changed in place: its ``forward`` from now on is the checkpointed one.

    Raises:
        ValueError: If the module contains running statistics of a ``torch.nn`` norm, or torch's own spectral norm.
        RuntimeError: In the backward pass, if a parameter or a singular vector has changed since the forward pass.

    References:
        Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".

    Example:
        >>> calls = []
        >>> layer = torch.nn.Linear(2, 2)
        >>> handle = layer.register_forward_hook(lambda *_: calls.append("forward"))
        >>> block = torch.nn.Sequential(layer, torch.nn.ReLU())
        >>> checkpoint_activations(block)
        >>> loss = block(torch.ones(1, 2)).sum()
        >>> calls
        ['forward']
        >>> loss.backward()
        >>> calls
        ['forward', 'forward']
    """
    check_module("checkpoint_activations", "module", module)
    for part in module.modules():
        if _moves_statistics(part):
            rule = "a module without running statistics of torch.nn"
            remedy = (
                "They would move twice; take CrossReplicaBatchNorm2d, or give the norm a context `held_statistics()`."
            )
            raise bad_value("checkpoint_activations", "module", rule, type(part).__name__, remedy)
        if torch_singular_vectors(part):
            rule = "a module without torch's own spectral norm"
            remedy = (
                "Its vectors would advance twice; take gan_blocks.spectral_norm (from_torch_spectral_norm converts the "
                "state dict)."
            )
            raise bad_value("checkpoint_activations", "module", rule, type(part).__name__, remedy)
    _count_fused_updates()
    module.forward = partial(_recomputed, module, module.forward)


def _moves_statistics(part: nn.Module) -> bool:
    """Whether it is a norm of torch with running statistics, batch norm or instance norm, that cannot hold them."""
    return isinstance(part, _NormBase) and part.running_mean is not None and not hasattr(part, "held_statistics")


def _recomputed(module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if torch.compiler.is_compiling():
        return forward(*args, **kwargs)
    # The keywords are bound first: checkpoint has some of its own.
    bound = partial(forward, **kwargs)
    return checkpoint(bound, *args, use_reentrant=False, context_fn=partial(_contexts, module))


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Those of the first pass and of the second."""
    second = _SecondPass(module)
    return _FirstPass(second), second


def _updates_of(module: nn.Module) -> dict[str, int]:
    """How often each parameter has been changed in place, from an arbitrary start."""
    return {name: _count_updates(parameter) for name, parameter in module.named_parameters()}


def _count_updates(tensor: Tensor) -> int:
    # A tensor made under inference_mode has no version counter and cannot be trained either.
    version = 0 if tensor.is_inference() else tensor._version
    updates: int = version + getattr(tensor, _FUSED_UPDATES, 0)
    return updates


@cache
def _count_fused_updates() -> None:
    """Let every fused optimizer of this process count its updates on the parameters themselves, from now on.

    The fused kernels (``Adam(fused=True)`` and others, torch 2.13) do not raise the version counter of what they
    change. Raising it for them could fail other people's backward passes; a count of our own disturbs nobody.
    """
    register_optimizer_step_post_hook(_count_fused_step)


def _count_fused_step(optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    for group in optimizer.param_groups:
        if group.get("fused"):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    setattr(parameter, _FUSED_UPDATES, getattr(parameter, _FUSED_UPDATES, 0) + 1)


class _FirstPass(AbstractContextManager[None]):
    """Notes how the spectral norms were read."""

    def __init__(self, second: "_SecondPass") -> None:
        self.second = second

    def __exit__(self, *_: object) -> None:
        self.second.note_vectors()


class _SecondPass(AbstractContextManager[None]):
    """Lets a pass in train mode leave the running statistics as they are, bit for bit; may be entered repeatedly.

    Attention takes the kernel of the first pass, which was perhaps one with second derivatives.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.updates = _updates_of(module)
        self.norms: list[Any] = [part for part in module.modules() if hasattr(part, "held_statistics")]
        # Flash attention is switched for all devices by the name of one; torch.nn.attention has no question for it.
        self.fast_attention = torch.backends.cuda.flash_sdp_enabled()
        self.trackers = [part for part in module.modules() if isinstance(part, SingularVectorTracker)]
        self.vectors: list[tuple[int, int]] = []
        self.entered = ExitStack()

    def note_vectors(self) -> None:
        """Remember which singular vectors the first pass has read, and whether they were held."""
        self.vectors = [(tracker.advances, tracker.frozen) for tracker in self.trackers]

    def __enter__(self) -> None:
        now = _updates_of(self.module)
        if now != self.updates:
            name = next(name for name, count in now.items() if count != self.updates.get(name))
            raise RuntimeError(
                f"checkpoint_activations: the parameter {name} of {type(self.module).__name__} has changed between the "
                "forward and the backward pass, which would compute with other weights. Take the optimizer's step "
                "after the backward pass."
            )
        for tracker, (advances, frozen) in zip(self.trackers, self.vectors, strict=True):
            if tracker.advances != advances:
                raise RuntimeError(
                    f"checkpoint_activations: singular vectors of {type(self.module).__name__} have advanced between "
                    "the forward and the backward pass, which would compute with other weights. Advance them after "
                    "the backward pass."
                )
            self.entered.callback(setattr, tracker, "frozen", tracker.frozen)
            tracker.frozen = frozen
        for norm in self.norms:
            self.entered.enter_context(norm.held_statistics())
        if not self.fast_attention:
            self.entered.enter_context(sdpa_kernel(SDPBackend.MATH))

    def __exit__(self, *_: object) -> None:
        self.entered.close()
