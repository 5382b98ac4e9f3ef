import json
from pathlib import Path

import pytest

from benchmarks import evaluation_cost


def test_the_page_has_time_and_memory_with_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    commands = []

    def peak(*words: str) -> tuple[float, float]:
        caches = words[words.index("--cache") + 1]
        commands.append((words, Path(caches).parent.exists()))
        return 1.5, 4.0 if len(commands) % 2 else 1.0

    monkeypatch.setattr(evaluation_cost, "peak", peak)
    monkeypatch.setattr(evaluation_cost, "set_threads", lambda options: None)
    page = tmp_path / "page"
    evaluation_cost.main(["--images", "20", "--rounds", "2", "--large", "30", "40", "--out", str(page)])
    found = json.loads(page.with_suffix(".json").read_text())
    time, memory = found["tables"]
    assert set(found["machine"]) >= {"CPU", "torch", "threads", "commit"}
    assert [case["values"] for case in time["cases"].values()] == [[4.0, 4.0], [1.0, 1.0]]
    assert [ratio["median"] for ratio in time["ratios"].values()] == [0.25]
    assert list(memory["cases"]) == ["30 against 30", "40 against 40"]
    text = page.with_suffix(".md").read_text()
    assert text.startswith("# Cost of an evaluation\n\n`python -m benchmarks.evaluation_cost --images 20 ")
    caches = [words[words.index("--cache") + 1] for words, _ in commands]
    assert caches[0] == caches[1] != caches[2]  # a round has a cache of its own
    assert all(exists for _, exists in commands)
    assert "Peak of the resident memory" in capsys.readouterr().out


@pytest.mark.slow
def test_a_small_evaluation_is_timed_in_truth(tmp_path: Path):
    pytest.importorskip("efficientnet_lite_pytorch")
    page = tmp_path / "page"
    words = ["--images", "40", "--features", "efflite0-32", "--large", "--threads", "1", "--out", str(page)]
    evaluation_cost.main(words)
    (time,) = json.loads(page.with_suffix(".json").read_text())["tables"]
    assert all(case["median"] > 0 for case in time["cases"].values())
