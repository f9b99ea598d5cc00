"""Runs the commands that a page shows and compares (or writes) what they print.

    python docs/console.py README.md            exit 1 and a diff when an output has changed
    python docs/console.py README.md --write    put today's outputs into the page

A ```console block holds lines "$ command", each followed by its output. Seconds and sizes are masked, "…"
alone on a line stands for any lines left out. A ```yaml study NAME block is saved as NAME. Commands run in
one scratch folder per page, in order.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MASKS = (
    (re.compile(r"\bin \d+(\.\d+)? s\b"), "in … s"),
    (re.compile(r"\d+(\.\d+)? GiB"), "… GiB"),
)
_STUDY = re.compile(r"^```yaml study (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LEFT_OUT = "…"


def save_studies(text: str, folder: Path) -> None:
    """Saves the studies that a page names, where its commands will look for them."""
    for name, study in _STUDY.findall(text):
        (folder / name).write_text(study, encoding="utf-8")


def commands(block: str) -> list[tuple[str, list[str]]]:
    """(command, shown output lines) of a block."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def execute(command: str, folder: Path) -> list[str]:
    """The lines that a command prints; scripts beside this interpreter come first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, text=True, capture_output=True, check=False
    )
    return [line.rstrip() for line in (done.stdout + done.stderr).splitlines()]


def masked(lines: list[str]) -> list[str]:
    """Lines without what differs from machine to machine."""
    for pattern, stand_in in _MASKS:
        lines = [pattern.sub(stand_in, line) for line in lines]
    return [line.rstrip() for line in lines]


def agrees(shown: list[str], printed: list[str]) -> bool:
    """Whether an output is as shown, with "…" standing for any lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == LEFT_OUT else re.escape(line) + "\n" for line in masked(shown)
    )
    return re.fullmatch(pattern, "".join(line + "\n" for line in masked(printed))) is not None


def check(page: Path) -> list[str]:
    """Differences between what a page shows and what its commands print; empty when there is none."""
    wrong: list[str] = []
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        save_studies(text, Path(folder))
        for block in _BLOCK.findall(text):
            for command, shown in commands(block):
                printed = execute(command, Path(folder))
                if not agrees(shown, printed):
                    wrong += [
                        f"$ {command}",
                        *difflib.unified_diff(masked(shown), masked(printed), lineterm=""),
                    ]
    return wrong


def write(page: Path) -> None:
    """Puts today's outputs into a page; an output shown with "…" keeps its first lines and the mark."""
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        save_studies(text, Path(folder))

        def renewed(match: re.Match[str]) -> str:
            lines = []
            for command, shown in commands(match[1]):
                printed = execute(command, Path(folder))
                lines.append(f"$ {command}")
                if LEFT_OUT in shown:
                    head, tail = shown.index(LEFT_OUT), len(shown) - shown.index(LEFT_OUT) - 1
                    printed = [*printed[:head], LEFT_OUT, *(printed[-tail:] if tail else [])]
                lines += printed
            return "```console\n" + "".join(f"{line}\n" for line in lines) + "```"

        page.write_text(_BLOCK.sub(renewed, text), encoding="utf-8")


def main() -> int:
    """Check or write each page named on the command line."""
    pages = [Path(name) for name in sys.argv[1:] if name != "--write"]
    if "--write" in sys.argv:
        for page in pages:
            write(page)
        return 0
    wrong = [line for page in pages for line in check(page)]
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
