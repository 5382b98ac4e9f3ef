"""The command line of a training: its options, its errors and its help, on recipes.biggan_deep with a tiny network."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.terminal.command_line import run_command
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.runs.folder import RunFolder
from recipes import biggan, biggan_deep, dcgan, sagan, sngan


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--preset", "mnist"],
            "--preset must be one of mnist5k-32, cifar10-32, imagenet-128, ",
        ),
        (["--step", "3"], "Unrecognized option: --step. Perhaps you meant --steps. See --help."),
        (["--qqq", "3"], "Unrecognized option: --qqq. See --help."),
        (["--stepz", "3"], "Unrecognized option: --stepz. Perhaps you meant --steps. See --help."),
        (["--steps", "many"], "--steps must be a whole number, but got many. See --help."),
        (["--minutes", "few"], "--minutes must be a number, but got few. See --help."),
        (["--num-classes", "1.5"], "--num-classes must be a whole number, but got 1.5. See --help."),
        (["--generator-lr", "x"], "--generator-lr must be a number, but got x. See --help."),
        (["--generator-widths", "3", "x"], "--generator-widths cannot be 3, x. See --help."),
        (
            ["--precision", "fp12"],
            "--precision must be one of fp32, bf16, fp64, but got fp12. Perhaps you meant fp32. See --help.",
        ),
        (["--run-dir"], "--run-dir needs a value. See --help."),
        (["--precision", "fp16"], "--precision"),
        (["--steps", "0"], "--steps must be greater than 0, but got 0."),
        (["--threads", "1025"], "--threads must be from 1 to 1,024, but got 1025."),
        (["--accumulate", "200"], "--accumulate must be at most 16, the images of the smallest batch, but got 200."),
        (["--adam-beta1", "1"], "--adam-beta1 must be at least 0 and less than 1, but got 1.0."),
        (["--generator-lr", "inf"], "--generator-lr must be a finite number, but got inf."),
        (["--timeout", "inf"], "--timeout must be a finite number, but got inf."),
        (["--minutes", "nan"], "--minutes must be greater than 0, but got nan."),
        (["--latent-dim", "9" * 25], f"--latent-dim must be a whole number of 64 bits, but got {'9' * 25}."),
        (
            ["--latent-dim", "9223372036854775807"],
            "the networks of these options need more memory than any machine has.",
        ),
        (["--channels", "1000000"], "the networks of these options need"),
        (["--batch-size", "2147483648"], "the images of --batch-size 2,147,483,648 need 35,184 GB or more, but"),
        (["--standing-batches", "9223372036854775807"], "--standing-batches must be at most 1,000,000, but got"),
        (
            ["--run-dir", "a" * 300],
            "--run-dir must be a path of names of at most 255 bytes, 1,000 in all, but got aaaa",
        ),
        (["--resume", "a/" * 800], "--resume must be a path of names of at most 255 bytes, 1,000 in all, but got a/a"),
        (["--run-dir", ""], "--run-dir must not be empty."),
        (["--run-dir="], "--run-dir must not be empty."),
        (["--batch-size", "-1"], "--batch-size must be greater than 0, but got -1."),
        (["--device", "tpu"], "--device must be auto, cpu, cuda or cuda:N, but got tpu."),
        (["--data", "cifar"], "--data"),
        (["--data", "folder:/nowhere"], "--data"),
        (["--resume", "/nowhere"], "/nowhere"),
        (["--run-dir", "/dev/null"], "--run-dir must be a folder, but /dev/null is a file."),
    ],
)
def test_bad_options_end_with_one_line_and_status_2_and_leave_nothing_behind(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert biggan_deep.RECIPE.main(args) == 2
    captured = capfd.readouterr()
    lines = (captured.out + captured.err).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("biggan_deep: error: ")
    assert message in lines[0]
    assert not list(tmp_path.iterdir())


def test_resuming_with_another_architecture_names_the_field(
    tiny_args: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(tmp_path / "run"), "--steps", "1"]) == 0
    capfd.readouterr()
    assert biggan_deep.RECIPE.main(["--resume", str(tmp_path / "run"), "--latent-dim", "7", "--steps", "2"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "--latent-dim is 7 here, but the run was started with 6" in lines[0]


@pytest.mark.slow
def test_options_with_underscores_are_the_same_options(tiny_args: list[str], tmp_path: Path):
    run = str(tmp_path / "run")
    assert biggan_deep.RECIPE.main([*tiny_args, "--run_dir", run, "--steps", "1"]) == 0
    assert biggan_deep.RECIPE.main([f"--run_dir={run}", "--steps", "2"]) == 0
    assert biggan_deep.RECIPE.main(["--init_from", run, "--run-dir", str(tmp_path / "next"), "--steps", "1"]) == 0
    assert RunFolder.open(tmp_path / "next").config() == RunFolder.open(tmp_path / "run").config()


def test_the_error_of_an_option_is_one_line_also_where_boxes_are_of_ascii():
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "recipes.describe", "biggan_deep", "--nonsense"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("describe: error: ")
    assert done.stderr.endswith("See --help.\n")
    assert done.stderr.count("\n") == 1
    assert not re.search(r"--+ ", done.stderr)


def test_ctrl_c_ends_a_command_with_one_line(capfd: pytest.CaptureFixture[str]):
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert run_command("sample", interrupted) == 130
    assert capfd.readouterr().err == "sample: stopped.\n"


class TestConfigOfARun:
    def start(self, *words: str) -> int:
        return biggan_deep.RECIPE.main(["--steps", "1", "--threads", "1", "--sample-every", "0", *words])

    def saved(self, run: Path) -> dict[str, Any]:
        return json.loads((run / "config.json").read_bytes())

    @pytest.mark.parametrize("name", ["config.json", ""])
    def test_a_new_run_has_its_options_but_for_those_that_are_given(self, name: str, tiny_run: Path, tmp_path: Path):
        words = ["--config", str(tiny_run / name), "--seed", "3", "--run-dir", str(tmp_path / "run")]
        assert self.start(*words) == 0
        old, new = self.saved(tiny_run), self.saved(tmp_path / "run")
        assert new["config"] == {**old["config"], "seed": 3, "data": new["config"]["data"]}
        assert new["preset"] == old["preset"] == "mnist5k-32"
        assert not list((tmp_path / "run" / "checkpoints").glob("step_000003"))

    def test_typed_again_it_continues_and_with_another_config_it_is_refused(
        self, tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ):
        words = ["--config", str(tiny_run), "--run-dir", str(tmp_path / "run")]
        assert self.start(*words) == 0
        assert self.start(*words, "--steps", "2") == 0
        other = tmp_path / "other.json"
        other.write_text(json.dumps({**self.saved(tiny_run), "config": {**self.saved(tiny_run)["config"], "seed": 5}}))
        capfd.readouterr()
        assert self.start("--config", str(other), "--run-dir", str(tmp_path / "run")) == 2
        assert "--seed is 5 here, but the run was started with 0." in capfd.readouterr().err

    def test_a_file_of_no_preset_is_named_so(self, tiny_run: Path, tmp_path: Path):
        (tmp_path / "converted.json").write_text(json.dumps({**self.saved(tiny_run), "preset": "converted"}))
        data = self.saved(tiny_run)["config"]["data"]
        words = ["--config", str(tmp_path / "converted.json"), "--data", data, "--run-dir", str(tmp_path / "run")]
        assert self.start(*words) == 0
        assert self.saved(tmp_path / "run")["preset"] == "custom"
        assert biggan_deep.RECIPE.main(["--resume", str(tmp_path / "run"), "--steps", "2"]) == 0

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            (
                {"config": {"depth": 3}},
                "{}: the saved Config has --depth 3, which this version of recipes.biggan_deep",
            ),
            ({"config": {"batch_size": 0}}, "{}: --batch-size must be greater than 0, but got 0."),
            ({"recipe": "recipes.sngan:RECIPE"}, "{} is of a run of recipes.sngan:RECIPE, not of recipes.biggan_deep:"),
            ({"recipe": 3}, "--config must name the config.json of a run, but {} is damaged: its recipe is not what"),
            (None, "--config must name the config.json of a run, but {} cannot be read: No such file or directory."),
        ],
    )
    def test_what_cannot_be_is_one_line(
        self, changes: dict[str, Any] | None, problem: str, tiny_run: Path, tmp_path: Path, capfd: Any
    ):
        path = tmp_path / "some.json"
        if changes is not None:
            path.write_text(json.dumps(self.saved(tiny_run) | changes))
        capfd.readouterr()
        assert self.start("--config", str(path), "--run-dir", str(tmp_path / "run")) == 2
        said = capfd.readouterr().err
        assert said.startswith(f"biggan_deep: error: {problem.format(path)}")
        assert said.count("\n") == 1
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("words", "problem"),
        [
            (["--preset", "mnist5k-32"], "--config takes the Config of that run, so --preset cannot be given with it"),
            (["--resume", "RUN"], "--config starts a run; --resume and --init-from take the options of the run"),
            (["--init-from", "RUN"], "--config starts a run; --resume and --init-from take the options of the run"),
        ],
    )
    def test_it_is_instead_of_a_preset_or_another_run(
        self, words: list[str], problem: str, tiny_run: Path, capfd: pytest.CaptureFixture[str]
    ):
        words = [str(tiny_run) if word == "RUN" else word for word in words]
        assert self.start("--config", str(tiny_run), *words) == 2
        assert capfd.readouterr().err.splitlines()[-1].startswith(f"biggan_deep: error: {problem}")


@dataclasses.dataclass(frozen=True)
class YoungerConfig(biggan_deep.Config):
    """A version with one more option."""

    sharpness: tuple[int, ...] = (3, 4)


def test_options_that_a_run_was_begun_without_or_that_are_gone_are_named_when_it_is_continued(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    old, young = tmp_path / "old", tmp_path / "young"
    preset = {"renamed": lambda: YoungerConfig()}  # and the run's preset is gone
    with monkeypatch.context() as patched:
        assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(old), "--steps", "1"]) == 0
        patched.setattr(
            biggan_deep,
            "RECIPE",
            replace(biggan_deep.RECIPE, config=YoungerConfig, presets=preset),  # type: ignore
        )
        capfd.readouterr()
        assert biggan_deep.RECIPE.main(["--resume", str(old), "--steps", "2"]) == 0
        assert "Options that are newer than the run have their defaults: --sharpness 3 4.\n" in capfd.readouterr().err
        assert biggan_deep.RECIPE.main(["--resume", str(old), "--preset", "mnist5k-32", "--steps", "3"]) == 0
        assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(young), "--steps", "1"]) == 0
    capfd.readouterr()
    assert biggan_deep.RECIPE.main(["--resume", str(young)]) == 2
    problem = "the saved Config has --sharpness 3 4, which this version of recipes.biggan_deep does not know"
    assert capfd.readouterr().err.startswith(f"biggan_deep: error: {problem}; ")


@dataclasses.dataclass(frozen=True)
class UnsavableConfig(biggan_deep.Config):
    """A Config with a field that JSON gives back as another."""

    table: dict[int, int] = dataclasses.field(default_factory=lambda: {4: 16})


def test_a_config_that_could_not_be_read_again_is_refused_before_it_is_trained(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    presets = {"small": lambda: UnsavableConfig()}
    recipe = replace(biggan_deep.RECIPE, config=UnsavableConfig, presets=presets)  # type: ignore[arg-type]
    monkeypatch.setattr(biggan_deep, "RECIPE", recipe)
    assert recipe.main([*tiny_args, "--run-dir", str(tmp_path / "run"), "--steps", "1"]) == 2
    assert capfd.readouterr().err.startswith("biggan_deep: error: --table cannot be read back from a saved run:")
    assert not (tmp_path / "run").exists()


def test_help_is_a_page_with_every_field_and_default(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        biggan_deep.RECIPE.main(["--help"])
    assert stop.value.code == 0
    page = capsys.readouterr().out
    names = [field.name for kind in (biggan_deep.Config, RunOptions) for field in dataclasses.fields(kind)]
    assert all(f" --{name.replace('_', '-')} " in page.replace("--[no-]", "--") for name in ["preset", *names])
    assert "Appendix B" in page


@pytest.mark.parametrize("recipe", [biggan.RECIPE, biggan_deep.RECIPE, sagan.RECIPE, sngan.RECIPE, dcgan.RECIPE])
def test_help_can_be_read_in_a_minute(recipe: Recipe, capsys: pytest.CaptureFixture[str]):
    for preset in recipe.presets:
        with pytest.raises(SystemExit):
            recipe.main(["--preset", preset, "--help"])
        page = capsys.readouterr().out.splitlines()
        assert len(page) <= 120
        assert max(map(len, page)) <= 80
        assert page[2].split() == [*recipe.command.split(), "train", next(iter(recipe.presets))]
        text = " ".join(page)
        assert "None" not in text
        assert text.count("(default") <= 3  # of options without a value of their own


def test_help_marks_what_a_preset_sets(capsys: pytest.CaptureFixture[str]):
    def marked(*words: str) -> set[str]:
        with pytest.raises(SystemExit):
            biggan.RECIPE.main([*words, "--help"])
        return set(re.findall(r"^\* --(\S+)", capsys.readouterr().out, re.M))

    preset, standard = vars(biggan.PRESETS["cifar10-32"]()), vars(biggan.Config())
    changed = {name.replace("_", "-") for name in standard if preset[name] != standard[name]}
    assert marked("--preset", "cifar10-32") == changed > {"batch-size", "channels"}
    assert marked() == set()


def test_networks_whose_layers_do_not_fit_end_with_one_line_and_no_folder(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    class Wide(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(7, 16 * 16)

        def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return self.first(z).unflatten(1, (1, 16, 16))

    other = replace(biggan_deep.RECIPE, build_generator=lambda config: Wide())
    monkeypatch.setattr(biggan_deep, "RECIPE", other)
    assert other.main([*tiny_args, "--run-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("biggan_deep: error: the generator fails in first (Linear), given (2, 6): mat1 and mat2 ")
    assert not (tmp_path / "run").exists()


def test_help_for_a_run_shows_what_the_run_sets(tiny_run: Path, capsys: pytest.CaptureFixture[str]):
    for option in ("--resume", "--init-from", "--config"):
        with pytest.raises(SystemExit):
            biggan_deep.RECIPE.main([option, str(tiny_run), "--help"])
        page = capsys.readouterr().out
        assert "* marks what the run sets." in page
        assert "* --batch-size 8" in page
        assert ("--preset" in page) == (option == "--resume")
        assert "fine-tuned" not in page


def test_names_in_a_message_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]):
    def fail() -> int:
        raise UserError("there is no file \x1b[31mred\nline/größe\xa0x.")

    assert run_command("sample", fail) == 2
    assert capsys.readouterr().err == "sample: error: there is no file \\x1b[31mred\\nline/größe\xa0x.\n"


def test_what_a_file_system_refuses_is_one_line_wherever_it_is_asked(capsys: pytest.CaptureFixture[str]):
    def fail() -> int:
        return len(Path("a" * 300).read_bytes())

    assert run_command("sample", fail) == 2
    assert capsys.readouterr().err == f"sample: error: {'a' * 200}...: File name too long.\n"
