import pytest
from torch import nn

from gan_blocks.engine.base.eval_mode import eval_mode


def test_every_module_has_its_own_mode_again_also_after_an_error():
    networks = [nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Dropout())) for _ in range(2)]
    networks[0][1].eval()
    networks[1].eval()

    def modes() -> list[bool]:
        return [module.training for network in networks for module in network.modules()]

    before = modes()
    assert before == [True, True, False, False, False, False, False, False]
    with eval_mode(*networks):
        assert not any(modes())
    assert modes() == before
    with pytest.raises(ZeroDivisionError), eval_mode(*networks):
        _ = 1 / 0
    assert modes() == before
