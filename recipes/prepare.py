"""``python -m recipes.prepare``: the command ``gan-blocks prepare``."""

from gan_blocks.engine import run_console_command

if __name__ == "__main__":
    raise SystemExit(run_console_command("prepare", prog="python -m recipes.prepare"))
