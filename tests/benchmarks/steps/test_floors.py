import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.steps.floors import floor_of
from benchmarks.steps.training_steps import unfused
from gan_blocks.layers.attention_products import attend_by_products


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_convolutions_and_attention_are_replayed_in_their_order_and_nothing_else():
    conv = torch.nn.Conv2d(3, 4, 3)
    taken = []

    def step(number):
        taken.append(number)
        h = F.relu(conv(torch.randn(2, 3, 8, 8))).flatten(2)[:, None]
        F.scaled_dot_product_attention(h, h, h).sum().backward()

    replay = floor_of(step)
    with Seen() as seen:
        replay(2)
    assert taken == [1]
    kinds = [name for name in seen.names if "convolution" in name or "attention" in name]
    assert kinds == seen.names
    assert ["backward" in name for name in kinds] == [False, False, True, True]


def test_attention_by_products_counts_as_one_operation_each_way():
    operands = [torch.randn(1, size, 4).bfloat16().requires_grad_() for size in (1024, 256, 256)]

    def step(_number):
        attend_by_products(*operands).sum().backward()

    replay = floor_of(step)
    with Seen() as seen:
        replay(2)
    assert seen.names.count("aten::softmax.int_out") == 2
    assert seen.names.count("aten::bmm.out") == 3


def test_an_unfused_network_calls_its_convolutions():
    called = []
    network = unfused(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)))
    network[0].register_forward_hook(lambda *_: called.append(1))
    network(torch.zeros(1, 1, 2, 2))
    assert called == [1]
    assert len(network[0]._forward_pre_hooks) == 1
