import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recipes import biggan_deep, wgan_gp

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


def weights(run: Path, part: str, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step_{step:06d}" / f"{part}.safetensors")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch, about its own code
@needs_compiler
def test_a_compiled_run_resumes_bit_for_bit_and_differs_from_an_uncompiled_one_by_rounding(
    tiny_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """Networks of strided convolutions, which are compiled soonest, and a penalty with second derivatives."""
    small = ["--resolution", "16", "--widths", "6", "4", "--latent-dim", "5", "--batch-size", "8", "--threads", "1"]
    short = ["--planned-steps", "6", "--standing-batches", "2", "--ema-start", "2", "--sample-every", "0"]

    def train(name: str, steps: int, *options: str) -> Path:
        run = tmp_path / name
        args = ["--data", f"npz:{tiny_data}", *small, *short, "--run-dir", str(run), "--steps", str(steps)]
        assert wgan_gp.RECIPE.main([*args, *options]) == 0
        return run

    whole = train("whole", 4, "--compile", "True")
    assert "G and D are compiled in the first steps of this session" in capfd.readouterr().err
    train("parts", 2, "--compile", "True")
    torch.compiler.reset()  # as a new process begins
    parts = train("parts", 4, "--compile", "True")
    plain = train("plain", 4)
    for part in ("generator", "discriminator", "ema", "optimizer_g", "optimizer_d"):
        ours, resumed, eager = (weights(run, part, 4) for run in (whole, parts, plain))
        assert ours.keys() == eager.keys()
        assert all(torch.equal(ours[name], resumed[name]) for name in ours)
        if part in ("generator", "discriminator"):
            assert all((ours[name] - eager[name]).abs().max() < 1e-2 for name in ours)
    assert train("plain", 5, "--compile", "True") == plain  # the other way round, too


@pytest.fixture
def broken_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_nothing(*_args: object, **_options: object) -> object:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found in g++\n\nmore of it")

    monkeypatch.setattr(torch, "compile", compile_nothing)


@pytest.mark.usefixtures("broken_compiler")
def test_without_a_compiler_one_line_says_what_is_needed(
    tiny_args: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(tmp_path / "run"), "--compile", "True"]) == 2
    assert capfd.readouterr().err == (
        "biggan_deep: error: --compile needs a working C++ compiler, such as g++: InvalidCxxCompiler: No working C++ "
        "compiler found in g++. Install it, or leave --compile out.\n"
    )
    assert not (tmp_path / "run").exists()
