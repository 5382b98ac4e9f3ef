"""``python -m recipes.neighbors``: the command ``gan-blocks neighbors``."""

from gan_blocks.engine import run_console_command

if __name__ == "__main__":
    raise SystemExit(run_console_command("neighbors", prog="python -m recipes.neighbors"))
