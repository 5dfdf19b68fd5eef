"""What do the look-ups save against walking every tree? Each run twice, with and without look-ups; results must be equal.

    python benchmarks/paths.py CONFIG [--set KEY=VALUE]... [--repeat N]

It reports, per run of the sweep, visits, how many of them walked a tree as usual, and CPU seconds of both ways, kernels being
compiled already, and decides nothing; the decision is docs/adr/0002-one-semantics-two-paths.md.
"""

import argparse
import os
import statistics
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from rich.console import Console

from ksmbatch import engine
from ksmbatch.config import Config, expand, load
from ksmbatch.engine import RunResult, simulate, warm_up
from ksmbatch.machine import Machine
from ksmbatch.program import Program, compile_config
from ksmbatch.provenance import environment
from ksmbatch.results import label

APART = {"exact_visits"}  # how a result came about, not what it is


def walking(program: Program, point: Config) -> RunResult:
    """As simulate(), with every tree walked. No config says so: it is for tests and for this."""
    with mock.patch.object(engine, "Machine", partial(Machine, force_exact=True)):
        return simulate(program, point)


def differences(one: RunResult, other: RunResult) -> list[str]:
    """Names of what two runs do not have in common, at any sample."""
    tables = [(one.samples, other.samples), (one.nodes, other.nodes)]
    found = {name for mine, yours in tables for name in mine if not np.array_equal(mine[name], yours[name])}
    found |= {name for name in one.last if one.last[name] != other.last[name]}
    return sorted(found - APART)


def main() -> None:
    """Parity first, then medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    points = expand(load(options.config, options.overrides))
    warm_up()
    about = environment()
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    say(f"{about['cpu']}, {about['cores']} cores, load {os.getloadavg()[0]:.1f}, Python {about['python']}, {about['packages']}")
    say(f"medians of {options.repeat}, CPU seconds of a run")
    for config, swept in points:
        setting = label(swept) or options.config.stem
        program = compile_config(config)
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(options.repeat):
            usual, walked = simulate(program, config), walking(program, config)
            if wrong := differences(usual, walked):
                raise SystemExit(f"{setting}: the two ways differ in {', '.join(wrong)}")
            seconds[False].append(usual.figures["process_s"])
            seconds[True].append(walked.figures["process_s"])
        usual_s, walked_s = (statistics.median(seconds[way]) for way in (False, True))
        visits, exact = usual.last["page_visits"], usual.last["exact_visits"]
        say(f"{setting}: {program.n_pages:,} pages, {visits:,} visits, {100 * exact / visits:.2f} % walked a tree")
        say(f"    look-ups {usual_s:.2f} s, walks {walked_s:.2f} s, {walked_s / usual_s:.1f}x")


if __name__ == "__main__":
    main()
