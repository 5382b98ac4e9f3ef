import pytest
import torch
from torch import nn

from gan_blocks import spectral_norm
from gan_blocks.engine.inspection.activation_memory import activation_bytes


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def measured_bytes(module: nn.Module, x: torch.Tensor) -> int:
    """The same on the CPU: bytes of all different pieces of memory that the graph holds and the module does not."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        graph = module(x)
    assert graph.requires_grad
    return sum(size for where, size in kept.items() if where not in own)


NETWORKS = {
    "convolutions": lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(8, 2, 3)),
    "pooling": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(64, 1)),
    "sum": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(4, 1, 1)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_what_the_graph_of_a_real_network_holds(name: str):
    network = NETWORKS[name]()
    x = torch.randn(4, 3, 8, 8)
    measured = (measured_bytes(network, x) - measured_bytes(network, x[:1].clone())) / 3
    assert activation_bytes(network.to("meta"), (meta(1, 3, 8, 8),)) == measured


def test_weights_do_not_count_however_they_are_computed():
    plain = nn.Linear(64, 8, device="meta")
    normalized = spectral_norm(nn.Linear(64, 8)).eval().to("meta")
    assert activation_bytes(normalized, (meta(1, 64),)) == activation_bytes(plain, (meta(1, 64),)) == 4 * 64


def test_a_tensor_that_two_layers_keep_counts_once():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 2), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.one(x) + self.two(x)

    assert activation_bytes(Twice().to("meta"), (meta(1, 6),)) == 4 * 6
