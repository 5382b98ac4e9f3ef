import json
from pathlib import Path

import pytest

from benchmarks.results import page_of
from benchmarks.steps import checkouts

ROOT = Path(__file__).parents[3]


def test_a_folder_that_is_no_checkout_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        checkouts.main([str(tmp_path)])
    assert end.value.code == 2
    assert "must be a checkout of this repository" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "kept"), [([], True), (["--compile"], True), (["--rounds", "1"], False), (["--recipe", "sngan"], False)]
)
def test_only_the_usual_step_takes_the_page_that_is_kept(words, kept, monkeypatch):
    class Quick:
        def __init__(self, *_):
            pass

        def steps(self, count):
            return [1.0] * count

        def close(self):
            pass

    pages = []
    monkeypatch.setattr(checkouts, "Worker", Quick)
    monkeypatch.setattr(checkouts, "write_page", lambda page, _, command, *rest: pages.append((page, command)))
    assert checkouts.main([str(ROOT), *words]) == 0
    command = " ".join(["python -m benchmarks.steps.checkouts", str(ROOT), *words])
    assert pages == ([(page_of("checkouts"), command)] if kept else [])


@pytest.mark.slow
def test_two_checkouts_take_turns(tmp_path):
    words = [str(ROOT), "--warm-up", "1", "--steps", "1", "--rounds", "2", "--out", str(tmp_path / "page")]
    assert checkouts.main(words) == 0
    (found,) = json.loads((tmp_path / "page.json").read_text())["tables"]
    assert [len(case["values"]) for case in found["cases"].values()] == [2, 2]
