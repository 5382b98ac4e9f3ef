import contextlib
import errno
import io
import os
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from tqdm import tqdm

from gan_blocks.engine.base.terminal import console
from gan_blocks.engine.base.terminal.command_line import run_command
from gan_blocks.engine.base.terminal.console import Progress, lasting_streams


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_a_line_at_a_time_and_a_terminal_a_bar(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    file, terminal = io.StringIO(), Terminal()
    for stream in (file, terminal):
        now[0] = 0.0
        with Progress(total=300, desc="training", unit="step", file=stream) as bar:
            for _ in range(300):
                now[0] += 1.0
                bar.update()
                bar.set_postfix(loss=1.0)
    lines = file.getvalue().splitlines()
    assert 8 <= len(lines) <= 12
    assert "\r" not in file.getvalue()
    assert all(line.startswith("training: ") for line in lines)
    assert "100%" in lines[-1]
    assert "\r" in terminal.getvalue()


def test_a_short_bar_that_would_go_leaves_no_line():
    file = io.StringIO()
    for _ in Progress(range(50), delay=2, leave=False, file=file):
        pass
    assert file.getvalue() == ""


class Full(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [closed(), Full(), None], ids=["closed", "full", "none"])
def test_what_cannot_be_said_is_no_reason_to_stop(stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", stream)
    with lasting_streams():
        tqdm.write("something", file=sys.stderr)
        sys.stderr.flush()
        with Progress(total=2) as bar:
            bar.update(2)
        assert not sys.stderr.isatty()
    assert sys.stderr is stream


def test_standard_output_that_is_full_is_one_line(tmp_path: Path):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    program = tmp_path / "program.py"
    program.write_text(
        "from gan_blocks.engine.base.terminal.command_line import run_command\n"
        "def command():\n    print('x' * 100_000)\n    return 0\n"
        "raise SystemExit(run_command('describe', command))\n"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, program], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "describe: error: standard output was not written: No space left on device.\n"


def test_a_command_runs_to_its_end_when_nobody_listens_any_more(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, pathlib, time\n"
        "from gan_blocks.engine.base.terminal.command_line import run_command\n"
        "from gan_blocks.engine.base.terminal.console import Progress\n"
        "def command():\n"
        "    with Progress(total=50) as bar:\n"
        "        for _ in range(50):\n"
        "            print('a line', file=sys.stderr, flush=True)\n"
        "            bar.update(); time.sleep(0.002)\n"
        f"    pathlib.Path({str(tmp_path / 'saved')!r}).touch()\n"
        "    return 0\n"
        "raise SystemExit(run_command('train', command))\n"
    )
    read, write = os.pipe()
    process = subprocess.Popen([sys.executable, program], stdout=write, stderr=write)
    os.close(write)
    os.read(read, 10)
    os.close(read)
    assert process.wait(timeout=120) == 0
    assert (tmp_path / "saved").exists()


STALLED = """
import sys
from gan_blocks.engine.base.terminal.command_line import run_command
from gan_blocks.engine.base.terminal.console import Progress
from gan_blocks.engine.base.errors import UserError
def command():
    with Progress(total=3000, mininterval=0, miniters=1) as bar:
        for step in range(3000):
            bar.update()
            bar.write(f"{step:*>60}", file=sys.stderr)
    print("trained", flush=True)
    raise UserError("the end")
raise SystemExit(run_command("train", command))
"""


@pytest.mark.parametrize("terminal", [False, True], ids=["less", "Ctrl-S"])
def test_a_reader_who_stops_reading_holds_nothing_up_but_the_last_word(*, terminal: bool):
    ours, theirs = os.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcflow(theirs, termios.TCOOFF)
    with subprocess.Popen([sys.executable, "-c", STALLED], stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "trained\n"
        assert process.poll() is None
        if terminal:
            termios.tcflow(theirs, termios.TCOON)
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # so a terminal ends
            while part := os.read(ours, 65536):
                said += part
    os.close(ours)
    assert process.returncode == 2
    lines = said.decode().splitlines()
    assert lines[-1] == "train: error: the end"
    assert any(line.endswith("*0") for line in lines) != terminal
    assert not any(line.endswith("2999") for line in lines)


def test_streams_are_given_back_after_an_error(capsys: pytest.CaptureFixture[str]):
    before = sys.stdout, sys.stderr

    def fail() -> int:
        raise KeyError

    with pytest.raises(KeyError):
        run_command("it", fail)
    assert (sys.stdout, sys.stderr) == before


def test_a_working_directory_that_is_gone_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run_command("train", lambda: len(Path("data").absolute().parts)) == 2
    assert capsys.readouterr().err == "train: error: the working directory is gone: change to another.\n"


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", b"\\xe4\\u03c3\\udcff"), ("utf-8", "äσ\\udcff".encode())])
def test_names_that_the_console_has_no_letters_for_are_written_out(
    encoding: str, shown: bytes, monkeypatch: pytest.MonkeyPatch
):
    for stream in ("stdout", "stderr"):
        written = io.BytesIO()
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(written, encoding=encoding))
        with lasting_streams():
            print("äσ\udcff", end="", flush=True, file=getattr(sys, stream))
        assert written.getvalue() == shown
