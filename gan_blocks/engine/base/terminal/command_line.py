"""The command line of every recipe: options with help, and errors as one line with exit status 2.

Tested in ``tests/engine/training/test_command.py``.
"""

import contextlib
import inspect
import io
import re
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import tyro

from gan_blocks.engine.base.checks import perhaps_meant, require_annotated, shortened, unknown_word
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.memory import out_of_memory
from gan_blocks.engine.base.terminal.console import OutputError, last_word, lasting_streams, printable, silence_output
from gan_blocks.engine.base.terminal.help_page import Examples, help_page, option_names, switch_names

__all__ = ["asks_for_help", "parse_choice", "parse_options", "parse_some", "run_command", "without_notes"]

Options = TypeVar("Options")

HELP = frozenset({"-h", "--help"})


def run_command(name: str, command: Callable[[], int]) -> int:
    """Run the body of a command; what the user can fix becomes one line on stderr and status 2, ^C one and 130.

    Where nobody reads the output to its end, as after ``| head``, the command ends without a word and with 141. Nobody
    has to read what is said on standard error.
    """
    with lasting_streams():
        return _run(name, command)


def _run(name: str, command: Callable[[], int]) -> int:
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except UserError as error:
        last_word(f"{name}: error: {printable(str(error))}")
        return 2
    except OutputError as error:
        last_word(f"{name}: error: standard output was not written: {error}.")
        silence_output()
        return 2
    except BrokenPipeError:
        if not _output_is_closed():  # it was another pipe
            raise
        silence_output()
        return 141
    except OSError as error:  # what a file system answers to a name, wherever it was first asked
        if error.filename is None:
            if not _is_working_directory_gone(error):
                raise
            last_word(f"{name}: error: the working directory is gone: change to another.")
            return 2
        last_word(f"{name}: error: {printable(shortened(str(error.filename)))}: {error.strerror}.")
        return 2
    except (RuntimeError, MemoryError) as error:
        if (problem := out_of_memory(error)) is None:
            raise
        last_word(f"{name}: error: {problem}; a smaller --batch-size needs less.")
        return 2
    except KeyboardInterrupt:
        last_word(f"{name}: stopped.")
        return 130


def _is_working_directory_gone(error: OSError) -> bool:
    if not isinstance(error, FileNotFoundError):
        return False
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _output_is_closed() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are told without being asked for
    return bool(poll.poll(0))


def parse_options(
    kind: type[Options],
    *,
    prog: str,
    description: str,
    args: Sequence[str] | None,
    examples: Examples = (),
    changed: str = "",
) -> Options:
    """Parse the command line into the dataclass ``kind``, whose field docstrings are the help texts.

    Args:
        kind: The options.
        prog: How the command is typed.
        description: What ``--help`` says first, such as the docstring of the command's module.
        args: The command line; None: that of this process.
        examples: Command lines to begin with, and what each does.
        changed: What sets the values that are marked, which differ from those of a fresh dataclass.

    Raises:
        UserError: If an option is unknown or a value does not fit.
    """
    words = list(sys.argv[1:] if args is None else args)
    if asks_for_help(words):
        text = without_notes(description)
        print(help_page(kind, prog=prog, description=text, examples=examples, changed=changed))
        raise SystemExit(0)
    return _parse(kind, prog=prog, args=words)


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether a command line has ``--help`` or ``-h``."""
    return not HELP.isdisjoint(words)


def parse_some(kind: type[Options], args: Sequence[str]) -> Options:
    """The options of ``kind`` alone, whatever stands beside them; the whole parser says what is wrong with them."""
    _refuse_empty(args)
    words = [word for word in args if word not in HELP]
    options = {f"--{field.name}".replace("_", "-") for field in fields(kind)}  # type: ignore[arg-type]
    if options.isdisjoint(word.partition("=")[0].replace("_", "-") for word in words):
        return kind()  # at once: help and typing errors should not wait for a second parser
    try:
        found, _ = tyro.cli(kind, args=words, return_unknown_args=True, add_help=False, console_outputs=False)
    except SystemExit:
        return kind()
    require_annotated(found)
    return found


def _refuse_empty(args: Sequence[str]) -> None:
    """Refuse a value without a letter, such as that of a variable that is not set: a path would be this folder."""
    for option, word in zip(["", *args], args, strict=False):
        named = option if word == "" else word.removesuffix("=") if word.startswith("--") and word.endswith("=") else ""
        if named.startswith("--"):
            raise UserError(f"{named} must not be empty.")


def parse_choice(kinds: Mapping[str, type[Any]], *, prog: str, description: str, args: Sequence[str] | None) -> Any:
    """Parse a command line whose first word chooses one of several dataclasses; without such a word it is the first.

    Raises:
        UserError: If the word is none of ``kinds``, an option is unknown or a value does not fit.
    """
    words = list(sys.argv[1:] if args is None else args)
    first = next(iter(kinds))
    chosen = first if not words or words[0].startswith("-") else words.pop(0)
    if chosen not in kinds:
        raise unknown_word(chosen, kinds)
    kind = kinds[chosen]
    if asks_for_help(words):
        if chosen != first:
            print(help_page(kind, prog=f"{prog} {chosen}", description=inspect.getdoc(kind) or ""))
        else:
            listed = [(f"{prog} {name} ...", _summary(each)) for name, each in kinds.items()]
            about = f"{without_notes(description)}\n\nThese are the options of {first}, which needs no word."
            print(help_page(kind, prog=prog, description=about, examples=listed, usage="[WORD] [OPTIONS]"))
        raise SystemExit(0)
    return _parse(kind, prog=f"{prog} {chosen}", args=words)


def _parse(kind: type[Options], *, prog: str, args: Sequence[str]) -> Options:
    """Call tyro, and turn its boxed error into one line."""
    _refuse_empty(args)
    args = _with_values(args, switch_names(kind))
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            found = tyro.cli(
                kind,
                prog=prog,
                args=args,
                config=(tyro.conf.FlagConversionOff, tyro.conf.DisallowNone),
            )
    except SystemExit:
        raise UserError(_as_one_line(message.getvalue(), kind)) from None
    require_annotated(found)
    return found


def _with_values(args: Sequence[str], switches: Sequence[str]) -> list[str]:
    """The command line with ``--mirror True`` for ``--mirror`` and ``--mirror False`` for ``--no-mirror``."""
    words: list[str] = []
    off = {f"--no-{name.removeprefix('--')}": name for name in switches}
    for word, following in zip(args, [*args, "--"][1:], strict=True):
        option = word.replace("_", "-")
        if option in off:
            words += [off[option], "False"]
        else:
            words += [word, "True"] if option in switches and following.startswith("-") else [word]
    return words


def _summary(kind: type[Any]) -> str:
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())


def without_notes(docstring: str) -> str:
    """A module's docstring without the paragraph that names its test, which is for readers of the code."""
    paragraphs = docstring.split("\n\n")
    return "\n\n".join(text for text in paragraphs if not text.lstrip().startswith("Tested in "))


def _as_one_line(box: str, kind: type[Any]) -> str:
    """The text of a boxed message up to its first separating line, and the option that was perhaps meant.

    Where UTF-8 is not at hand, boxes are of ``+-|``, or have no frame but a line under their title.
    """
    paragraphs: list[list[str]] = [[]]
    framed = False
    for line in box.splitlines():
        text = line.strip().strip("│|").strip()
        if text.startswith(("╭", "╰", "+")):
            framed = True
        elif text.strip("─-"):
            paragraphs[-1].append(text)
        elif paragraphs[-1]:
            paragraphs.append([])
    paragraphs = paragraphs if framed else paragraphs[1:]
    sentence = " ".join(paragraphs[0]).rstrip(".")
    if unknown := re.fullmatch(r"Unrecognized options: (.*)", sentence):
        words = unknown[1].split(", ")
        options = [word for word in words if word.startswith("-")] or words  # the others are their values
        perhaps = perhaps_meant(options[0].partition("=")[0], option_names(kind))
        return f"Unrecognized option{'s' * (len(options) > 1)}: {', '.join(options)}.{perhaps} See --help."
    choice = re.fullmatch(_NO_CHOICE, sentence)
    perhaps = perhaps_meant(choice[1], re.findall(r"[^', ]+", choice[3])) if choice else ""
    return f"{_reworded(sentence)}.{perhaps} See --help."


_NOT_A_NUMBER = r"Error parsing (\S+): (?:{}|no type matching {} .* from \[)'(.*)'\]?"
_NO_CHOICE = r"invalid choice '(.*)' for argument '(\S+)'\. .* \((.*?),?\)"
_RULES = (
    (_NOT_A_NUMBER.format(r"invalid literal for int\(\) .*: ", "INT"), r"\1 must be a whole number, but got \2"),
    (_NOT_A_NUMBER.format("could not convert string to float: ", "FLOAT"), r"\1 must be a number, but got \2"),
    (r"Error parsing (\S+): (?:Could not find valid parse|no type matching) .*\[(.*)\]", r"\1 cannot be \2"),
    (_NO_CHOICE, r"\2 must be one of \3, but got \1"),
    (r"Missing from .*?: (--\S+) .*", r"\1 must be given"),
    (r"Missing value for argument '(\S+)'\. Expected 1 values", r"\1 needs a value"),
)
"""What the parser says, and how the checks of a Config would say it."""


def _reworded(sentence: str) -> str:
    for pattern, words in _RULES:
        if found := re.fullmatch(pattern, sentence):
            return found.expand(words).replace("'", "")
    return sentence
