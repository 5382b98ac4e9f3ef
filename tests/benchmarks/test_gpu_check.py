import json

import pytest
import torch

from benchmarks.gpu_check import blocks
from benchmarks.gpu_check.__main__ import PARTS, default_page, main
from benchmarks.gpu_check.findings import Findings


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(capsys):
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith("there is no GPU here; --device cpu --tiny tries the check itself.")
    )


def test_a_failure_is_listed_and_the_next_check_is_made(capsys):
    findings = Findings()
    assert findings.check("sum", lambda: 1 + 1) == 2
    assert findings.check("quotient", lambda: 1 / 0) is None
    assert findings.check("figure", lambda: "error 3") == "error 3"
    assert [finding.what for finding in findings.failures] == ["quotient"]
    first, *rest = findings.notes()
    assert first == "2 of 3 checks have passed."
    assert "* quotient: ZeroDivisionError: division by zero" in rest
    assert "* figure: error 3" in rest


def test_blocks_are_compared_in_every_precision_and_a_wrong_one_is_found(monkeypatch, capsys):
    calls = []

    class Drifting(torch.nn.Linear):
        def forward(self, x):
            calls.append(x)
            return super().forward(x) * len(calls)

    cases = {
        "Drifting": blocks.Case(lambda: Drifting(3, 2), shape=(4, 3)),
        "ToRGB": blocks.CASES["ToRGB"],
        "SelfAttention2d, fastest kernel": blocks.CASES["SelfAttention2d, fastest kernel"],
    }
    monkeypatch.setattr(blocks, "CASES", cases)
    findings = Findings()
    blocks.check_blocks(findings, torch.device("cpu"))
    assert len(findings.all) == 3 * (1 + 3)
    assert [finding.what for finding in findings.failures] == [f"Drifting, {precision}" for precision in blocks.BOUNDS]


def test_every_public_block_and_norm_is_checked():
    import gan_blocks

    named = [name for name in gan_blocks.__all__ if name.endswith("Block") or name in ("ToRGB", "FromRGB")]
    named += [name for name in gan_blocks.__all__ if name.endswith(("Head", "Stem"))]
    assert [name for name in named if not any(case.startswith(name) for case in blocks.CASES)] == []


def test_the_check_of_the_blocks_ends_in_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(blocks, "CASES", {"ToRGB": blocks.CASES["ToRGB"]})
    words = ["blocks", "--device", "cpu", "--tiny", "--out", str(tmp_path / "page")]
    assert main(words) == 0
    page = json.loads((tmp_path / "page.json").read_text())
    assert page["tables"][0]["notes"][0] == "4 of 4 checks have passed."
    assert page["command"] == f"python -m benchmarks.gpu_check {' '.join(words)}"


@pytest.mark.parametrize("words", [["blocks"], ["--tiny"], ["--batch", "8"]])
def test_a_part_of_the_check_does_not_take_the_page_of_the_whole(words, monkeypatch, capsys):
    pages = []
    monkeypatch.setattr("benchmarks.gpu_check.__main__._parts", lambda *_: dict.fromkeys(PARTS, lambda: None))
    monkeypatch.setattr("benchmarks.gpu_check.__main__.write_page", lambda page, *_: pages.append(page))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert main(words) == 0
    assert pages == []
    assert main([]) == 0
    assert pages == [default_page()] * len(PARTS)
    assert default_page().name.startswith("gpu_check_h200_")


@pytest.mark.slow
def test_the_whole_check_runs_on_a_cpu(tmp_path, capsys):
    assert main(["--device", "cpu", "--tiny", "--out", str(tmp_path / "page")]) == 0
    titles = [each["title"] for each in json.loads((tmp_path / "page.json").read_text())["tables"]]
    assert len(titles) == 1 + 3  # no memory: that is a figure of a GPU
