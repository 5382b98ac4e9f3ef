"""Residual blocks as the papers draw them, layer by layer, in float64 numpy."""

from collections.abc import Callable

import numpy as np

State = dict[str, np.ndarray]
Norm = Callable[[str, np.ndarray], np.ndarray]


def relu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.0)


def upsample(x: np.ndarray) -> np.ndarray:
    batch, channels, height, width = x.shape
    y = np.empty((batch, channels, 2 * height, 2 * width))
    for i in range(2 * height):
        for j in range(2 * width):
            y[:, :, i, j] = x[:, :, i // 2, j // 2]
    return y


def downsample(x: np.ndarray) -> np.ndarray:
    batch, channels, height, width = x.shape
    y = np.empty((batch, channels, height // 2, width // 2))
    for i in range(height // 2):
        for j in range(width // 2):
            square = (x[:, :, 2 * i + a, 2 * j + b] for a in range(2) for b in range(2))
            y[:, :, i, j] = sum(square) / 4
    return y


def conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, dilation: int = 1) -> np.ndarray:
    """Cross-correlation of stride 1 with zeros around, so that the size stays."""
    batch, _, height, width = x.shape
    out, _, kernel, _ = weight.shape
    margin = kernel // 2
    y = np.empty((batch, out, height, width))
    for i in range(height):
        for j in range(width):
            total = np.tile(bias, (batch, 1))
            for a in range(kernel):
                for b in range(kernel):
                    row, column = i + dilation * (a - margin), j + dilation * (b - margin)
                    if 0 <= row < height and 0 <= column < width:
                        total = total + x[:, :, row, column] @ weight[:, :, a, b].T
            y[:, :, i, j] = total
    return y


def _conv(state: State, name: str, x: np.ndarray, dilation: int = 1) -> np.ndarray:
    return conv(x, state[f"{name}.weight"], state[f"{name}.bias"], dilation)


def generator_bottleneck(x: np.ndarray, state: State, norm: Norm, out_channels: int, up: bool) -> np.ndarray:
    """Figure 16 (b) of the BigGAN paper; without ``up`` the plain ResBlock."""
    h = norm("norm1", x)
    h = relu(h)
    h = _conv(state, "conv1", h)
    h = norm("norm2", h)
    h = relu(h)
    if up:
        h = upsample(h)
    h = _conv(state, "conv2", h)
    h = norm("norm3", h)
    h = relu(h)
    h = _conv(state, "conv3", h)
    h = norm("norm4", h)
    h = relu(h)
    h = _conv(state, "conv4", h)
    kept = np.stack([x[:, channel] for channel in range(out_channels)], axis=1)
    return h + (upsample(kept) if up else kept)


def discriminator_bottleneck(x: np.ndarray, state: State, down: bool) -> np.ndarray:
    """Figure 16 (c) of the BigGAN paper; without ``down`` the plain ResBlock."""
    h = relu(x)
    h = _conv(state, "conv1", h)
    h = relu(h)
    h = _conv(state, "conv2", h)
    h = relu(h)
    h = _conv(state, "conv3", h)
    h = relu(h)
    if down:
        h = downsample(h)
    h = _conv(state, "conv4", h)
    shortcut = downsample(x) if down else x
    if "shortcut.weight" in state:
        shortcut = np.concatenate([shortcut, _conv(state, "shortcut", shortcut)], axis=1)
    return h + shortcut


def generator_res_block(x: np.ndarray, state: State, norm: Norm, up: bool, dilation: int = 1) -> np.ndarray:
    """Figure 15 (b) of the BigGAN paper; without ``up`` and with equal widths the shortcut is the input."""
    h = norm("norm1", x)
    h = relu(h)
    if up:
        h = upsample(h)
    h = _conv(state, "conv1", h, dilation)
    h = norm("norm2", h)
    h = relu(h)
    h = _conv(state, "conv2", h, dilation)
    shortcut = upsample(x) if up else x
    if up or h.shape[1] != x.shape[1]:
        shortcut = _conv(state, "shortcut", shortcut)
    return h + shortcut


def discriminator_res_block(
    x: np.ndarray, state: State, down: bool, first: bool, dilation: int = 1, norm: Norm = lambda _, h: h
) -> np.ndarray:
    """Figure 15 (c) of the BigGAN paper; the first block of D has no activation in front and pools its input first."""
    h = x
    if not first:
        h = norm("norm1", h)
        h = relu(h)
    h = _conv(state, "conv1", h, dilation)
    h = norm("norm2", h)
    h = relu(h)
    h = _conv(state, "conv2", h, dilation)
    if down:
        h = downsample(h)
    shortcut = x
    if first and down:
        shortcut = downsample(shortcut)
    if down or h.shape[1] != x.shape[1]:
        shortcut = _conv(state, "shortcut", shortcut)
    if down and not first:
        shortcut = downsample(shortcut)
    return h + shortcut


def leaky_relu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x)


def _pixel_norm(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum(axis=1, keepdims=True) / x.shape[1] + 1e-8)


def _scaled(state: State, name: str, gain: float, fan_in: int) -> tuple[np.ndarray, np.ndarray]:
    weight = state[f"{name}.parametrizations.weight.original"]
    return weight * (gain / np.sqrt(fan_in)), state[f"{name}.bias"]


def _equalized_conv(state: State, name: str, x: np.ndarray, gain: float = 2**0.5) -> np.ndarray:
    kernel = state[f"{name}.parametrizations.weight.original"].shape[-1]
    return conv(x, *_scaled(state, name, gain, x.shape[1] * kernel * kernel))


def progressive_generator_stem(z: np.ndarray, state: State) -> np.ndarray:
    """Rows Conv 4x4 and Conv 3x3 at the top of ProGAN's Table 2."""
    weight, bias = _scaled(state, "conv1", 2**0.5, z.shape[1] * 16)  # (in, out, 4, 4)
    h = np.einsum("ni,iohw->nohw", z, weight) + bias[:, None, None]
    h = _pixel_norm(leaky_relu(h))
    return _pixel_norm(leaky_relu(_equalized_conv(state, "conv2", h)))


def progressive_generator_block(x: np.ndarray, state: State) -> np.ndarray:
    """Three rows of ProGAN's Table 2: Upsample, Conv 3x3, Conv 3x3."""
    h = upsample(x)
    h = _pixel_norm(leaky_relu(_equalized_conv(state, "conv1", h)))
    return _pixel_norm(leaky_relu(_equalized_conv(state, "conv2", h)))


def progressive_discriminator_block(x: np.ndarray, state: State) -> np.ndarray:
    """Three rows of ProGAN's Table 2: Conv 3x3, Conv 3x3, Downsample."""
    h = leaky_relu(_equalized_conv(state, "conv1", x))
    return downsample(leaky_relu(_equalized_conv(state, "conv2", h)))


def progressive_discriminator_head(x: np.ndarray, stddev: np.ndarray, state: State) -> np.ndarray:
    """The last rows of Table 2; ``stddev`` is the statistic of each sample."""
    extra = np.broadcast_to(stddev[:, None, None, None], (x.shape[0], 1, 4, 4))
    h = leaky_relu(_equalized_conv(state, "conv1", np.concatenate([x, extra], axis=1)))
    weight, bias = _scaled(state, "conv2", 2**0.5, h.shape[1] * 16)
    h = leaky_relu(np.einsum("nihw,oihw->no", h, weight) + bias)
    weight, bias = _scaled(state, "linear", 1.0, h.shape[1])
    return (h @ weight.T + bias)[:, 0]


def _batch_norm(state: State, x: np.ndarray) -> np.ndarray:
    y = np.empty_like(x)
    for channel in range(x.shape[1]):
        values = x[:, channel]
        mean = values.sum() / values.size
        variance = ((values - mean) ** 2).sum() / values.size
        y[:, channel] = state["norm.weight"][channel] * (values - mean) / np.sqrt(variance + 1e-4)
        y[:, channel] += state["norm.bias"][channel]
    return y


def plain_generator_block(x: np.ndarray, state: State) -> np.ndarray:
    """Each pixel of the input paints the 4x4 filters around twice its place; what falls outside is cut off."""
    batch, _, height, width = x.shape
    weight = state["conv.weight"]  # (in, out, 4, 4)
    canvas = np.zeros((batch, weight.shape[1], 2 * height + 2, 2 * width + 2))
    for i in range(height):
        for j in range(width):
            for a in range(4):
                for b in range(4):
                    canvas[:, :, 2 * i + a, 2 * j + b] += x[:, :, i, j] @ weight[:, :, a, b]
    h = canvas[:, :, 1:-1, 1:-1] + state["conv.bias"][:, None, None]
    return relu(_batch_norm(state, h))


def plain_discriminator_block(x: np.ndarray, state: State) -> np.ndarray:
    """Every second place of a 4x4 filter that begins one pixel outside of the image."""
    batch, _, height, width = x.shape
    weight = state["conv.weight"]  # (out, in, 4, 4)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    h = np.empty((batch, weight.shape[0], height // 2, width // 2))
    for i in range(height // 2):
        for j in range(width // 2):
            window = padded[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
            h[:, :, i, j] = np.einsum("nihw,oihw->no", window, weight) + state["conv.bias"]
    return leaky_relu(_batch_norm(state, h))
