"""How the reference shows the types of arguments and results.

Tested in ``tests/test_documentation_pages.py``.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sphinx_autodoc_typehints import format_annotation

__all__ = ["public_module", "type_formatter"]

# Where torch defines what its documentation knows by a shorter name.
TORCH_HOMES = {"torch._C": "torch", "torch.optim.adam": "torch.optim", "torch.optim.optimizer": "torch.optim"}


def public_module(module: str) -> str:
    """The module that a type is documented in."""
    return "torch.nn" if module.startswith("torch.nn.modules.") else TORCH_HOMES.get(module, module)


def type_formatter(public_names: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Callable[[Any, Any], str | None]:
    """Return what ``typehints_formatter`` wants: a type as text, or None where its default will do."""

    def formatted(annotation: Any, config: Any) -> str | None:
        if isinstance(annotation, TypeVar):
            allowed = annotation.__constraints__ or (annotation.__bound__,)
            if allowed == (None,):
                return f"``{annotation.__name__}``"
            return " | ".join(format_annotation(kind, config) for kind in allowed)
        module, name = getattr(annotation, "__module__", None) or "", getattr(annotation, "__qualname__", "")
        if not module.startswith("gan_blocks"):
            return None
        for homes in public_names.values():
            if name in homes.get(module, ()):
                return f":py:class:`~{homes[module][name]}.{name}`"
        # No page of its own: only its name is shown.
        return f":py:class:`~{module}.{name}`" if module.startswith("gan_blocks.engine") else f"``{name}``"

    return formatted
