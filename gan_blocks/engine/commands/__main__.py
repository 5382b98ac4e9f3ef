"""``python -m gan_blocks.engine.commands``: the console script, for launchers that take a module, such as torchrun."""

from gan_blocks.engine.commands.console import main

if __name__ == "__main__":
    raise SystemExit(main())
