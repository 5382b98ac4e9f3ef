import json
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.peak_memory import held
from benchmarks.results import page_of
from benchmarks.run import benchmarks_of, main
from benchmarks.steps.profile import kind_of
from benchmarks.steps.training_steps import SYSTEMS, TINY_SYSTEMS, changed, trainer, with_torch_spectral_norm
from benchmarks.suite import Benchmark, measure_all

ROOT = Path(__file__).parents[2]


def test_small_benchmarks_end_in_a_page_and_its_json(tmp_path, capsys):
    words = ["checkpoint", "--tiny", "--minutes", "0", "--rounds", "1"]
    assert main([*words, "--out", str(tmp_path / "speed")]) == 0
    page = json.loads((tmp_path / "speed.json").read_text())
    assert {"CPU", "torch", "threads", "commit"} <= set(page["machine"])
    (found,) = page["tables"]
    assert set(found["cases"]) == {"ours", "torch.save"}
    assert found["rounds"] == 1
    shown = (tmp_path / "speed.md").read_text()
    assert "| ours / torch.save |" in shown
    assert page["machine"]["torch"] in shown
    assert page["command"] == f"python -m benchmarks.run {' '.join(words)} --out {tmp_path / 'speed'}"
    assert f"Results: {tmp_path / 'speed.md'} and speed.json" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--tiny"], ["demo"], ["--cpu-time"], ["--rounds", "1"], ["--threads", "1"]])
def test_only_a_run_with_the_defaults_takes_the_page_that_is_kept(words, tmp_path, monkeypatch):
    pages = []
    monkeypatch.setattr("benchmarks.run.measure_all", lambda *_, page, **words: pages.append(page) or 0)
    monkeypatch.setattr("benchmarks.run.set_threads", lambda options: None)
    assert main([]) == main(words) == main([*words, "--out", str(tmp_path)]) == 0
    assert pages == [page_of("speed"), None, tmp_path]


@pytest.mark.slow
def test_steps_of_small_networks_end_in_a_page(tmp_path):
    words = ["biggan-deep-128", "sngan-32", "--tiny", "--minutes", "0", "--rounds", "1"]
    assert main([*words, "--out", str(tmp_path / "speed")]) == 0
    titles = [each["title"].partition(",")[0] for each in json.loads((tmp_path / "speed.json").read_text())["tables"]]
    assert titles == ["Training step of BigGAN-deep-128", "Training step of SN-GAN-32"]


def test_every_system_has_a_small_one():
    assert list(TINY_SYSTEMS) == list(SYSTEMS)
    for recipe, config in TINY_SYSTEMS.values():
        assert sum(parameter.numel() for parameter in recipe.build_generator(config).parameters()) < 1e6


def test_the_load_on_a_page_is_that_before_the_benchmark(tmp_path, monkeypatch):
    loads = [0.5]
    monkeypatch.setattr("benchmarks.timing.os.getloadavg", lambda: loads * 3)

    def busy(turn):
        loads[0] = 8.0
        return []

    options = Namespace(minutes=0, rounds=1, cpu_time=False)
    assert measure_all({"busy": Benchmark(busy, 1.0)}, options, page=tmp_path / "page", title="Page", command="x") == 0
    assert json.loads((tmp_path / "page.json").read_text())["machine"]["load"] == "0.5"


def test_what_fails_is_named_and_the_rest_is_measured(tmp_path, capsys, monkeypatch):
    def broken(turn):
        raise ValueError("nothing here")

    options = Namespace(minutes=0, rounds=1, cpu_time=False)
    found = {"title": "Kept", "unit": "s", "rounds": 1, "cases": {}, "ratios": {}, "notes": []}
    benchmarks = {"broken": Benchmark(broken, 0.5), "whole": Benchmark(lambda turn: [found], 0.5)}
    assert measure_all(benchmarks, options, page=tmp_path / "page", title="Page", command="python") == 1
    assert "failed: broken" in capsys.readouterr().err
    assert json.loads((tmp_path / "page.json").read_text())["tables"] == [found]


def test_the_shares_of_all_benchmarks_are_one():
    benchmarks = benchmarks_of(tiny=False)
    assert abs(sum(benchmark.share for benchmark in benchmarks.values()) - 1) < 1e-9


def test_the_page_on_speed_lists_every_script():
    page = (ROOT / "docs" / "speed.md").read_text()
    scripts = [path for path in (ROOT / "benchmarks").rglob("*.py") if '__name__ == "__main__"' in path.read_text()]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__") for path in scripts]
    assert "benchmarks.trials.killed" in modules
    others = {"benchmarks.peers": "make bench-peers", "benchmarks.steps.checkout_worker": "benchmarks.steps.checkouts"}
    named = [name for name in modules if others.get(name, name) in page or f"{name.rpartition('.')[2]}.py`" in page]
    assert named == modules


def test_an_unknown_name_is_refused_with_the_names_that_there_are(capsys):
    with pytest.raises(SystemExit) as end:
        main(["bigan-128"])
    assert end.value.code == 2
    assert "there is no benchmark bigan-128; the names are biggan-128," in capsys.readouterr().err


def test_torch_norm_takes_the_place_of_ours_and_trains():
    recipe, config = TINY_SYSTEMS["demo"]
    built = []

    def change(network):
        built.append(with_torch_spectral_norm(network))
        return network

    trainer(changed(recipe, change), config)(1)
    kinds = {type(module).__name__ for network in built for module in network.modules()}
    assert "_SpectralNorm" in kinds
    assert "SpectralNorm" not in kinds


def test_a_process_holds_no_more_than_its_peak():
    now, peak = held()
    assert 0 < now <= peak


def test_operations_are_told_by_their_names():
    names = {
        "aten::convolution_backward": "convolutions",
        "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
        "aten::native_batch_norm": "batch normalization",
        "aten::mv": "matrix products",
        "aten::addmm": "matrix products",
        "aten::_fused_adam_": "optimizers and averages",
        "aten::mul": "other operations",
        "AddmmBackward0": "Python",
    }
    assert {name: kind_of(name) for name in names} == names
