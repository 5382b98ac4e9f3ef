import json
from argparse import Namespace

import pytest

from benchmarks.peak_memory import held
from benchmarks.run import benchmarks_of, main
from benchmarks.step_profile import kind_of
from benchmarks.suite import Benchmark, measure_all
from benchmarks.training_steps import SYSTEMS, TINY_SYSTEMS, changed, trainer, with_torch_spectral_norm


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
    assert page["command"] == "python -m benchmarks.run --tiny checkpoint"
    assert f"Results: {tmp_path / 'speed.md'} and speed.json" in capsys.readouterr().out


def test_small_networks_do_not_take_the_page_of_the_real_ones(monkeypatch):
    pages = []
    monkeypatch.setattr("benchmarks.run.page_of", lambda theme: theme)
    monkeypatch.setattr("benchmarks.run.measure_all", lambda *_, page, **words: pages.append(page) or 0)
    assert main([]) == main(["--tiny"]) == main(["demo"]) == 0
    assert pages == ["speed", "speed_tiny", None]


@pytest.mark.parametrize(
    ("page", "out", "written"), [("all", None, "all"), (None, None, None), ("all", "own", "own"), (None, "own", "own")]
)
def test_results_go_where_out_says_else_to_the_page_that_has_all(page, out, written, tmp_path):
    page, out = (None if name is None else tmp_path / name for name in (page, out))
    found = {"title": "Kept", "unit": "s", "rounds": 1, "cases": {}, "ratios": {}, "notes": []}
    options = Namespace(minutes=0, rounds=1, cpu_time=False, out=out)
    whole = {"whole": Benchmark(lambda turn: [found], 1.0)}
    assert measure_all(whole, options, page=page, title="Page", command="python") == 0
    assert [path.name for path in tmp_path.glob("*.json")] == ([f"{written}.json"] if written else [])


def test_what_fails_is_named_and_the_rest_is_measured(tmp_path, capsys, monkeypatch):
    def broken(turn):
        raise ValueError("nothing here")

    options = Namespace(minutes=0, rounds=1, cpu_time=False, out=None)
    found = {"title": "Kept", "unit": "s", "rounds": 1, "cases": {}, "ratios": {}, "notes": []}
    benchmarks = {"broken": Benchmark(broken, 0.5), "whole": Benchmark(lambda turn: [found], 0.5)}
    assert measure_all(benchmarks, options, page=tmp_path / "page", title="Page", command="python") == 1
    assert "failed: broken" in capsys.readouterr().err
    assert json.loads((tmp_path / "page.json").read_text())["tables"] == [found]


def test_the_shares_of_all_benchmarks_are_one():
    benchmarks = benchmarks_of(SYSTEMS)
    assert abs(sum(benchmark.share for benchmark in benchmarks.values()) - 1) < 1e-9


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
