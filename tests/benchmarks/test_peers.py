import sys

import pytest

from benchmarks.peers.__main__ import COMPARISONS, main
from benchmarks.peers.folders import NAMES, folder_of, imported
from benchmarks.results import page_of


def test_a_folder_that_is_missing_is_named_with_what_it_must_be(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path), "progan-64"])
    assert end.value.code == 2
    rule = "pytorch_GAN_zoo must be a checkout of facebookresearch/pytorch_GAN_zoo on GitHub, but has no"
    assert rule in capsys.readouterr().err


def test_without_any_peer_there_is_nothing_to_measure(tmp_path):
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path)])
    assert end.value.code == 2


def test_where_peers_are_missing_the_page_of_all_is_kept(tmp_path, monkeypatch):
    measured, commands = [], []

    def measure_all(asked, _options, *, page, title, command):
        measured.append((page, *asked))
        commands.append(command)
        return 0

    monkeypatch.setattr("benchmarks.peers.__main__.measure_all", measure_all)
    for name in ("mimicry", *NAMES):
        file = tmp_path / name / NAMES[name][1]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        assert main([str(tmp_path)]) == 0
    assert measured[0] == (None, "sngan-32")
    assert measured[-1] == (page_of("peers"), *COMPARISONS)
    assert main([str(tmp_path), "memory"]) == main([str(tmp_path), "--cpu-time"]) == 0
    assert measured[-2:] == [(None, "memory"), (None, *COMPARISONS)]
    assert commands[-3:] == [f"python -m benchmarks.peers {tmp_path}{end}" for end in ("", " memory", " --cpu-time")]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkout_is_known_by_a_file(tmp_path, name):
    file = tmp_path / name / NAMES[name][1]
    file.parent.mkdir(parents=True)
    file.touch()
    assert folder_of(tmp_path, name) == tmp_path / name


def test_modules_with_common_names_are_imported_and_forgotten(tmp_path):
    (tmp_path / "layers.py").write_text("import notinstalled.inside\nfrom notinstalled import Thing\nVALUE = 3\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("raise ImportError\n")
    (tmp_path / "package" / "model.py").write_text("import layers\nVALUE = layers.VALUE\n")
    unneeded = ["notinstalled", "notinstalled.inside"]
    (model,) = imported(tmp_path, ["package.model"], unneeded=unneeded, bare=["package"])
    assert model.VALUE == 3
    assert not {"layers", "package", "package.model", *unneeded} & set(sys.modules)
    assert str(tmp_path) not in sys.path
