#!/usr/bin/env python3
"""Record KSM scenarios against a real kernel in a QEMU guest.

    record.py --kernel LABEL=VMLINUZ --out DIR [--passes 2] [--gzip] SCENARIO.json|DIR ...

Every scenario is run in `--passes` separate boots (the order of the scenarios is reversed in every second pass); only
recordings that agree in all passes are written, to DIR/LABEL/<name>.json. See README.md for the formats.
Needs Python 3.11, gcc (static libc), QEMU 10 (see --qemu). No KVM is used.
"""

import argparse
import concurrent.futures
import gzip
import sys
import tempfile
import time
from pathlib import Path

from guest import boot, build_init
from language import Bad, Scenario, load, script
from recordings import Recording, dump, first_difference, recording, without_batches

Result = dict[str, Recording | str]  # name -> recording, or why there is none
ATTEMPTS = 4  # emulated SMP boots fail now and then


class Recorder:
    """What all boots of a run share."""

    def __init__(self, qemu: str, kernel: Path, folder: Path, verbose: bool) -> None:
        self.qemu, self.kernel, self.folder, self.verbose = qemu, kernel, folder, verbose
        self.init = build_init(folder)

    def one_pass(self, scenarios: list[Scenario], tag: str, jobs: int, chunk: int, reverse: bool) -> Result:
        """Every scenario once, `chunk` to a boot, `jobs` guests at a time."""
        work = []
        for nodes in sorted({scenario["nodes"] for scenario in scenarios}):
            mine = [scenario for scenario in scenarios if scenario["nodes"] == nodes]
            if reverse:
                mine.reverse()
            work += [mine[k : k + chunk] for k in range(0, len(mine), chunk)]
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            parts = pool.map(self._chunk, work, [f"{tag}-{number}" for number in range(len(work))])
        return {name: rec for part in parts for name, rec in part.items()}

    def _chunk(self, todo: list[Scenario], tag: str) -> Result:
        result: Result = {}
        for attempt in range(ATTEMPTS + len(todo)):
            if not todo:
                break
            text = "".join(script(k, scenario) for k, scenario in enumerate(todo)) + "stop\n"
            stem = self.folder / f"{tag}-{attempt}"
            lines = boot(self.qemu, self.init, self.kernel, todo[0]["nodes"], text, stem, self.verbose)
            came_up = bool(lines) and "kernel" in lines[0]
            if not came_up and attempt + 1 >= ATTEMPTS:
                return result | {scenario["name"]: "the guest did not come up" for scenario in todo}
            if not came_up:
                continue
            done, fatal, stopped = self._read(todo, lines, result)
            if stopped:
                break
            if done < len(todo) and (fatal or attempt + 1 >= ATTEMPTS):
                result[todo[done]["name"]] = fatal or "the guest crashed"
                done += 1
            todo = todo[done:]
        return result

    def _read(self, todo: list[Scenario], lines: list[dict[str, object]], result: Result) -> tuple[int, str, bool]:
        """Fill `result`; how many scenarios were done, what was fatal, and whether the guest came to its end."""
        header, group, done, fatal = lines[0], [], 0, ""
        for line in lines[1:]:
            if "scenario" in line:
                group = [line]
            elif "fatal" in line:
                fatal = str(line["fatal"])
            elif "end" in line:
                scenario = todo[done]
                try:
                    result[scenario["name"]] = recording(scenario, header, group)
                except Bad as error:
                    result[scenario["name"]] = str(error)
                done += 1
            elif "stop" in line:
                if line["tainted"]:
                    sys.stderr.write(f"the guest kernel is tainted: {line['tainted']}\n")
                return done, fatal, True
            else:
                group.append(line)
        return done, fatal, False


def write(folder: Path, scenarios: list[Scenario], passes: list[Result], compress: bool) -> tuple[int, list[str]]:
    """Write what all passes agree on; how many, and what is wrong with the others."""
    folder.mkdir(parents=True, exist_ok=True)
    kept, complaints = 0, []
    for scenario in scenarios:
        name = scenario["name"]
        target = folder / (f"{name}.json.gz" if compress else f"{name}.json")
        target.unlink(missing_ok=True)
        found = [one.get(name, "never ran") for one in passes]
        whole = [rec for rec in found if not isinstance(rec, str)]
        if len(whole) < len(found):
            complaints.append(f"FAILED {name}: {next(rec for rec in found if isinstance(rec, str))}")
        elif any(without_batches(rec) != without_batches(whole[0]) for rec in whole):
            other = next(rec for rec in whole if without_batches(rec) != without_batches(whole[0]))
            complaints.append(f"FLAKY  {name}: {first_difference(whole[0], other)}")
        else:
            text = dump(whole[0]).encode()
            target.write_bytes(gzip.compress(text, mtime=0) if compress else text)
            kept += 1
    return kept, complaints


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scenarios", nargs="+")
    parser.add_argument("--kernel", required=True, metavar="LABEL=VMLINUZ")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--qemu", default="qemu-system-x86_64", help="QEMU 10 or newer; the TCG of 7.2 corrupts SMP guests")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--chunk", type=int, default=80, help="scenarios per boot")
    parser.add_argument("--gzip", action="store_true", help="write <name>.json.gz")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    label, _, kernel = args.kernel.partition("=")
    try:
        scenarios = load(args.scenarios)
    except Bad as error:
        sys.exit(str(error))
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(args.qemu, Path(kernel), Path(folder), args.verbose)
        passes = [
            recorder.one_pass(scenarios, f"{label}-{number}", args.jobs, args.chunk, number % 2 == 1)
            for number in range(args.passes)
        ]
    kept, complaints = write(args.out / label, scenarios, passes, args.gzip)
    summary = f"{label}: {kept} of {len(scenarios)} recorded, {args.passes} passes, {time.monotonic() - begin:.0f} s"
    sys.stdout.write("\n".join([*complaints, summary, ""]))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
