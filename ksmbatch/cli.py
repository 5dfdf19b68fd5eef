"""The command line: words to calls, calls to exit statuses, errors to one line on standard error.

It computes nothing; every import of a part that takes time stands inside the command that needs it.
"""

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from ksmbatch import __version__
from ksmbatch.errors import KsmbatchError
from ksmbatch.listing import KINDS, entries, show

_BAD_INPUT: Final = KsmbatchError.exit_status
_BROKEN_PIPE: Final = 141  # as a shell reports SIGPIPE
_INTERRUPTED: Final = 130  # as a shell reports SIGINT
_WHEN_INTERRUPTED: Final = {
    "sweep": "a sweep goes on from its finished runs when the same command is run again",
    "import": "there is no trace, for none is written before all is read",
    "capture": "nothing was kept",
    "replay": "recordings that were finished are kept",
}  # for the others there is nothing to say

app = typer.Typer(
    help="Simulate Linux KSM on NUMA hosts: what merging saves and what it costs, for many settings at once.",
    add_completion=False,
    rich_markup_mode=None,  # importing rich takes longer than all the rest of --help
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Config = Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to simulate.", show_default=False)]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key: a TOML value, or a bare word.", show_default=False),
]
_Out = Annotated[Path, typer.Option(metavar="DIR", help="Where results go.")]
_Paths = Annotated[
    list[Path],
    typer.Argument(metavar="PATH...", help="Scenarios, lists of them, recordings, or folders of these.", show_default=False),
]
_Kernel = Annotated[
    str | None, typer.Option(metavar="K", help="Whose ksmd; else a recording's own, or 6.12.", show_default=False)
]

_Format = Annotated[
    str | None,
    typer.Option("--format", metavar="NAME", help="Whose format images have; else what each looks like.", show_default=False),
]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 it ran and the answer is no, 2 bad input.

    Without `arguments` those of the process are meant, which then is ours to arrange: see `_start`.
    """
    if arguments is not None:
        sys.exit(_status(arguments))
    _start()
    status = _status(sys.argv[1:])
    gc.freeze()  # or the interpreter searches for garbage once more: 0.1 s in all that was imported
    if status == _INTERRUPTED:
        # where Ctrl-C came in the midst of an exec(), such as dataclasses are made by, sys.exit() kills the process by SIGINT
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def _start() -> None:
    """What makes a short process shorter, all before the first large import."""
    # imports make a million objects that stay; searching them for garbage as often as Python does by default takes 0.1 s
    gc.set_threshold(20_000, 50, 100)
    # numpy's linear algebra, of which we use nothing, would start a thread per core
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter("must be a whole number >= 1")
    return int(text)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ksmbatch {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def run(config: _Config, overrides: _Set = None, out: _Out = Path("results")) -> int:
    """Simulate one host; print a summary and write results."""
    from ksmbatch.config import load
    from ksmbatch.sweep import run_single

    return run_single(load(config, overrides or ()), out)


@app.command()
def sweep(
    config: _Config,
    overrides: _Set = None,
    out: _Out = Path("results"),
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", parser=_count, help="Runs at a time; else one per core.", show_default=False),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard all earlier results in DIR.")] = False,
) -> int:
    """Simulate every point of the grid in [sweep]; print the tradeoffs. Run again, it resumes."""
    from ksmbatch.config import load
    from ksmbatch.sweep import run_sweep

    return run_sweep(load(config, overrides or ()), out, jobs, fresh)


@app.command()
def replay(
    paths: _Paths,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where recordings go.", show_default=False)],
    kernel: _Kernel = None,
    policy: Annotated[str, typer.Option(metavar="NAME", help="What becomes of KSM pages that move.")] = "mainline",
    no_tables: Annotated[bool, typer.Option("--no-tables", help="Leave page tables empty.")] = False,
) -> int:
    """Run scenarios step by step and write recordings of the simulated kernel."""
    from ksmbatch.replay import replay_paths

    return replay_paths(paths, kernel, policy, out, not no_tables)


@app.command()
def conform(paths: _Paths, kernel: _Kernel = None) -> int:
    """Replay recordings and compare every field of every step."""
    from ksmbatch.replay import conform_paths

    return conform_paths(paths, kernel, typer.echo)


@app.command()
def estimate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Memory that is there: one CONFIG.toml, one trace, or images of memory, [NAME=]PATH as for import.",
            show_default=False,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: one object.")] = False,
    max_page_sharing: Annotated[
        int | None,
        typer.Option(metavar="N", parser=_count, help="The knob; else the configuration's, or 256.", show_default=False),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw a picture.", show_default=False)] = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            metavar="N", parser=_count, help="NUMA nodes, mm k on node k mod N; else as the trace says.", show_default=False
        ),
    ] = None,
    node: Annotated[
        list[str] | None, typer.Option(metavar="MM=NODE", help="Where an mm's memory lies.", show_default=False)
    ] = None,
    snapshot: Annotated[str, typer.Option(metavar="first|last", help="Which moment of memory over time.")] = "last",
    sample: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Look at a share of the contents, say 0.01; with error bars.", show_default=False),
    ] = None,
    format_: _Format = None,
    overrides: _Set = None,
) -> int:
    """Say what KSM would save on this memory, without simulating time."""
    from ksmbatch.estimating import estimate_inputs

    return estimate_inputs(
        inputs,
        overrides=overrides or (),
        max_page_sharing=max_page_sharing,
        nodes=nodes,
        binding=node or (),
        moment=snapshot,
        fraction=sample,
        format=format_,
        plot=plot,
        echo_json=typer.echo if as_json else None,
    )


@app.command("import")
def import_(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="[NAME=]PATH[@TIME]: a file or folder with memory, the mm whose it is, and when, such as web=first.img@0s "
            "web=second.img@60s. Left out: the name of the file, and 0s.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="TRACE.parquet", help="Where the trace goes.", show_default=False)],
    format_: _Format = None,
    private: Annotated[
        bool, typer.Option("--private", help="Ids in random order and no names of VMAs: for a trace that you give away.")
    ] = False,
) -> int:
    """Make a trace of memory images: `ksmbatch list importers` says of which."""
    from ksmbatch.importing import import_inputs

    return import_inputs(inputs, out, format_, private=private)


@app.command()
def check(
    trace: Annotated[Path, typer.Argument(metavar="TRACE.parquet", help="What to look at.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: an object.")] = False,
) -> int:
    """Say whether a file is a good trace, and what is in it."""
    from ksmbatch.trace_check import check_trace

    check_trace(trace, as_json, typer.echo)
    return 0


@app.command()
def capture(
    out: Annotated[Path, typer.Option(metavar="TRACE.parquet", help="The trace to write.", show_default=False)],
    pid: Annotated[list[int] | None, typer.Option(metavar="PID", help="This process.", show_default=False)] = None,
    name: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Programs called so.", show_default=False)] = None,
    cgroup: Annotated[list[str] | None, typer.Option(metavar="GROUP", help="All in this group.", show_default=False)] = None,
    qemu: Annotated[bool, typer.Option("--qemu", help="All QEMU guests.")] = False,
    interval: Annotated[str, typer.Option(metavar="TIME", help="From one round to the next.")] = "10s",
    rounds: Annotated[int, typer.Option(metavar="N", min=0, help="How many; 0: until Ctrl-C.")] = 1,
    max_cpu: Annotated[str, typer.Option(metavar="PERCENT", help="Of a core, at the most.")] = "25%",
    all_vmas: Annotated[bool, typer.Option("--all-vmas", help="Also memory that KSM could not take.")] = False,
    mergeable: Annotated[bool, typer.Option("--mergeable", help="Only memory registered with KSM now.")] = False,
    keep_order: Annotated[bool, typer.Option("--keep-order", help="Ids in the order of memcmp, not at random.")] = False,
    fingerprint: Annotated[str, typer.Option(metavar="xxh64|blake2b", help="See docs/privacy.md.")] = "xxh64",
    vma_names: Annotated[bool, typer.Option("--vma-names", help="Keep the names of mapped files.")] = False,
    clear_soft_dirty: Annotated[
        bool, typer.Option("--clear-soft-dirty", help="Read only what was written, by a change to the machine.")
    ] = False,
) -> int:
    """Record the memory of live processes as a trace: which pages are equal, never what they hold."""
    from ksmbatch.capture.request import request_of
    from ksmbatch.capture.session import capture

    request = request_of(
        pids=pid or (),
        names=name or (),
        cgroups=cgroup or (),
        qemu=qemu,
        interval=interval,
        rounds=rounds,
        max_cpu=max_cpu,
        all_vmas=all_vmas,
        mergeable=mergeable,
        keep_order=keep_order,
        fingerprint=fingerprint,
        vma_names=vma_names,
        soft_dirty=clear_soft_dirty,
    )
    return capture(request, out, typer.echo, lambda line: typer.echo(line, err=True))


@app.command("list")
def list_names(
    kind: Annotated[str, typer.Argument(metavar="|".join(KINDS), help="What to list.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: a list of objects.")] = False,
) -> int:
    """Print names, each with a line of explanation."""
    show(entries(kind), as_json, typer.echo)
    return 0


def _status(arguments: Sequence[str]) -> int:
    # not app(): that prints usage errors in several lines, and says nothing on Ctrl-C
    command = typer.main.get_command(app)
    try:
        with command.make_context("ksmbatch", list(arguments)) as context:
            status: int = command.invoke(context)
        sys.stdout.flush()
        return status
    except typer.Exit as done:
        return done.exit_code
    except KsmbatchError as error:
        return _refuse(str(error), error.exit_status)
    except typer.TyperException as error:
        return _refuse(_usage(error))
    except BrokenPipeError:
        # `ksmbatch list knobs | head`: nobody reads on, and Python shall not complain of it when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except OSError as error:
        return _refuse(f"{error.filename or 'ksmbatch'}: {error.strerror or ' '.join(str(error).split())}")
    except MemoryError as error:  # a workload can be well formed and still not fit
        return _refuse(f"not enough memory: {error or 'for this workload'}")
    except KeyboardInterrupt:
        said = _WHEN_INTERRUPTED.get(arguments[0] if arguments else "")
        typer.echo(f"interrupted; {said}" if said else "interrupted", err=True)
        return _INTERRUPTED


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "ksmbatch"
    message = " ".join(error.format_message().split()).rstrip(".")
    return f"{command}: {message[:1].lower()}{message[1:]} (see {command} --help)"


def _refuse(line: str, status: int = _BAD_INPUT) -> int:
    typer.echo(line, err=True)
    return status
