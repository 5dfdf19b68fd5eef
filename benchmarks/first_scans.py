"""What do kernels cost to compile, and what do the first full scans of a configuration's memory cost? CPU seconds, best of N.

    python benchmarks/first_scans.py CONFIG [--set KEY=VALUE]... [--scans N] [--repeat N]

Run it before and after a change of `ksmbatch/accel.py`, `ksmbatch/state.py` or a kernel; KSMBATCH_CACHE=0 makes it compile.
The counters at the end are printed, so that equal results can be seen; it does not compare them. The decision it belongs to is
docs/adr/0001-state-in-rows.md.
"""

import argparse
import time
from dataclasses import asdict
from pathlib import Path

from machine import headline
from rich.console import Console

from ksmbatch.config import expand, load
from ksmbatch.cost import Costs
from ksmbatch.engine import warm_up
from ksmbatch.machine import Machine
from ksmbatch.metrics import Counter
from ksmbatch.program import compile_config


def main() -> None:
    """Compile first, then scan; snapshot 0 only."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--scans", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    start_s = time.process_time()
    warm_up()
    compile_s = time.process_time() - start_s
    config = expand(load(options.config, options.overrides))[0].config
    program = compile_config(config)
    costs = {name.upper(): value for name, value in asdict(Costs()).items()}
    best_s = [float("inf")] * options.scans
    for _ in range(options.repeat):
        machine = Machine(program, config.host.kernel, config.ksm.model_dump(), costs=costs)
        for step in program.snapshots[0][1]:
            machine.apply(step)
        for scan in range(options.scans):
            start_s = time.process_time()
            machine.scan(until_full_scans=scan + 1)
            best_s[scan] = min(best_s[scan], time.process_time() - start_s)
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    say(f"{headline()}; {program.n_pages:,} pages, best of {options.repeat}")
    say(f"compiling or loading kernels {compile_s:.1f} s; full scans {', '.join(f'{seconds:.4f}' for seconds in best_s)} s")
    say(", ".join(f"{name.name.lower()} {machine.counter(name):,}" for name in Counter if machine.counter(name)))


if __name__ == "__main__":
    main()
