import base64
import io
import json
import re
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.runs.identity import RecipeIdentity
from gan_blocks.engine.runs.report import write_report

CONFIG = {"widths": [16, 8], "batch_size": 32, "seed": 0, "data": "folder:<mine>"}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return RunFolder.create(tmp_path, RecipeIdentity("recipes.some:RECIPE"), "small", CONFIG, now)


def page(run: RunFolder, preset: dict[str, Any] | None = None) -> str:
    write_report(run, preset)
    return run.report_path.read_text()


def headings(text: str) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", text)


def rows(text: str, heading: str) -> list[list[str]]:
    table = text.partition(f"<h2>{heading}</h2>")[2].partition("</table>")[0]
    return [re.findall("<t[dh]>(.*?)</t[dh]>", row) for row in re.findall("<tr>(.*?)</tr>", table)]


def legends(text: str) -> list[list[str]]:
    return [re.findall(r"</i>(\S+) ", caption) for caption in re.findall("<figcaption>(<span>.*?)</figcaption>", text)]


def draw_sheet(run: RunFolder, step: int, mode: str = "L", size: tuple[int, int] = (40, 20)) -> None:
    Image.new(mode, size, step % 256).save(run.samples_path(step))


def embedded(text: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/\w+;base64,([^"]*)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_names_that_are_not_utf_8_are_escaped(tmp_path: Path):
    config = {"data": "folder:caf\udce9"}  # as Python has the byte E9 of a file's name
    now = datetime(2026, 1, 1, tzinfo=UTC)
    run = RunFolder.create(tmp_path, RecipeIdentity("recipes.some:RECIPE"), "small", config, now)
    assert rows(page(run), "Config") == [["data", r"folder:caf\udce9"]]


class TestDifferences:
    def test_they_come_first_with_both_values_a_row_an_option(self, run: RunFolder):
        text = page(run, {"widths": (16, 8), "batch_size": 64, "seed": 0})
        assert headings(text) == ["What differs from the preset", "Config"]
        assert rows(text, "What differs from the preset") == [
            ["Option", "Preset", "This run"],
            ["--batch-size", "64", "32"],
            ["--data", "None", "folder:&lt;mine&gt;"],
        ]

    def test_a_run_of_the_preset_says_so(self, run: RunFolder):
        assert "Every option is as the preset has it." in page(run, CONFIG)

    def test_without_a_preset_nothing_is_compared(self, run: RunFolder):
        text = page(run)
        assert "preset has it" not in text
        assert headings(text) == ["Config"]


class TestCurves:
    def test_each_kind_has_its_charts_and_what_is_in_no_group_has_one_of_its_own(self, run: RunFolder):
        for step in (1, 2):
            terms = {"loss_d": 1.0, "loss_g": 2.0, "r1_penalty": 0.5 / step, "orthogonal_penalty": 1e-4 * step}
            scores = {"real_score": 1.0, "fake_score": -1.0}
            run.append_log({"step": step, **terms, **scores, "alpha": 1.0, "nan_scores": 0})
        text = page(run)
        wanted = ["Losses", "What D says of real and of generated images", "Penalties", "Also logged", "Config"]
        assert headings(text) == wanted
        assert legends(text) == [
            ["loss_d", "loss_g"],
            ["real_score", "fake_score"],
            ["r1_penalty"],
            ["orthogonal_penalty"],
            ["alpha"],
        ]
        assert text.count('class="raw"') == 7

    def test_figures_of_classes_have_their_names(self, run: RunFolder):
        found = {"truncation": None, "agreement_by_class": {"0": 0.5, "1": 0.75}, "class_names": ["cat", "dog"]}
        run.evaluation_path.write_text(json.dumps(found))
        assert rows(page(run), "Evaluation") == [["truncation", "none"], ["agreement_by_class", "cat: 0.5, dog: 0.75"]]

    @pytest.mark.parametrize(
        ("by_class", "names", "shown"),
        [
            ({"1": 0.75}, ["cat", "dog"], ["1: 0.75", "cat, dog"]),
            ({"1": 0.1, "0": 0.9}, ["cat", "dog"], ["1: 0.1, 0: 0.9", "cat, dog"]),
            ({"0": 0.1, "1": 0.9}, ["cat", "cat"], ["0: 0.1, 1: 0.9", "cat, cat"]),
            ({"0": 0.1, "1": 0.9}, [["a"], {"b": 1}], ["0: 0.1, 1: 0.9", "a, b: 1"]),
        ],
    )
    def test_figures_whose_names_do_not_fit_are_shown_as_they_are(self, run: RunFolder, by_class, names, shown):
        run.evaluation_path.write_text(json.dumps({"agreement_by_class": by_class, "class_names": names}))
        expected = [[name, value] for name, value in zip(["agreement_by_class", "class_names"], shown, strict=True)]
        assert rows(page(run), "Evaluation") == expected

    def test_scores_are_shown_with_their_interval_and_that_of_other_real_images(self, run: RunFolder):
        score = {"name": "FD-efflite0-64", "value": 12.3456, "interval": [11, 13.5], "floor": 4.0, "samples": 100}
        found = {"frechet_distance": score, "recall": {**score, "name": "recall", "interval": None, "floor": None}}
        run.evaluation_path.write_text(json.dumps(found))
        shown = [["FD-efflite0-64", "12.35 (11 to 13.5), other real images 4"], ["recall", "12.35"]]
        assert rows(page(run), "Evaluation") == shown
        score["interval"] = 3
        run.evaluation_path.write_text(json.dumps({"frechet_distance": score}))
        assert rows(page(run), "Evaluation")[0][0] == "frechet_distance"

    def test_figures_of_any_depth_do_not_stop_a_report(self, run: RunFolder):
        run.evaluation_path.write_text('{"x": ' + 600 * "[" + 600 * "]" + "}")
        assert "nested too deeply" in page(run)

    def test_evaluations_while_training_have_charts_and_a_table_of_the_newest(self, run: RunFolder):
        for step, distance in ((10, 5.0), (20, 3.25)):
            found = {"frechet_distance": distance, "called_real_training": 0.5}
            run.append_log({"event": "evaluation", "step": step, **found})
        text = page(run)
        assert headings(text)[:2] == ["Share of images that D calls real", "Fréchet distance"]
        assert rows(text, "Newest evaluation while training") == [
            ["step", "20"],
            ["frechet_distance", "3.25"],
            ["called_real_training", "0.5"],
        ]

    def test_spectra_have_a_line_a_layer_and_name_the_three_that_end_highest(self, run: RunFolder):
        for step in (0, 5):
            layers = {f"layer{n}": {"sigmas": [1.0 + step * n, 1.0], "frobenius": 2.0} for n in (3, 0, 2, 1)}
            run.append_log({"event": "spectra", "step": step, "generator": layers, "discriminator": {}})
        text = page(run)
        assert headings(text) == ["Largest singular value of each layer of the generator", "Config"]
        assert text.count('class="thin"') == 4
        assert legends(text) == [["layer3", "layer2", "layer1"]]
        assert "layer3 16</span>" in text

    def test_strange_spectra_are_left_out(self, run: RunFolder):
        for found in (None, 3, {"layer": None}, {"layer": {"sigmas": []}}, {"layer": {"sigmas": ["x"]}}):
            run.append_log({"event": "spectra", "step": 1, "generator": found})
        assert headings(page(run)) == ["Config"]


class TestSheets:
    def test_they_stand_in_order_small_and_the_newest_large(self, run: RunFolder):
        for step in (1000, 20, 300):
            draw_sheet(run, step)
        text = page(run)
        assert headings(text)[:2] == ["Samples through time", "Samples at step 1,000"]
        steps = re.findall(r"<figcaption>step ([\d,]+)</figcaption>", text)
        assert steps == ["20", "300", "1,000"]
        assert [picture.getpixel((0, 0)) for picture in embedded(text)] == [20, 44, 232, 232]

    def test_of_many_the_first_the_last_and_some_between_are_shown(self, run: RunFolder):
        for step in range(1, 101):
            draw_sheet(run, step)
        steps = [int(step) for step in re.findall(r"<figcaption>step (\d+)</figcaption>", page(run))]
        assert (len(steps), steps[0], steps[-1]) == (12, 1, 100)
        assert {later - step for step, later in pairwise(steps)} == {9}

    def test_a_wide_one_is_shrunk(self, run: RunFolder):
        draw_sheet(run, 1, "RGB", (2560, 1280))
        draw_sheet(run, 2, "RGB", (2560, 1280))
        assert [picture.size for picture in embedded(page(run))] == [(360, 180), (360, 180), (1280, 640)]

    def test_one_that_cannot_be_read_is_left_out(self, run: RunFolder):
        draw_sheet(run, 1)
        run.samples_path(2).write_bytes(b"no picture")
        text = page(run)
        assert len(embedded(text)) == 1
        assert "Samples at step 2" not in text


def test_the_time_is_that_of_the_last_checkpoint(run: RunFolder):
    assert "Time" not in headings(page(run))
    run.append_log({"event": "checkpoint", "step": 3, "seconds": 1234.5, "waiting_for_data": 0.0123})
    assert rows(page(run), "Time") == [
        ["Seconds of training", "1,234"],
        ["Share of them spent waiting for images", "1.2%"],
    ]


def test_the_page_holds_all_that_it_shows_and_leads_to_files_of_the_folder_alone(run: RunFolder):
    for step in (1, 2):
        draw_sheet(run, step)
        run.append_log({"step": step, "loss_d": 1.0})
        run.append_log({"event": "spectra", "step": step, "generator": {"layer": {"sigmas": [1.0]}}})
    run.spectra_path.write_bytes(b"")
    text = page(run, {"batch_size": 64})
    assert set(re.findall(r'src="(.{5})', text)) == {"data:"}
    links = ["spectra.png", "samples/step_000001.png", "samples/step_000002.png"]
    assert re.findall(r'href="([^"]*)"', text) == links
    assert not re.search(r"https?:|url\(|@import|<script|<link", text)
