import json
from pathlib import Path

import pytest

from benchmarks.evaluation import cost
from benchmarks.results import page_of


def test_the_pages_have_time_and_memory_with_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    commands = []

    def peak(*words: str) -> tuple[float, float]:
        caches = words[words.index("--cache") + 1]
        commands.append((words, Path(caches).parent.exists()))
        return 1.5, 4.0 if len(commands) % 2 else 1.0

    monkeypatch.setattr(cost, "peak", peak)
    monkeypatch.setattr(cost, "set_threads", lambda options: None)
    typed = ["--images", "20", "--rounds", "2", "--large", "30", "40", "--out", str(tmp_path)]
    cost.main(typed)
    pages = {theme: tmp_path / page_of(theme).name for theme in ("evaluation", "evaluation_memory")}
    found = {theme: json.loads(page.with_suffix(".json").read_text()) for theme, page in pages.items()}
    (time,), (memory,) = (each["tables"] for each in found.values())
    assert all(set(each["machine"]) >= {"CPU", "torch", "threads", "commit"} for each in found.values())
    assert [case["values"] for case in time["cases"].values()] == [[4.0, 4.0], [1.0, 1.0]]
    assert [ratio["median"] for ratio in time["ratios"].values()] == [0.25]
    assert list(memory["cases"]) == ["30 against 30", "40 against 40"]
    text = pages["evaluation"].with_suffix(".md").read_text()
    assert text.startswith("# Cost of an evaluation\n\n`python -m benchmarks.evaluation.cost --images 20 ")
    assert found["evaluation"]["command"] == f"python -m benchmarks.evaluation.cost {' '.join(typed)}"
    caches = [words[words.index("--cache") + 1] for words, _ in commands]
    assert caches[0] == caches[1] != caches[2]  # a round has a cache of its own
    assert all(exists for _, exists in commands)
    assert "Peak of the resident memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "themes"),
    [
        ([], ["evaluation", "evaluation_memory", "evaluation_memory"]),
        (["--images", "0", "--threads", "1"], ["evaluation_memory", "evaluation_memory"]),
        (["--large"], ["evaluation"]),
        (["--images", "20", "--large", "30"], []),
        (["--threads", "1", "--large"], []),
    ],
)
def test_only_figures_of_the_default_sizes_take_a_page_that_is_kept(
    words: list[str], themes: list[str], monkeypatch: pytest.MonkeyPatch
):
    pages: list[Path] = []
    monkeypatch.setattr(cost, "evaluated", lambda *_: (1.5, 4.0))
    monkeypatch.setattr(cost, "set_threads", lambda options: None)
    monkeypatch.setattr(cost, "write_page", lambda page, *_: pages.append(page))
    cost.main(words)
    assert pages == [page_of(theme) for theme in themes]


@pytest.mark.slow
def test_a_small_evaluation_is_timed_in_truth(tmp_path: Path):
    pytest.importorskip("efficientnet_lite_pytorch")
    words = ["--images", "40", "--features", "efflite0-32", "--large", "--threads", "1", "--out", str(tmp_path)]
    cost.main(words)
    (time,) = json.loads((tmp_path / page_of("evaluation").name).with_suffix(".json").read_text())["tables"]
    assert all(case["median"] > 0 for case in time["cases"].values())


def test_what_was_measured_is_on_the_page_when_a_later_number_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def peak(*words: str) -> tuple[float, float]:
        if words[words.index("--images") + 1] == "later":
            raise SystemExit("killed")
        return 1.5, 4.0

    def written(path: Path, images: int, _seed: int) -> str:
        return "later" if images == 40 else str(path)

    monkeypatch.setattr(cost, "peak", peak)
    monkeypatch.setattr(cost, "written", written)
    monkeypatch.setattr(cost, "set_threads", lambda options: None)
    with pytest.raises(SystemExit, match="killed"):
        cost.main(["--images", "0", "--large", "30", "40", "--out", str(tmp_path)])
    (memory,) = json.loads((tmp_path / page_of("evaluation_memory").name).with_suffix(".json").read_text())["tables"]
    assert list(memory["cases"]) == ["30 against 30"]
