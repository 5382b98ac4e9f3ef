import json

import pytest
import torch

from benchmarks.evaluation import judge
from benchmarks.evaluation.corruptions import GRADES, corruptions
from benchmarks.evaluation.judge import PLAIN, WORSE, Cell, Judge, kept_cells, planned, tables
from gan_blocks.engine import load_images
from gan_blocks.engine.data.held_out import selected_images
from gan_blocks.engine.evaluation.features.cache import Cache
from gan_blocks.engine.evaluation.features.rows import computed_rows
from gan_blocks.engine.evaluation.real_side import RealSide

RANDOM = ("duplicates", "classes dropped")  # whose images stand in other places


def graded(features, size, corruption, values, metric="FD"):
    return {Cell(features, size, corruption, grade): {metric: value} for grade, value in enumerate(values, 1)}


def test_the_table_names_the_least_number_from_which_the_order_is_right():
    cells = {Cell(net, size, PLAIN, 0): {"FD": 1.0} for net in ("a", "b") for size in (10, 20)}
    for net in ("a", "b"):
        cells |= graded(net, 10, "blur", (2, 3, 4)) | graded(net, 20, "blur", (2, 3, 4))
    cells |= graded("a", 10, "noise", (2, 4, 3)) | graded("a", 20, "noise", (2, 3, 4))
    cells |= graded("b", 10, "noise", (2, 3, 4)) | graded("b", 20, "noise", (0, 3, 4))  # by chance at 10
    lines = tables(cells)
    assert lines.count("| blur | 10 |") == 2
    assert "| noise | 20 |" in lines
    assert "| noise | - |" in lines
    assert "| noise | FD | - |" in lines  # a finds the order, b does not
    assert "| noise | 3 (2) | 3 (2) |" in lines


def test_grades_that_are_not_measured_yet_count_for_nothing():
    cells = {Cell(net, 10, PLAIN, 0): {"FD": 1.0} for net in "ab"} | graded("a", 10, "blur", (2, 3))
    assert "| blur |" in tables(cells)
    assert "a, samples: none whole" in tables(cells)
    cells |= graded("a", 10, "blur", (2, 3, 4)) | graded("b", 10, "blur", (2, 3, 4))
    cells |= {Cell("a", 20, PLAIN, 0): {"FD": 1.0}} | graded("a", 20, "blur", (4, 3, 2))  # of one network alone
    lines = tables(cells)
    assert "a, samples: 10, 20" in lines
    assert "| blur | - |" in lines
    assert "b, samples: 10" in lines
    assert "| blur | 10 |" in lines
    assert "a and b, samples: 10" in lines
    assert "| corruption, grade 2 | FD-a of 10 (place) | FD-b of 10 (place) |" in lines


def test_of_three_networks_each_two_are_compared():
    cells = {Cell(net, 10, PLAIN, 0): {"FD": 1.0} for net in "abc"} | graded("a", 10, "blur", (2, 3, 4))
    cells |= graded("b", 10, "blur", (2, 3, 4)) | graded("c", 10, "blur", (4, 3, 2))
    lines = tables(cells)
    compared = [lines.index(f"{one} and {other}, samples: 10") for one, other in ("ab", "ac", "bc")]
    nothing, of_a, of_b = (lines[place + 2 : place + 5] for place in compared)
    assert nothing[:2] == ["| corruption | right only with a | only with b |", "| --- | --- | --- |"]
    assert nothing[2:] == [""]
    assert of_a == ["| corruption | right only with a | only with c |", "| --- | --- | --- |", "| blur | FD | - |"]
    assert of_b[2] == "| blur | FD | - |"
    assert "| corruption, grade 2 | FD-a of 10 (place) | FD-b of 10 (place) | FD-c of 10 (place) |" in lines
    assert lines[-1] == "| blur | 3 (1) | 3 (1) | 3 (1) |"


def test_too_few_images_for_any_number_of_samples_end_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(judge, "load_images", lambda *_, **options: range(100))
    with pytest.raises(SystemExit) as end:
        judge.main(["--data", "mnist5k", "--real", "30", "--sizes", "71", "80", "--folder", str(tmp_path / "judge")])
    assert end.value.code == 2
    rule = "--sizes must have a number of at most 70: the images of mnist5k beside 30 real."
    assert rule in capsys.readouterr().err
    assert not (tmp_path / "judge").exists()


def test_tables_are_printed_without_the_images(tmp_path, monkeypatch, capsys):
    def unwanted(*_, **options):
        raise AssertionError

    monkeypatch.setattr(judge, "load_images", unwanted)
    about = {"data": "mnist5k", "seed": 0, "real": 10_000}  # as many as are asked for, not as there are
    cells = {Cell("a", 10, PLAIN, 0): {"FD": 1.0}} | graded("a", 10, "blur", (2, 3, 4))
    lines = [json.dumps({"about": about, "cell": cell, "values": values}) for cell, values in cells.items()]
    (tmp_path / "cells.jsonl").write_text("\n".join(lines))
    judge.main(["--data", "mnist5k", "--folder", str(tmp_path), "--tables"])
    assert "| blur | 10 |" in capsys.readouterr().out


def test_a_study_goes_on_where_it_was_stopped(tmp_path):
    path = tmp_path / "cells.jsonl"
    about = {"data": "digits", "seed": 0, "real": 100}
    cell = next(iter(planned(["a"], [10], ["blur"])))
    lines = [
        json.dumps({"about": about, "cell": cell, "values": {"FD": 1.0}}),
        json.dumps({"about": about | {"seed": 1}, "cell": Cell("a", 10, "blur", 1), "values": {"FD": 2.0}}),
        '{"about": {"data": "dig',  # the machine went down
    ]
    assert kept_cells(path, about) == {}
    path.write_text("\n".join(lines))
    assert kept_cells(path, about) == {cell: {"FD": 1.0}}


@pytest.mark.parametrize("size", [40, 100])
def test_every_corruption_keeps_the_number_and_range_and_gets_worse(size):
    real = load_images("mnist5k", resolution=32, channels=1, num_classes=None)
    images, labels = real.batch(torch.arange(0, 5000, 5000 // size))
    for name, corrupt in corruptions(real).items():
        changed = []
        for grade in range(1, GRADES + 1):
            found, classes = corrupt(images, labels, grade, torch.Generator().manual_seed(0))
            assert found.shape == images.shape, name
            assert classes.shape == labels.shape, name
            assert found.abs().max() <= 1, name
            changed.append((found - images).abs().mean().item() + (classes != labels).double().mean().item())
        assert changed[0] > 0, name
        assert name in RANDOM or changed == sorted(changed), name
    few = corruptions(real)["duplicates"](images, labels, 3, torch.Generator().manual_seed(0))[0]
    assert len(few.unique(dim=0)) == size // 20


def test_what_a_corruption_leaves_as_it_was_is_not_measured_again(tmp_path, monkeypatch):
    images = load_images("mnist5k", resolution=32, channels=1, num_classes=None)
    real, others = (selected_images(images, torch.arange(start, 5000, 50)) for start in (0, 1))
    cache, cpu = Cache(tmp_path), torch.device("cpu")
    side = RealSide.of(real, None, num_classes=10, seed=0, cache=cache, features="classifier", device=cpu)
    ask = Judge(side, others, 0)
    looked_at = []

    def counted(network, some):
        looked_at.append(len(some))
        return computed_rows(network, some)

    monkeypatch.setattr(judge, "computed_rows", counted)
    plain = ask(Cell("classifier", 60, PLAIN, 0))
    assert set(plain) == set(WORSE)
    assert looked_at == []
    labels = ask(Cell("classifier", 60, "swapped labels", 3), plain)
    assert {name for name in plain if labels[name] != plain[name]} == {"intra-class FD", "agreement"}
    whole = ask(Cell("classifier", 60, "swapped labels", 3))
    assert labels == pytest.approx(whole, rel=1e-9)
    twice = ask(Cell("classifier", 60, "duplicates", 1), plain)
    assert looked_at == []
    assert twice["FD"] > plain["FD"]
    ask(Cell("classifier", 60, "training copies", 3), plain)
    assert looked_at == [30]
    ask(Cell("classifier", 60, "blur", 3), plain)
    assert looked_at == [30, 60]
