"""Everything on a GPU in one call, in about six minutes (an estimate): ``python -m benchmarks.gpu_check``.

Checked are every block forward, backward and twice backward against the CPU in float32, bfloat16 and channels_last; a
step and a resumed step of every recipe; NCCL with one process; speed and memory of BigGAN-128 at full width against
plain torch; compiled networks. A failure is listed, and the rest is checked. A page in ``benchmarks/results`` and the
JSON beside it grow with each part; where parts are chosen or networks are small, only with ``--out``. ``--device cpu
--tiny`` tries the check itself where there is no GPU.

Tested in ``tests/benchmarks/test_gpu_check.py``.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu_check.blocks import check_blocks
from benchmarks.gpu_check.findings import Findings
from benchmarks.gpu_check.speed import BATCH, speed_tables
from benchmarks.gpu_check.trainings import RECIPES, check_compiled, check_group, check_recipes
from benchmarks.results import Table, add_out_option, command_of, page_asked, render_table, table, write_page
from benchmarks.timing import in_one_line, machine_facts

__all__ = ["main"]

PARTS = ("blocks", "group", "speed", "recipes", "compile")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check all; the status is 1 if something has failed, 2 if there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description="Check everything on a GPU.")
    parser.add_argument("parts", nargs="*", default=[], help=f"which (default: all): {', '.join(PARTS)}")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: with --tiny, to try the check")
    parser.add_argument("--tiny", action="store_true", help="small networks and fewer recipes")
    parser.add_argument("--batch", type=int, default=BATCH, help="images in a batch of the full-width BigGAN-128")
    add_out_option(parser, default_page())
    options = parser.parse_args(arguments)
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]}; the parts are {', '.join(PARTS)}.")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu --tiny tries the check itself.")
    if options.device == "cpu" and not options.tiny:
        parser.error("--device cpu goes with --tiny.")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device, page = torch.device(options.device), page_asked(parser, options, default_page())
    findings, tables, facts = Findings(), list[Table](), machine_facts()
    print(in_one_line(facts))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            if part in options.parts or not options.parts:
                _parts(findings, tables, device, options, Path(folder))[part]()
                if page is not None:
                    found = [table("Checks", {}, notes=findings.notes()), *tables]
                    write_page(page, "GPU check", command_of("benchmarks.gpu_check", arguments), facts, found)
                print(f"({part} after {time.perf_counter() - began:.0f} s)", flush=True)
    print("\n".join(["", *(render_table(each) for each in tables), *findings.notes()]))
    return 1 if findings.failures else 0


def _parts(
    findings: Findings, tables: list[Table], device: torch.device, options: argparse.Namespace, folder: Path
) -> dict[str, Callable[[], None]]:
    def measured(bf16: bool) -> None:
        rounds = 1 if options.tiny else 5
        tables.extend(speed_tables(device, bf16=bf16, tiny=options.tiny, rounds=rounds, batch=options.batch))

    def speed() -> None:
        for bf16 in (False, True):
            findings.check(f"speed in {'bfloat16' if bf16 else 'float32'}", partial(measured, bf16))

    recipes = list(RECIPES)[:1] if options.tiny else list(RECIPES)
    return {
        "blocks": lambda: check_blocks(findings, device),
        "group": lambda: check_group(findings, device, folder),
        "speed": speed,
        "recipes": lambda: check_recipes(findings, device, folder, recipes),
        "compile": lambda: check_compiled(findings, device, backend="eager" if options.tiny else "inductor"),
    }


def default_page() -> Path:
    """The page of all checks, without a suffix: the hardware is the GPU's name."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "GPU"
    hardware = re.sub(r"[^a-z0-9]+", "", name.lower().replace("nvidia", ""))
    folder = Path(__file__).parents[1] / "results"
    return folder / f"gpu_check_{hardware}_{time.strftime('%Y%m')}"


if __name__ == "__main__":
    sys.exit(main())
