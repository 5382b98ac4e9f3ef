"""``python -m recipes.evaluate``: the command ``gan-blocks evaluate``."""

from gan_blocks.engine import run_console_command

if __name__ == "__main__":
    raise SystemExit(run_console_command("evaluate", prog="python -m recipes.evaluate"))
