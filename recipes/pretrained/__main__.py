"""``python -m recipes.pretrained``: the small trained generators by name, path and origin."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from gan_blocks.engine.base import run_command
from recipes.pretrained import NAMES, make_weights, weights_path

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """List them, print the path of one, or make one of a run."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.pretrained", description="Small trained generators that come with the recipes."
    )
    parser.add_argument("name", nargs="?", help="print the path of this one, for gan-blocks sample --weights")
    parser.add_argument("--make", type=Path, metavar="RUN", help="write it anew: the averaged generator of this run")
    options = parser.parse_args(arguments)

    def command() -> int:
        if options.name is None:
            if options.make is not None:
                parser.error("--make needs a name.")
            width = max(map(len, NAMES))
            print("\n".join(f"{name:<{width}}  {what}" for name, what in NAMES.items()))
            return 0
        path = weights_path(options.name)
        if options.make is not None:
            make_weights(options.make, path)
        print(path)
        return 0

    return run_command("pretrained", command)


if __name__ == "__main__":
    raise SystemExit(main())
