"""Whether a transform of ``torch.func``, such as vmap or grad, is under way.

Tested in ``tests/spectral/test_noticing.py`` and ``tests/conditioning/test_batchnorm.py``.
"""

import torch

__all__ = ["is_transformed"]


def is_transformed() -> bool:
    """Whether tensors may be wrapped by a transform: then values cannot be looked at, nor other tensors written."""
    # torch has no public question for it; this one works in compiled graphs too.
    depth: int = torch._C._functorch.get_dynamic_layer_stack_depth()
    return depth > 0
