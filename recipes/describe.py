"""``python -m recipes.describe``: the command ``gan-blocks describe``."""

from gan_blocks.engine import run_console_command

if __name__ == "__main__":
    raise SystemExit(run_console_command("describe", prog="python -m recipes.describe"))
