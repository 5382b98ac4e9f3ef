import errno
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from PIL import Image

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.runs.config_file import compare_configs
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.runs.identity import RecipeIdentity
from gan_blocks.engine.runs.report import write_report

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
DEEP, PLAIN = RecipeIdentity("recipes.biggan_deep:RECIPE"), RecipeIdentity("recipes.biggan:RECIPE")
CONFIG = {"latent_dim": 64, "widths": (4, 2), "data": "mnist5k"}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", DEEP, "mnist5k-32", CONFIG, NOW)


def steps(run: RunFolder) -> list[int]:
    return [entry["step"] for entry in run.read_log()]


def test_the_folder_is_named_after_recipe_preset_and_utc_time(tmp_path: Path):
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-7)))
    run = RunFolder.create(tmp_path / "runs", DEEP, "mnist5k-32", CONFIG, elsewhere)
    assert run.path == tmp_path / "runs" / "biggan_deep-mnist5k-32-20260304T050607Z"


def test_two_runs_started_in_one_second_get_two_folders(tmp_path: Path):
    first, second = (RunFolder.create(tmp_path, PLAIN, "small", CONFIG, NOW) for _ in range(2))
    assert second.path.name == f"{first.path.name}-2"
    assert RunFolder.holds_run(first.path)
    assert RunFolder.holds_run(second.path)


def test_an_opened_run_says_what_it_was_created_with(run: RunFolder):
    opened = RunFolder.open(run.path)
    assert opened == run
    assert (opened.recipe, opened.preset) == (DEEP, "mnist5k-32")
    assert opened.config() == {"latent_dim": 64, "widths": [4, 2], "data": "mnist5k"}
    assert opened.title == "biggan_deep, mnist5k-32"
    assert opened.metadata() == {
        "recipe": "recipes.biggan_deep:RECIPE",
        "preset": "mnist5k-32",
        "config": opened.config(),
    }


def test_config_json_is_readable_by_anyone(run: RunFolder):
    assert json.loads((run.path / "config.json").read_text()) == {
        "recipe": "recipes.biggan_deep:RECIPE",
        "preset": "mnist5k-32",
        "config": {"latent_dim": 64, "widths": [4, 2], "data": "mnist5k"},
    }


def test_the_files_have_their_documented_places(run: RunFolder):
    places = (
        run.checkpoints,
        run.log_path,
        run.report_path,
        run.evaluation_path,
        run.samples_path(500),
        run.samples_path(1_234_567),
    )
    assert [str(place.relative_to(run.path)) for place in places] == [
        "checkpoints",
        "log.jsonl",
        "report.html",
        "evaluation.json",
        "samples/step_000500.png",
        "samples/step_1234567.png",
    ]
    run.samples_path(500).write_bytes(b"")


def test_the_newest_samples_are_those_of_the_latest_step(run: RunFolder):
    assert run.newest_samples() is None
    for step in (999_750, 1_000_000):
        run.samples_path(step).touch()
    assert run.newest_samples() == run.path / "samples" / "step_1000000.png"


def test_a_run_can_be_started_in_an_empty_folder_of_the_users_choice(tmp_path: Path):
    assert not RunFolder.holds_run(tmp_path)
    run = RunFolder.create_at(tmp_path, PLAIN, "small", CONFIG)
    assert run.path == tmp_path
    assert RunFolder.holds_run(tmp_path)


def test_a_folder_may_already_hold_the_users_own_files(tmp_path: Path):
    (tmp_path / "stdout.txt").write_text("output of the batch system")
    assert RunFolder.create_at(tmp_path, PLAIN, "small", CONFIG).config()["latent_dim"] == 64


@pytest.mark.parametrize("leftover", ["config.json", "log.jsonl", "checkpoints"])
def test_refuses_to_start_over_what_is_left_of_a_run(run: RunFolder, leftover: str):
    run.append_log({"step": 1})
    for name in {"config.json", "log.jsonl"} - {leftover}:
        (run.path / name).unlink()
    if leftover != "checkpoints":
        run.checkpoints.rmdir()
    with pytest.raises(UserError) as error:
        RunFolder.create_at(run.path, PLAIN, "small", CONFIG)
    assert str(error.value) == f"{run.path} cannot take a new run: it already holds {leftover}. Name another folder."


def test_a_run_that_begins_again_shows_nothing_of_what_was_there(run: RunFolder):
    run.append_log({"step": 1})
    for picture in (run.samples_path(250), run.spectra_path):
        Image.new("L", (2, 2)).save(picture)
    own = run.samples_path(250).with_name("mine.png")
    own.touch()
    again = run.begin_again("small", {**CONFIG, "latent_dim": 65})
    assert (again.all_samples(), again.spectra_path.exists(), again.read_log()) == ([], False, [])
    assert own.exists()
    write_report(again)
    assert "<img" not in again.report_path.read_text()


def test_opening_nothing_is_a_user_error(tmp_path: Path):
    with pytest.raises(UserError, match=r"^there is no run folder .*/nowhere\.$"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r" is not the folder of a run: it holds no config\.json\.$"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"recipe": "bigg', b"[]", b'{"recipe": "biggan"}', b"\xff\xfe"])
def test_a_damaged_config_is_a_user_error(run: RunFolder, content: bytes):
    (run.path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json is damaged: "):
        RunFolder.open(run.path)


def test_a_file_where_the_folder_of_runs_should_be_is_a_user_error(tmp_path: Path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match=r"runs was not written: File exists\.$"):
        RunFolder.create(tmp_path / "runs", PLAIN, "small", CONFIG, NOW)
    with pytest.raises(UserError, match=r"was not written: File exists\.$"):
        RunFolder.create_at(tmp_path / "runs", PLAIN, "small", CONFIG)


def test_a_dangling_link_where_the_folder_of_runs_should_be_is_a_user_error(tmp_path: Path):
    (tmp_path / "runs").symlink_to(tmp_path / "unmounted")
    with pytest.raises(UserError, match=r"runs was not written: File exists\.$"):
        RunFolder.create(tmp_path / "runs", PLAIN, "small", CONFIG, NOW)


def test_a_full_disk_leaves_no_half_written_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def write_half(path: Path, data: bytes) -> None:
        path.write_bytes(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gan_blocks.engine.base.files.write_durably", write_half)
    with pytest.raises(
        UserError, match=r"config\.json was not written: the disk mounted at /\S* is full \(.* free, .* needed\)\.$"
    ):
        RunFolder.create_at(tmp_path / "run", PLAIN, "small", CONFIG)
    assert list((tmp_path / "run").iterdir()) == []


def test_the_log_gives_back_what_was_appended(run: RunFolder):
    assert run.read_log() == []
    entries = [{"event": "start", "step": 0}, {"step": 1, "loss": 0.1 + 0.2}, {"note": "Grüße\nzwei"}]
    for entry in entries:
        run.append_log(entry)
    assert run.read_log() == entries
    assert len(run.log_path.read_text().splitlines()) == 3


def test_each_log_line_is_on_the_disk_at_once(run: RunFolder):
    run.append_log({"step": 1})
    assert run.log_path.read_bytes() == b'{"step": 1}\n'


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b'{"step": 3}', b"\0\0\0"])
def test_an_unfinished_last_line_is_not_read(run: RunFolder, torn: bytes):
    run.log_path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + torn)
    assert steps(run) == [1, 2]


def test_a_damaged_line_in_the_middle_is_named(run: RunFolder):
    run.log_path.write_bytes(b'{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"^line 2 of \S*log\.jsonl is damaged: it is not a JSON object\.$"):
        run.read_log()


def test_truncating_drops_later_steps_and_torn_lines_and_nothing_else(run: RunFolder):
    run.log_path.write_bytes(
        b'{"event": "start"}\n{"step": 1}\n{"st\0\n{"step": 2}\n{"step": 3}\n{"event": "note"}\n{"step": 4, "l'
    )
    run.truncate_log(after_step=2)
    assert run.read_log() == [{"event": "start"}, {"step": 1}, {"step": 2}, {"event": "note"}]
    run.append_log({"step": 3})
    assert run.read_log()[-1] == {"step": 3}


def test_seconds_of_training_are_those_of_the_newest_checkpoint_that_is_left(run: RunFolder):
    assert run.trained_seconds() == 0
    for step, seconds in ((2, 1.5), (4, 2.75)):
        run.append_log({"step": step, "loss_g": 0.5})
        run.append_log({"event": "checkpoint", "step": step, "seconds": seconds})
    run.append_log({"step": 5, "loss_g": 0.5})
    assert run.trained_seconds() == 2.75
    run.truncate_log(after_step=3)
    assert run.trained_seconds() == 1.5


def test_truncating_a_log_that_was_never_begun_does_nothing(run: RunFolder):
    run.truncate_log(after_step=0)
    assert not run.log_path.exists()


def test_a_log_that_cannot_be_written_is_a_user_error(run: RunFolder):
    run.log_path.mkdir()
    with pytest.raises(
        UserError, match=r"log\.jsonl was not written: Is a directory\. The checkpoints are untouched\.$"
    ):
        run.append_log({"step": 1})


def test_truncating_on_a_full_disk_keeps_the_old_log(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    def fail(path: Path, data: bytes) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    run.append_log({"step": 1})
    run.append_log({"step": 2})
    monkeypatch.setattr("gan_blocks.engine.base.files.write_durably", fail)
    with pytest.raises(UserError, match=r"was not written: your quota on the disk mounted at /\S* is used up"):
        run.truncate_log(after_step=1)
    assert steps(run) == [1, 2]


def test_equal_configs_agree_whether_tuples_or_lists(run: RunFolder):
    compare_configs(run.config(), CONFIG)


def test_every_differing_field_is_named_as_its_option_with_both_values():
    saved = {"latent_dim": 64, "widths": [4, 2], "attention": True, "seed": 0}
    with pytest.raises(UserError) as error:
        compare_configs(saved, {"latent_dim": 128, "widths": (8, 4, 2), "attention": True, "seed": 0})
    assert str(error.value) == (
        "--latent-dim is 128 here, but the run was started with 64; "
        "--widths is 8 4 2 here, but the run was started with 4 2."
    )


def test_allowed_fields_may_differ():
    compare_configs({"data": "a", "seed": 0}, {"data": "b", "seed": 0}, allowed=("data",))
    with pytest.raises(UserError, match=r"^--seed is 1 here, but the run was started with 0\.$"):
        compare_configs({"data": "a", "seed": 0}, {"data": "b", "seed": 1}, allowed=("data",))


def test_fields_that_only_one_side_has_differ():
    with pytest.raises(UserError) as error:
        compare_configs({"old_field": 1, "tag": ""}, {"new_field": 2, "tag": "x"})
    assert str(error.value) == (
        "--new-field is 2 here, but the run was started without it; "
        "--tag is x here, but the run was started with empty; "
        "--old-field is not an option here, but the run was started with 1."
    )


def test_a_difference_inside_a_field_is_named_as_the_option_that_it_is():
    message = r"--r1-weight is 3\.0 here, but the run was started with 2\.0\."
    with pytest.raises(UserError, match=f"^{message}$"):
        compare_configs({"loss": {"r1_weight": 2.0, "drift": 0}}, {"loss": {"r1_weight": 3.0, "drift": 0}})
