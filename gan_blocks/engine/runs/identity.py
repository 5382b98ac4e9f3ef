"""Which recipe made a run: what its files say of it.

Tested in ``tests/engine/runs/test_identity.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RecipeIdentity"]


@dataclass(frozen=True)
class RecipeIdentity:
    """The name of a recipe, and where it lies if it is a file of its own. It says what to ask for and imports nothing.

    Attributes:
        reference: ``module:NAME`` of the value, such as ``recipes.biggan_deep:RECIPE``. Runs of earlier versions have
            the short name instead, such as ``biggan_deep``.
        file: The file of a recipe that is a module of no package; None otherwise.
        sha256: Of that file, when the run was started.
    """

    reference: str
    file: str | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The short name: the module's last part, and the value's where it is not ``RECIPE``.

        Example:
            >>> RecipeIdentity("recipes.biggan_deep:RECIPE").name, RecipeIdentity("mine.gans:SMALL").name
            ('biggan_deep', 'gans-SMALL')
        """
        module, _, value = self.reference.partition(":")
        short = module.rpartition(".")[2]
        return short if value in ("", "RECIPE") else f"{short}-{value}"

    def is_of(self, other: "RecipeIdentity") -> bool:
        """Whether both are one recipe, however each was started: as a module of a package or as a file.

        Example:
            >>> RecipeIdentity("mine.my_gan:RECIPE").is_of(RecipeIdentity("my_gan:RECIPE", "/home/me/mine/my_gan.py"))
            True
        """
        return self.name == other.name

    def changed_since(self, then: "RecipeIdentity") -> str | None:
        """A sentence for the user if the recipe's file is not as it was when a run was started.

        Example:
            >>> RecipeIdentity("a:RECIPE", "/a.py", "12").changed_since(RecipeIdentity("a:RECIPE", "/a.py", "34"))
            '/a.py is not as it was when the run was started.'
        """
        if (self.sha256 is None) != (then.sha256 is None) and ":" in then.reference:
            return f"The run was started by {then} and continues with {self}."
        if self.sha256 == then.sha256:
            return None
        return f"{self.file} is not as it was when the run was started."

    def as_dict(self) -> dict[str, Any]:
        """JSON values for ``config.json`` and the metadata of weights; :meth:`from_dict` reads them."""
        saved: dict[str, Any] = {"recipe": self.reference}
        if self.file is not None:
            saved["recipe_file"] = {"path": self.file, "sha256": self.sha256}
        return saved

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "RecipeIdentity":
        """Read what :meth:`as_dict` gave."""
        file = saved.get("recipe_file")
        known = file if isinstance(file, Mapping) else {}
        path, sha256 = (known.get(name) for name in ("path", "sha256"))
        return cls(str(saved["recipe"]), path if isinstance(path, str) else None, sha256 if path else None)

    def __str__(self) -> str:
        return self.reference if self.file is None else f"{self.reference} ({self.file})"
