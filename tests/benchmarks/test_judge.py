import json

import pytest
import torch

from benchmarks.corruptions import GRADES, corruptions
from benchmarks.judge import PLAIN, Cell, kept_cells, planned, tables
from gan_blocks.engine import load_images

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
    cells = {Cell("a", 10, PLAIN, 0): {"FD": 1.0}} | graded("a", 10, "blur", (2, 3))
    assert "| blur |" in tables(cells)


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
