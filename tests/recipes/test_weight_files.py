"""Files that ``recipes.convert`` is given as weights: read under any name, never run, and named where they are none."""

import gzip
import io
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from gan_blocks.engine import UserError
from recipes import convert
from recipes.layouts.state_dict_file import read_state_dict
from tests.conftest import zip_of
from tests.recipes.weight_files import BIGGAN_PYTORCH, PLAIN, Canary


def test_code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bomb = {"weight": Canary(tmp_path / "canary")}
    torch.save(bomb, tmp_path / "torch.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(bomb, protocol=2))
    for name in ("torch.pth", "plain.pth"):
        assert convert.main([*BIGGAN_PYTORCH, "--generator", str(tmp_path / name)]) == 2
        assert "it could run code, and is not read." in capsys.readouterr().err
    assert not (tmp_path / "canary").exists()


def test_files_that_are_no_state_dict_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    torch.save({"epoch": 3}, tmp_path / "b.pth")
    save_file({"x": torch.zeros(1)}, tmp_path / "c.safetensors")
    for name, what in (
        ("none.pth", "there is no file"),
        ("a.safetensors", "is not a whole file of tensors"),
        ("b.pth", "does not hold a state dict, which is tensors by name."),
        ("c.safetensors", "missing keys: "),
    ):
        assert convert.main([*BIGGAN_PYTORCH, "--generator", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert what in error
        assert error.count("\n") == 1


def saved(state: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def torch_script() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.save(torch.jit.script(torch.nn.Identity()), buffer)
    return buffer.getvalue()


NOT_WHOLE = "is not a whole file of tensors: "


NO_STATE_DICT = "does not hold a state dict, which is tensors by name. It holds "


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NOT_WHOLE + "it is empty."),
        (b"\x80\x02", NOT_WHOLE + "it is cut off."),
        (zip_of("archive/data.pkl"), NOT_WHOLE + 'Expected hasRecord("version") to be true, but got false.'),
        (b"hello", NOT_WHOLE + "it is a text file."),
        (b"ustar\0" + bytes(100), NOT_WHOLE + "its bytes make no sense (IndexError)."),
        (bytes(257) + b"ustar\x0000" + bytes(800), NOT_WHOLE + "it is a tar archive: unpack it."),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            NOT_WHOLE + "it is a Git LFS pointer, not the file itself: git lfs pull fetches it.",
        ),
        (b"<!DOCTYPE html><html></html>", NOT_WHOLE + "it is a web page: the download failed."),
        (b'{"error": "no such model"}', NOT_WHOLE + "it is JSON text."),
        (zip_of("model.pth"), NOT_WHOLE + "it is a zip archive."),
        (gzip.compress(saved(PLAIN)), NOT_WHOLE + "it is compressed by gzip: unpack it."),
        (saved(PLAIN)[:400], NOT_WHOLE + "PytorchStreamReader failed reading zip archive"),
        (saved(PLAIN, _use_new_zipfile_serialization=False)[:-5], NOT_WHOLE + "unexpected EOF, expected 5 more bytes."),
        (save(PLAIN)[:-3], NOT_WHOLE + "Error while deserializing header: "),
        (save(PLAIN)[:20], NOT_WHOLE + "Error while deserializing header: "),
        (torch_script(), "is damaged or holds more than tensors: it could run code, and is not read."),
        (saved({1: torch.zeros(2)}), NO_STATE_DICT + "1."),
        (saved([torch.zeros(2)]), NO_STATE_DICT + "a list."),
        (saved({}), NO_STATE_DICT + "nothing."),
        (
            saved({f"{n:02}": n for n in range(12)}),
            NO_STATE_DICT + "00, 01, 02, 03, 04, 05, 06, 07, 08, 09 and 2 more.",
        ),
        (
            saved({"epoch": 3, "state_dict": PLAIN, "optimizer": {}}),
            NO_STATE_DICT + "epoch, state_dict, optimizer. Save its state_dict in a file alone.",
        ),
        (
            saved({"x": torch.zeros(2, 2).to_sparse()}),
            "must hold plain tensors, but x is sparse, quantized or without values.",
        ),
        (saved({"x": torch.zeros(2, device="meta")}), "must hold plain tensors, but x is sparse, quantized or without"),
    ],
)
def test_what_a_file_is_that_holds_no_weights_is_said(
    data: bytes, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(data)
    for options in ((*BIGGAN_PYTORCH, "--generator"), (*BIGGAN_PYTORCH, "--generator", str(path), "--discriminator")):
        assert convert.main([*options, str(path)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"convert: error: {path} {error}")
        assert said.count("\n") == 1
        assert len(said) < 400


def test_no_path_of_weights_is_a_traceback_or_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    os.mkfifo(tmp_path / "pipe")
    for path, what in (
        (tmp_path / "pipe", f"{tmp_path}/pipe is no regular file."),
        (tmp_path, f"there is no file {tmp_path}."),
    ):
        assert convert.main([*BIGGAN_PYTORCH, "--generator", str(path)]) == 2
        assert capsys.readouterr().err == f"convert: error: {what}\n"
    with pytest.raises(UserError, match=r"^there is no file n+\.$"):
        read_state_dict(Path("n" * 300))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("kind", ["torch", "safetensors"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "G.pth", "G.safetensors"])
def test_weights_are_read_whatever_their_suffix_without_what_wrappers_put_in_front(
    prefix: str, kind: str, name: str, tmp_path: Path
):
    state = {"linear.weight": torch.randn(2, 3), "module.bias": torch.randn(2)}
    wrapped = {prefix + key: value for key, value in state.items()}
    (tmp_path / name).write_bytes(saved(wrapped) if kind == "torch" else save(wrapped))
    found = read_state_dict(tmp_path / name)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], value) for key, value in state.items())
