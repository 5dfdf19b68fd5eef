"""The walk of docs/tutorial.md, done as its reader would: files saved as they are shown, commands given to a shell.

    python docs/tutorial.py            walk, and print what each command printed
    python docs/tutorial.py --write    and put that into docs/tutorial.md

It needs `gcore`. What it prints differs a little from machine to machine; `stable` is what does not.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

DOCUMENT = Path(__file__).resolve().with_name("tutorial.md")
_STEP = re.compile(r"^```console\n\$ (.+)\n((?:.*\n)*?)```$", re.MULTILINE)
_FILE = re.compile(r"`([\w.]+)`:\n\n```\w+\n((?:.*\n)*?)```")
_MAX_SECONDS = 300  # of a command; one of them may have to compile kernels


def steps(text: str) -> list[tuple[str, str]]:
    """Commands in the order of the document, each with what it is said to print."""
    return [(command, printed) for command, printed in _STEP.findall(text)]


def files(text: str) -> dict[str, str]:
    """What the reader saves, by name."""
    return dict(_FILE.findall(text))


def walk(folder: Path, saved: Mapping[str, str], commands: Sequence[str]) -> list[str]:
    """Does `commands` in `folder`, where `saved` are put first; returns what each prints on standard output.

    `python` and `ksmbatch` are those that run this. Raises CalledProcessError for a command that fails.
    """
    for name, content in saved.items():
        (folder / name).write_text(content)
    with tempfile.TemporaryDirectory() as tools:
        for name, words in (("python", ""), ("ksmbatch", "-m ksmbatch ")):
            tool = Path(tools, name)
            tool.write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
            tool.chmod(0o755)
        paths = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(DOCUMENT.parent.parent)}
        return [_printed(command, folder, os.environ | paths | {"COLUMNS": "80"}) for command in commands]


def stable(printed: str) -> list[str]:
    """The words of lines that are not empty: numbers are all alike, and so are widths."""
    lines = [re.sub(r"[─\s]+", " ", re.sub(r"\d[\d,.]*", "#", line)).strip() for line in printed.splitlines()]
    return [line for line in lines if line]


def put(text: str, printed: Sequence[str]) -> str:
    """The document with what its commands printed now."""
    left = iter(printed)
    return _STEP.sub(lambda step: f"```console\n$ {step[1]}\n{next(left)}```", text)


def _printed(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    # what goes to standard error is progress: runs of a sweep end in any order
    run = ["bash", "-c", command]
    done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, timeout=_MAX_SECONDS, check=True)
    return re.sub(r" +$", "", done.stdout, flags=re.MULTILINE)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    text = DOCUMENT.read_text()
    commands = [command for command, _ in steps(text)]
    with tempfile.TemporaryDirectory() as folder:
        printed = walk(Path(folder), files(text), commands)
    if write:
        DOCUMENT.write_text(put(text, printed))
    else:
        for command, said in zip(commands, printed, strict=True):
            sys.stdout.write(f"$ {command}\n{said}\n")


if __name__ == "__main__":
    _main()
