from pathlib import Path

import pytest
import torch

from gan_blocks.engine import UserError
from gan_blocks.engine.data import load_images_of
from gan_blocks.engine.runs.weights import read_weights
from gan_blocks.engine.sampling.trained import load_trained
from recipes.pretrained import NAMES, load_generator, make_weights, weights_path
from recipes.pretrained.__main__ import main

EACH = 50  # images of a class


@pytest.mark.parametrize("name", NAMES)
def test_each_is_small_and_draws_the_classes_of_its_data(name: str):
    assert weights_path(name).stat().st_size < 2_000_000
    generator, prior = load_generator(name)
    classes = torch.arange(10).repeat_interleave(EACH)
    drawn = generator(prior.sample(len(classes), generator=torch.Generator().manual_seed(0)), classes)
    assert drawn.shape == (len(classes), 1, 32, 32)
    assert drawn.abs().max() <= 1
    trained = load_trained(run=None, weights=weights_path(name), device=torch.device("cpu"))
    try:
        real = load_images_of(trained.config)
    except UserError as error:
        pytest.skip(str(error))
    pixels, labels = real.batch(torch.arange(0, len(real), max(len(real) // 1000, 1)))
    centers = torch.stack([pixels[labels == each].mean(dim=0) for each in range(10)]).flatten(1)
    own = torch.stack([drawn[classes == each].mean(dim=0) for each in range(10)]).flatten(1)
    assert torch.equal(torch.cdist(own, centers).argmin(dim=1), torch.arange(10))
    # No two images are alike, as they would be if z did nothing.
    assert min(torch.pdist(drawn[classes == each].flatten(1)).min().item() for each in range(10)) > 0.5


def test_what_is_not_there_is_named(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError, match="no pretrained generator cats; the names are clothes, digits"):
        load_generator("cats")
    assert main(["cats"]) == 2
    assert "the names are clothes, digits" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["--make", "runs/cats"])
    assert end.value.code == 2


def test_names_and_paths_are_printed(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(NAMES)
    assert main(["digits"]) == 0
    assert Path(capsys.readouterr().out.strip()) == weights_path("digits")


def test_made_of_a_run_they_are_its_average_rounded(tiny_run: Path, tmp_path: Path):
    made = tmp_path / "small.safetensors"
    make_weights(tiny_run, made)
    tensors, _ = read_weights(made)
    average = load_trained(run=tiny_run, weights=None, device=torch.device("cpu")).average.state_dict()
    assert tensors.keys() == average.keys()
    for name, tensor in average.items():
        torch.testing.assert_close(tensors[name].float(), tensor.float(), rtol=2**-8, atol=0)
    again = load_trained(run=None, weights=made, device=torch.device("cpu"))
    assert all(tensor.dtype != torch.bfloat16 for tensor in again.average.state_dict().values())
