"""``python -m recipes.sample``: the command ``gan-blocks sample``."""

from gan_blocks.engine import run_console_command

if __name__ == "__main__":
    raise SystemExit(run_console_command("sample", prog="python -m recipes.sample"))
