import argparse
import json
import multiprocessing
import re
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.results import (
    BEGIN,
    END,
    Ratio,
    add_out_option,
    command_of,
    main,
    page_asked,
    render,
    render_table,
    table,
    write_page,
)
from benchmarks.timing import Case, in_one_line, machine, machine_facts, spread_of, timed_apart, timed_in_turn

MACHINE = {"torch": "2.13"}
PAGES = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("*.md"))


def test_ratios_are_medians_of_the_ratios_of_rounds():
    found = table("Step", {"slow": [4.0, 9.0, 8.0], "fast": [2.0, 3.0, 2.0]}, [Ratio("slow", "fast")])
    assert found["ratios"]["slow / fast"]["median"] == 3.0  # of the medians it would be 4
    assert "| slow / fast | 3.00 (2.50, 3.50) |" in render_table(found)


def test_what_was_not_measured_is_in_no_ratio():
    assert table("Step", {"slow": [1.0]}, [Ratio("slow", "fast")])["ratios"] == {}


def test_rounds_are_counted_and_spoken_of_where_there_are_some():
    one, two = table("One", {"a": [1.0]}), table("Two", {"a": [1.0, 2.0]})
    assert render_table(one) == "## One\n\n| 1 round | s |\n| --- | --- |\n| a | 1.00 |"
    assert "| 2 rounds | s |" in render_table(two)
    page = {"command": "python", "machine": MACHINE}
    sentence = "Medians over rounds in which the cases take turns; quartiles in parentheses."
    assert render({**page, "tables": [one]}).startswith("`python`: torch 2.13.\n\n## One\n")
    assert render({**page, "tables": [one, two]}).startswith(f"`python`: torch 2.13.\n\n{sentence}\n\n## One\n")


def test_without_cases_there_is_no_table():
    assert render_table(table("Checks", {}, notes=["All passed."])) == "## Checks\n\nAll passed."


def test_a_page_has_the_command_that_was_typed(monkeypatch):
    assert command_of("benchmarks.run", ["demo", "--out", "a b"]) == "python -m benchmarks.run demo --out 'a b'"
    monkeypatch.setattr("sys.argv", ["run.py", "--cpu-time"])
    assert command_of("benchmarks.run", None) == "python -m benchmarks.run --cpu-time"


@pytest.mark.parametrize(
    ("words", "written"),
    [([], "kept"), (["--free", "2"], "kept"), (["--rounds", "1"], None), (["--rounds", "1", "--out", "own"], "own")],
)
def test_other_options_do_not_take_the_page_of_the_defaults(words, written, tmp_path):
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--free")
    add_out_option(parser, tmp_path / "kept")
    page = page_asked(parser, parser.parse_args(words), tmp_path / "kept", but=["free"])
    assert (None if page is None else page.name) == written


def test_what_a_benchmark_prints_of_the_machine_is_all_that_a_page_has(monkeypatch):
    monkeypatch.setattr("benchmarks.timing.os.getloadavg", lambda: (0.5, 0.5, 0.5))
    assert machine() == in_one_line(machine_facts())
    for name in ("CPU", "torch", "threads", "load 0.5", "commit"):
        assert name in machine()


def test_one_value_is_its_own_quartiles():
    assert spread_of([2.0]) == (2.0, 2.0, 2.0)


def test_turns_end_with_the_time_but_not_before_three_rounds():
    order = []
    cases = {"a": lambda number: order.append(("a", number)), "b": lambda number: order.append(("b", number))}
    times = timed_in_turn(cases, 100, lambda: 0.0, seconds=0.0)
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}
    assert order[:4] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def seconds_of(taken: float) -> Case:
    """Waits, and fails if it is not alone in its process."""
    assert not hasattr(multiprocessing, "seen")
    multiprocessing.seen = True  # type: ignore[attr-defined]
    return lambda _number: time.sleep(taken)


def of_zero() -> Case:
    return lambda number: 1 / (number - 1)


def test_apart_each_case_has_a_process_of_its_own():
    cases = {"slow": partial(seconds_of, 0.01), "fast": partial(seconds_of, 0.0)}
    times = timed_apart(cases, 4, time.perf_counter)
    assert [len(values) for values in times.values()] == [4, 4]
    assert min(times["slow"]) >= 0.01
    with pytest.raises(RuntimeError, match="the process of broken has failed"):
        timed_apart({"broken": of_zero}, 3, time.perf_counter)


def test_tables_go_into_the_place_of_a_page(tmp_path, monkeypatch):
    write_page(tmp_path / "one", "One", "make bench", MACHINE, [table("Step", {"ours": [1.0]})])
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    monkeypatch.setattr("sys.argv", ["results", str(tmp_path / "one.json"), "--into", str(page)])
    main()
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "#### Step" in text
    assert json.loads((tmp_path / "one.json").read_text())["command"] == "make bench"


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_command_of_a_page_runs_today_or_has_its_name_of_today_beside_it(page):
    text = " ".join(page.read_text().split())
    for name in set(re.findall(r"python -m ((?:recipes|benchmarks)\.[\w.]*\w)", text)):
        assert find_spec(name) or re.search(rf"python -m {name}[^`]*` \(today `", text), name


def test_a_page_without_a_place_is_refused(tmp_path, monkeypatch, capsys):
    write_page(tmp_path / "one", "One", "make bench", MACHINE, [])
    (tmp_path / "page.md").write_text("nothing\n")
    monkeypatch.setattr("sys.argv", ["results", str(tmp_path / "one.json"), "--into", str(tmp_path / "page.md")])
    with pytest.raises(SystemExit):
        main()
    assert "must have a line" in capsys.readouterr().err


@pytest.mark.parametrize("text", [None, "# a page", "[]", "3", '{"title": "half"}', '{"machine": 3, "title": ""}'])
def test_a_file_of_another_kind_ends_in_one_line(text, tmp_path, monkeypatch, capsys):
    file = tmp_path / "one.json"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr("sys.argv", ["results", str(file)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert f"python -m benchmarks.results: error: {file} " in capsys.readouterr().err


def test_a_page_that_is_not_there_ends_in_one_line(tmp_path, monkeypatch, capsys):
    write_page(tmp_path / "one", "One", "make bench", MACHINE, [])
    monkeypatch.setattr("sys.argv", ["results", str(tmp_path / "one.json"), "--into", str(tmp_path / "page.md")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert f"{tmp_path / 'page.md'} cannot be read: No such file or directory." in capsys.readouterr().err
