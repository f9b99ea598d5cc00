"""The console script `offtake`: finds the command, and turns errors into one message and an exit code.

Exit codes: 0 done, 2 bad input, 3 no such device, 4 a run was stopped, 5 numerical failure, 130 interrupted,
1 anything else. Answers go to stdout; progress, warnings and errors to stderr. OFFTAKE_TRACEBACK=1 adds the
traceback.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from offtake.errors import InputError, OfftakeError
from offtake.interrupts import counted_interrupts

# Command → (module:handler, what it does). Modules are imported when their command is used.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("offtake.commands.run:run", "run a study; sweeps with -m"),
    "show": ("offtake.commands.inspect:show", "the deals as announced"),
    "validate": ("offtake.commands.inspect:validate", "every mistake in a study, with its position"),
    "replay": ("offtake.commands.replay:replay", "one path again, with its events"),
    "devices": ("offtake.commands.inspect:devices", "backends, and why each is or is not usable"),
    "bench": ("offtake.commands.bench:bench", "devices beside one another: speed, limits, price"),
    "kernel": ("offtake.commands.kernel:kernel", "the CUDA kernel of a study"),
    "schema": ("offtake.commands.inspect:schema", "JSON Schema of a study in one file"),
}

COMPLETION_FLAGS = ("-sc", "--shell-completion")
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` defaults to those of the process. Returns the exit code."""
    _prepare_streams()
    with counted_interrupts() as interrupts:
        return _run(list(sys.argv[1:] if arguments is None else arguments), interrupts)


def _run(arguments: list[str], interrupts: list[int]) -> int:
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has gone (`offtake show | head`).
        _give_up_output()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return _unexpected(error)
        print(f"offtake: cannot write the output: {error.strerror}", file=sys.stderr)
        _give_up_output()
        return OfftakeError.exit_code
    except KeyboardInterrupt:
        return _interrupted()
    except OfftakeError as error:
        _explain(error, str(error))
        return error.exit_code
    except Exception as error:
        # A library may make something else of Ctrl-C.
        return _interrupted() if interrupts else _unexpected(error)


def _interrupted() -> int:
    print("offtake: interrupted", file=sys.stderr)
    return INTERRUPTED


def _prepare_streams() -> None:
    """Output goes somewhere, and a letter that its encoding lacks becomes a question mark."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # To rich, no width is nothing to print.
    if os.environ.get("COLUMNS") == "0":
        del os.environ["COLUMNS"]


def _give_up_output() -> None:
    """Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unexpected(error: Exception) -> int:
    _explain(error, f"offtake: internal error: {type(error).__name__}: {error}")
    return OfftakeError.exit_code


def _explain(error: Exception, message: str) -> None:
    if os.environ.get("OFFTAKE_TRACEBACK") == "1":
        traceback.print_exception(error)
        return
    print(message, file=sys.stderr)
    if not isinstance(error, OfftakeError):
        print("OFFTAKE_TRACEBACK=1 shows where; please report it", file=sys.stderr)
    elif isinstance(error, InputError) and len(error.mistakes) > 1:
        print(f"{len(error.mistakes)} mistakes", file=sys.stderr)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else InputError.exit_code
    if arguments[0] in ("-V", "--version"):
        from offtake._version import __version__

        print(f"offtake {__version__}")
        return 0
    name = arguments[0]
    if name in COMPLETION_FLAGS:
        return _complete(arguments)
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(COMMANDS)}"
        print(f"offtake: unknown command {name!r}; {hint}", file=sys.stderr)
        return InputError.exit_code
    return _handler(name)(arguments[1:])


def _handler(name: str) -> Callable[[list[str]], int]:
    module, function = COMMANDS[name][0].split(":")
    return getattr(importlib.import_module(module), function)


def _complete(arguments: list[str]) -> int:
    """Tab completion: the shell asks `offtake -sc query=bash` with the line typed so far in COMP_LINE."""
    typed = os.environ.get("COMP_LINE", "").split()
    if len(typed) > 1 and typed[1] in COMMANDS:
        return _handler("run")(arguments)
    print(" ".join(COMMANDS))
    return 0


def _help() -> str:
    lines = ["usage: offtake COMMAND [ARGUMENTS]", "", "Monte Carlo of AI-compute contracts.", ""]
    lines += [f"  {name:<12}{summary}" for name, (_, summary) in COMMANDS.items()]
    lines += [
        "",
        "  offtake --version          offtake COMMAND --help",
        "",
        "Examples:",
        "  offtake run portfolio=openai study=quick",
        "  offtake validate portfolio=openai",
        "",
        "Exit codes: 0 done, 2 bad input, 3 no such device, 4 a run was stopped,",
        "5 numerical failure, 130 interrupted, 1 anything else. OFFTAKE_TRACEBACK=1",
        "adds the traceback.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
