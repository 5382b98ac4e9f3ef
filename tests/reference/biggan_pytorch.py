"""What networks in BigGAN-PyTorch's layout make of their inputs, from the papers' equations.

State dicts are of float64. A weight is divided by its largest singular value, which its ``u0`` must have found already,
where there is a ``u0`` at all.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]


def images(state: State, z: Tensor, labels: Tensor, *, blocks_eps: float, last_eps: float, chunks: int = 1) -> Tensor:
    """Images of a G with residual blocks; of z, the first of its chunks makes 4x4 pixels, each other one a block."""
    parts = z.chunk(chunks, dim=1)
    h = _linear(state, "linear", parts[0])
    h = h.reshape(len(z), -1, 4, 4)
    block = 0
    while f"blocks.{block}.0.conv1.weight" in state:
        name = f"blocks.{block}.0"
        told = _told(state, labels, parts[block + 1 :][:1] if chunks > 1 else ())
        residual = _double(F.relu(_norm(state, f"{name}.bn1", h, told, blocks_eps)))
        residual = _conv(state, f"{name}.conv1", residual)
        residual = F.relu(_norm(state, f"{name}.bn2", residual, told, blocks_eps))
        h = _conv(state, f"{name}.conv2", residual) + _conv(state, f"{name}.conv_sc", _double(h))
        h = _attend(state, f"blocks.{block}.1", h)
        block += 1
    gain, bias = state["output_layer.0.gain"], state["output_layer.0.bias"]
    h = _standardized(state, "output_layer.0", h, last_eps) * gain[:, None, None] + bias[:, None, None]
    return torch.tanh(_conv(state, "output_layer.2", F.relu(h)))


def logits(state: State, x: Tensor, labels: Tensor, *, halvings: int) -> Tensor:
    """Logits of a D with residual blocks, of which the first few halve height and width."""
    h, block = x, 0
    while f"blocks.{block}.0.conv1.weight" in state:
        name, shrink = f"blocks.{block}.0", _halve if block < halvings else _same
        residual = _conv(state, f"{name}.conv1", F.relu(h) if block else h)
        residual = shrink(_conv(state, f"{name}.conv2", F.relu(residual)))
        shortcut = shrink(h)
        if f"{name}.conv_sc.weight" in state:
            shortcut = _conv(state, f"{name}.conv_sc", shortcut)
        h = _attend(state, f"blocks.{block}.1", residual + shortcut)
        block += 1
    features = F.relu(h).sum(dim=(2, 3))
    return _linear(state, "linear", features)[:, 0] + (features * _weight(state, "embed")[labels]).sum(dim=1)


def _told(state: State, labels: Tensor, chunk: tuple[Tensor, ...]) -> Tensor:
    """What the norms of a block are told: the class, or its vector and a chunk of z."""
    return torch.cat([state["shared.weight"][labels], *chunk], dim=1) if "shared.weight" in state else labels


def _norm(state: State, name: str, h: Tensor, told: Tensor, eps: float) -> Tensor:
    if f"{name}.gain.u0" in state:
        gain, bias = (_linear(state, f"{name}.{part}", told) for part in ("gain", "bias"))
    else:
        gain, bias = (state[f"{name}.{part}.weight"][told] for part in ("gain", "bias"))
    return _standardized(state, name, h, eps) * (1 + gain)[:, :, None, None] + bias[:, :, None, None]


def _standardized(state: State, name: str, h: Tensor, eps: float) -> Tensor:
    mean, variance = (state[f"{name}.stored_{kind}"][:, None, None] for kind in ("mean", "var"))
    return (h - mean) / (variance + eps).sqrt()


def _attend(state: State, name: str, h: Tensor) -> Tensor:
    """The non-local block, if there is one of that name."""
    if f"{name}.gamma" not in state:
        return h
    flat: Callable[[Tensor], Tensor] = lambda part: part.flatten(2)  # noqa: E731
    queries = flat(_conv(state, f"{name}.theta", h))
    keys, values = (flat(F.max_pool2d(_conv(state, f"{name}.{part}", h), 2)) for part in ("phi", "g"))
    weights = torch.softmax(queries.transpose(1, 2) @ keys, dim=2)
    mixed = (values @ weights.transpose(1, 2)).reshape(len(h), -1, *h.shape[2:])
    return h + state[f"{name}.gamma"] * _conv(state, f"{name}.o", mixed)


def _weight(state: State, name: str) -> Tensor:
    weight = state[f"{name}.weight"]
    return weight / torch.linalg.matrix_norm(weight.flatten(1), 2) if f"{name}.u0" in state else weight


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, _weight(state, name), state.get(f"{name}.bias"))


def _conv(state: State, name: str, h: Tensor) -> Tensor:
    weight = _weight(state, name)
    return F.conv2d(h, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def _double(h: Tensor) -> Tensor:
    return h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def _halve(h: Tensor) -> Tensor:
    return F.avg_pool2d(h, 2)


def _same(h: Tensor) -> Tensor:
    return h
