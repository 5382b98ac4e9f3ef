"""Block Lanczos for the leading eigenpairs of symmetric positive semidefinite operators.

Tested in ``tests/spectral/singular_values/test_lanczos.py``.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["BlockLanczos", "draw"]

_LARGEST_BASIS = 128


class BlockLanczos:
    r"""Rayleigh-Ritz on a growing Krylov space of an operator G, for a batch of operators at once.

    With an orthonormal basis Q of the space and its image :math:`W = G Q`, the eigenpairs :math:`\theta_i, y_i` of
    the small matrix :math:`H = Q^\top W` give the Ritz values :math:`\theta_i` and vectors :math:`Q y_i`, with the
    residuals :math:`\rho_i = \|W y_i - \theta_i Q y_i\|`: an eigenvalue of G lies within :math:`\rho_i` of
    :math:`\theta_i`. Each step adds what of G times the last block is orthogonal to Q. That is Arnoldi's iteration,
    which for a symmetric G is Lanczos', in blocks and with full reorthogonalization. When Q is full, its leading Ritz
    vectors replace it (thick restart); the next block continues the same Krylov space.

    Args:
        start: The first block, as columns. Copies of a repeated eigenvalue are missed beyond their number. Columns
            that depend on others become random ones, here and in later blocks.
        count: How many leading pairs are wanted, at most block.
        generator: Source of the random columns.

    Attributes:
        steps: How many blocks there were.
        products: How many vectors each operator has multiplied.
        values: The leading Ritz values, at least 0, largest first.
        residuals: Their residuals.

    Shape:
        - start: ``(batch, size, block)`` with ``4 * block <= size``
        - values and residuals: ``(batch, count)``
    """

    def __init__(self, start: Tensor, count: int, generator: torch.Generator) -> None:
        self.steps = self.products = 0
        self.values = self.residuals = start.new_zeros(start.shape[0], count)
        self._rise = self._allowed = self.values
        self._generator = generator
        self._basis = self._image = start[..., :0]
        self._rotation = start.new_zeros(start.shape[0], 0, 0)
        self._next = start
        self._relative_errors = self.values
        self._errors: list[float] = []
        self._restarted = False

    def step(self, operator: Callable[[Tensor], Tensor]) -> None:
        """Enlarge the space by one block; ``operator`` maps (batch, size, block) to its image under G."""
        size, block = self._next.shape[-2:]
        new = self._orthonormal(self._next)
        # Room is left for one more block, or it could not be orthogonal to the basis.
        if self._basis.shape[-1] + block > min(max(_LARGEST_BASIS, 4 * block), size - block):
            kept = self._rotation[..., : 2 * block]
            self._basis, self._image = self._basis @ kept, self._image @ kept
            self._restarted = True
        self._next = operator(new)
        self.steps += 1
        self.products += block
        self._basis = torch.cat([self._basis, new], -1)
        self._image = torch.cat([self._image, self._next], -1)
        previous, self._allowed = self.values, self.residuals
        self._rayleigh_ritz()
        self._rise = self.values - previous
        self._relative_errors = self._estimate_errors()
        self._errors.append(float(self._relative_errors.max()))

    def vectors(self, count: int | None = None) -> Tensor:
        """Return the leading Ritz vectors as columns, ``count`` (up to the block's size) or as many as values."""
        return self._basis @ self._leading(count)

    def images(self) -> Tensor:
        """Return what G makes of :meth:`vectors`, without another product."""
        return self._image @ self._leading()

    def combine(self, blocks: list[Tensor]) -> Tensor | None:
        """Combine what the caller has made of each block like the blocks to :meth:`vectors`; None after a restart."""
        if self._restarted:
            return None
        # Not one product with all blocks side by side: to put them there takes longer.
        shares = self._leading().split([block.shape[-1] for block in blocks], -2)
        combined: Tensor = blocks[0] @ shares[0]
        for block, share in zip(blocks[1:], shares[1:], strict=True):
            combined = combined + block @ share
        return combined

    def settled(self, tol: float) -> Tensor:
        """Tell for which operators, (batch,), the roots of the values have an error of at most tol, and are at rest.

        Errors are relative to the root of the largest. Values that rose by more than their residuals told have met a
        direction that those did not know of; after the first step, all have. An error is also small enough when it is
        down to the rounding of the products with G.
        """
        largest = self.values[:, :1]
        rounding = self.residuals <= 32 * torch.finfo(largest.dtype).eps * largest
        at_rest = self._rise <= torch.maximum(tol * largest, self._allowed)
        return (((self._relative_errors <= tol) | rounding) & at_rest).all(-1)

    def steps_left(self, tol: float) -> float:
        """Predict how many more steps the worst error needs to reach tol, from its decline in the later half so far.

        The first two steps tell nothing: the error may even rise while larger values come into sight.
        """
        last, middle = len(self._errors) - 1, (len(self._errors) - 1) // 2
        if last < 2 or self._errors[last] <= tol:
            return 1.0
        decline = math.log(self._errors[middle] / self._errors[last]) / (last - middle)
        return math.log(self._errors[last] / tol) / decline if decline > 0 else math.inf

    def _estimate_errors(self) -> Tensor:
        # |sigma² - theta| <= rho, so sigma is within rho / sqrt(theta) of sqrt(theta), and within sqrt(rho).
        roots = self.values.sqrt()
        errors = torch.minimum(self.residuals / roots, self.residuals.sqrt()) / roots[:, :1]
        return errors.nan_to_num(nan=0.0)  # 0 / 0 is a zero operator

    def _rayleigh_ritz(self) -> None:
        values, rotation = torch.linalg.eigh(self._basis.mT @ self._image)
        self._rotation = rotation.flip(-1)
        self.values = values.flip(-1)[:, : self.values.shape[-1]].clamp(min=0)
        self.residuals = (self.images() - self.vectors() * self.values[:, None]).norm(dim=-2)

    def _leading(self, count: int | None = None) -> Tensor:
        return self._rotation[..., : self.values.shape[-1] if count is None else count]

    def _orthonormal(self, block: Tensor) -> Tensor:
        limits = torch.finfo(block.dtype)
        block = self._project_out(block / block.norm(dim=-2, keepdim=True).clamp(min=limits.tiny))
        basis: Tensor
        basis, factor = torch.linalg.qr(block)
        if factor.diagonal(dim1=-2, dim2=-1).abs().min() < 100 * limits.eps:
            # A column that lay in the space is now mere rounding error, which QR blew up into any direction, also
            # back into the space. Noise just above the rounding makes it a random new one, and leaves others alone.
            noise = draw(block.shape, like=block, generator=self._generator) / math.sqrt(block.shape[-2])
            basis = torch.linalg.qr(self._project_out(block + 10 * limits.eps * noise)).Q
        if self.products:  # else there is no space yet
            basis = torch.linalg.qr(self._project_out(basis)).Q
        return basis

    def _project_out(self, block: Tensor) -> Tensor:
        return block - self._basis @ (self._basis.mT @ block)


def draw(shape: tuple[int, ...], *, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw normal numbers where the generator lives, and bring them to the device and dtype of ``like``."""
    return torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
