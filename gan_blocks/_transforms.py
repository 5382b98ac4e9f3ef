"""What else goes on in a forward pass: transforms of ``torch.func``, compiled models, and hooks of modules.

Tested in ``tests/spectral/test_reading.py``, ``tests/conditioning/test_batchnorm.py``,
``tests/conditioning/test_labels.py`` and ``tests/training/test_standing_statistics.py``.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)

__all__ = ["is_traced", "is_transformed", "is_watched", "uncompiled"]


_GLOBAL_HOOKS = (_global_backward_hooks, _global_backward_pre_hooks, _global_forward_hooks, _global_forward_pre_hooks)


def is_transformed(*tensors: Tensor) -> bool:
    """Whether tensors may be wrapped by a transform: then values cannot be looked at, nor other tensors written.

    The gradients of ``torch.autograd.grad(..., is_grads_batched=True)`` can only be recognized by themselves: pass
    tensors that may be such.
    """
    # torch has no public question for it; these work in compiled graphs too.
    depth: int = torch._C._functorch.get_dynamic_layer_stack_depth()
    return depth > 0 or any(torch._C._functorch.is_legacy_batchedtensor(tensor) for tensor in tensors)


def uncompiled() -> AbstractContextManager[object]:
    """Lets compiled models run as they were written; importing the compiler for that would take seconds."""
    compiler_in_use = "torch._dynamo" in sys.modules and not torch.compiler.is_compiling()
    return torch.compiler.set_stance("force_eager") if compiler_in_use else nullcontext()


def is_watched(module: nn.Module, *, own_pre_hooks: int = 0) -> bool:
    """Whether hooks or an overridden ``forward`` must see this call, so that it cannot be bypassed."""
    hooks = module._forward_hooks or module._backward_hooks or module._backward_pre_hooks
    return (
        bool(hooks)
        or any(_GLOBAL_HOOKS)
        or len(module._forward_pre_hooks) > own_pre_hooks
        or "forward" in vars(module)
        or type(module).__call__ is not nn.Module.__call__
    )


# torch 2.6 has none.
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)


def is_traced() -> bool:
    """Whether a read is written down as part of a program, of which the weight is a constant."""
    if torch._C._get_tracing_state() or _is_exporting():
        return True
    proxies = None if torch.compiler.is_compiling() else sys.modules.get("torch.fx.experimental.proxy_tensor")
    return proxies is not None and proxies.get_proxy_mode() is not None
