"""Whether a transform of ``torch.func``, such as vmap or grad, is under way; and compiled models run as they were.

Tested in ``tests/spectral/test_noticing.py``, ``tests/conditioning/test_batchnorm.py`` and
``tests/training/test_standing_statistics.py``.
"""

import sys
from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["is_transformed", "uncompiled"]


def is_transformed() -> bool:
    """Whether tensors may be wrapped by a transform: then values cannot be looked at, nor other tensors written."""
    # torch has no public question for it; this one works in compiled graphs too.
    depth: int = torch._C._functorch.get_dynamic_layer_stack_depth()
    return depth > 0


def uncompiled() -> AbstractContextManager[object]:
    """Lets compiled models run as they were written; importing the compiler for that would take seconds."""
    compiler_in_use = "torch._dynamo" in sys.modules and not torch.compiler.is_compiling()
    return torch.compiler.set_stance("force_eager") if compiler_in_use else nullcontext()
