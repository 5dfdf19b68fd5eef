"""What our own scans cost, and how that grows: with pages, with what is rewritten, with batches, with writes in mid-scan.

Every row has been held against the walk of every tree on a small host first; peers of rows are rows of ours.
"""

from collections.abc import Iterator
from functools import partial

from equality import check
from memory import Size, Timed, interleaved, median_rate, mix, run, written_in_mid_scan
from table import Row, Target

from ksmbatch.config import Config
from ksmbatch.program import compile_config

RATE = "visits/s"
MOMENTS = 16  # of writing, in each full scan


def quiet(size: Size) -> Iterator[Row]:
    """Nothing is written: the scan that merges, and those after it."""
    _check("quiet", mix(size.small))
    config = mix(size.pages)
    program = compile_config(config)
    runs = interleaved(size.repeat, {"": partial(run, program, config)})[""]
    work = f"{pages(size.pages)}, nothing written"
    merging, later = median_rate(runs, 2, 2), median_rate(runs, 3, 6)
    yield _row("quiet", f"{work}, first merging scan", merging, runs, target=Target(of="ours", at_least=150e6, want=500e6))
    yield _row("quiet", f"{work}, later scans", later, runs, target=Target(of="ours", at_least=1e9, want="O(changed)"))


def growth(size: Size) -> Iterator[Row]:
    """The first merging scan and the later ones, 1 % rewritten each, of a sixteenth to sixteen times the pages."""
    _check("growth", mix(size.small, "workload.rewritten_per_scan=0.01"))
    base: dict[str, float] = {}
    for times in (1, 16, 64, 256) if size.big else (1, 16) if size.quick else (1, 16, 64):
        config = mix(max(64, times * size.pages // 16), "workload.rewritten_per_scan=0.01")
        program = compile_config(config)
        runs = interleaved(size.repeat if times <= 16 else 1, {"": partial(run, program, config)})[""]
        del program  # the next one is larger
        for scans, first, last in (("first merging scan", 2, 2), ("later scans", 3, 6)):
            rate = median_rate(runs, first, last)
            peer, theirs = ("", None) if scans not in base else (f"{pages(max(64, size.pages // 16))}", base[scans])
            base.setdefault(scans, rate)
            work = f"{pages(config.workload.parameters.n_pages)}, 1 % rewritten per scan, {scans}"
            yield _row("growth", work, rate, runs, peer=peer, theirs=theirs)


def rewritten(size: Size) -> Iterator[Row]:
    """Later scans by what is rewritten before each."""
    base: float | None = None
    for percent in (0.1, 1, 10):
        share = f"workload.rewritten_per_scan={percent / 100}"
        _check(f"rewritten, {percent} %", mix(size.small, share))
        config = mix(size.pages, share)
        program = compile_config(config)
        runs = interleaved(size.repeat, {"": partial(run, program, config)})[""]
        rate = median_rate(runs, 3, 6)
        target = Target(of="ours", at_least=400e6, want=1e9) if percent == 1 else None
        work = f"{pages(size.pages)}, {percent:g} % rewritten per scan"
        yield _row("rewritten", work, rate, runs, peer="" if base is None else "0.1 %", theirs=base, target=target)
        base = rate if base is None else base


def batches(size: Size) -> Iterator[Row]:
    """Small batches against one per full scan, sampled per full scan."""
    share = "workload.rewritten_per_scan=0.01"
    for batch in (100, 1000):
        # sampled at every batch, so that what is equal is every place at which one ends
        _check(f"batches of {batch}", mix(size.small, share, f"ksm.pages_to_scan={batch}", 'run.sample="batch"'))
    program = compile_config(mix(size.pages, share))
    configs = {batch: mix(size.pages, share, f"ksm.pages_to_scan={batch}") for batch in (100, 1000, 2**32 - 1)}
    ways = {str(batch): partial(run, program, config) for batch, config in configs.items()}
    runs = interleaved(size.repeat, ways)
    whole = median_rate(runs.pop(str(2**32 - 1)), 3, 6)
    for small, timed in runs.items():
        # in 1.5 times the time, at most, and 1.1 times
        target = Target(of="ratio", at_least=1 / 1.5, want=1 / 1.1) if small == "100" else None
        work = f"{pages(size.pages)}, 1 % rewritten per scan, pages_to_scan = {small}"
        rate = median_rate(timed, 3, 6)
        yield _row("batches", work, rate, timed, peer="one batch per scan", theirs=whole, target=target)


def midscan(size: Size) -> Iterator[Row]:
    """0.1 % of the pages are rewritten in every full scan, in the middle of it."""
    settings = ("ksm.pages_to_scan=1000",)
    small = mix(size.small, *settings)
    check("mid-scan", written_in_mid_scan(small, 0.001, MOMENTS), mix(size.small, *settings, 'run.sample="batch"'))
    config = mix(size.pages, *settings)
    program = written_in_mid_scan(config, 0.001, MOMENTS)
    runs = interleaved(size.repeat, {"": partial(run, program, config)})[""]
    work = f"{pages(size.pages)}, 0.1 % rewritten per scan, in mid-scan at {MOMENTS} moments, pages_to_scan = 1000"
    target = Target(of="ours", at_least=20e6, want=100e6)
    yield _row("midscan", work, median_rate(runs, 3, 6), runs, target=target)


def pages(count: int) -> str:
    """A number of pages, in short.

    >>> pages(2**24), pages(2**16), pages(2**28), pages(4160)
    ('16M pages', '64k pages', '256M pages', '4160 pages')
    """
    for shift, unit in ((20, "M"), (10, "k")):
        if count >= 1 << shift and count % (1 << shift) == 0:
            return f"{count >> shift}{unit} pages"
    return f"{count} pages"


def _check(what: str, config: Config) -> None:
    check(what, compile_config(config), config)


def _row(
    name: str,
    work: str,
    rate: float,
    runs: list[Timed],
    *,
    peer: str = "",
    theirs: float | None = None,
    target: Target | None = None,
) -> Row:
    return Row(name=name, work=work, unit=RATE, ours=rate, peer=peer, theirs=theirs, target=target, exact=runs[0].exact)
