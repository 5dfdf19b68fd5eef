"""What do the look-ups save against walking every tree? Each run twice, with and without look-ups; results must be equal.

    python benchmarks/paths.py CONFIG [--set KEY=VALUE]... [--repeat N]

It reports, per run of the sweep, visits, how many of them walked a tree as usual, and CPU seconds of both ways, kernels being
compiled already, and decides nothing; the decision is docs/adr/0002-one-semantics-two-paths.md.
"""

import argparse
import statistics
from pathlib import Path

from equality import differences, walking
from machine import headline
from rich.console import Console

from ksmbatch.config import expand, load
from ksmbatch.engine import simulate, warm_up
from ksmbatch.program import compile_config
from ksmbatch.results import label


def main() -> None:
    """Parity first, then medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    points = expand(load(options.config, options.overrides))
    warm_up()
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    say(headline())
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
