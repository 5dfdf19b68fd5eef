"""The command line: words to calls, calls to exit statuses, errors to one line on standard error.

It computes nothing; every import of a part that takes time stands inside the command that needs it.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from ksmbatch.errors import KsmbatchError
from ksmbatch.listing import KINDS, Kind

BAD_INPUT: Final = 2

app = typer.Typer(
    name="ksmbatch",
    help="Simulate Linux KSM on NUMA hosts: what merging saves and what it costs, for many settings at once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich alone takes half of the time that --help has
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to simulate.", show_default=False)]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the configuration; a TOML value or a bare word.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where results go.")]
Paths = Annotated[
    list[Path],
    typer.Argument(metavar="PATH...", help="Scenarios, lists of scenarios, recordings, or folders of these.", show_default=False),
]
KernelName = Annotated[str | None, typer.Option(metavar="K", help="Whose ksmd; by default a recording's own, else 6.12.")]


@app.command()
def run(config: ConfigFile, overrides: Overrides = [], out: Out = Path("results")) -> int:  # noqa: B006 - typer copies it
    """Simulate one host; print a summary and write results."""
    from ksmbatch.config import load
    from ksmbatch.sweep import run_single

    return run_single(load(config, overrides), out)


@app.command()
def sweep(
    config: ConfigFile,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    out: Out = Path("results"),
    jobs: Annotated[int | None, typer.Option(metavar="N", help="Runs at a time; by default one per core.", show_default=False)] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard all earlier results in DIR.")] = False,
) -> int:
    """Simulate every point of the grid in [sweep]; print the tradeoffs. The same command again resumes."""
    from ksmbatch.config import load
    from ksmbatch.sweep import run_sweep

    return run_sweep(load(config, overrides), out, jobs, fresh)


@app.command()
def replay(
    paths: Paths,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where recordings go.", show_default=False)],
    kernel: KernelName = None,
    policy: Annotated[str, typer.Option(metavar="NAME", help="What becomes of KSM pages that move.")] = "mainline",
    tables: Annotated[bool, typer.Option("--tables/--no-tables", help="Write page tables, or leave them empty.")] = True,
) -> int:
    """Run scenarios step by step and write recordings of the simulated kernel."""
    from ksmbatch.replay import replay_paths

    return replay_paths(paths, kernel, policy, out, tables)


@app.command()
def conform(paths: Paths, kernel: KernelName = None) -> int:
    """Replay recordings and compare every field of every step with them."""
    from ksmbatch.replay import conform_paths

    return conform_paths(paths, kernel, typer.echo)


@app.command("list")
def list_names(
    kind: Annotated[Kind, typer.Argument(metavar="|".join(KINDS), help="What to list.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: one list of objects.")] = False,
) -> int:
    """Print the names of a kind, each with a line of explanation."""
    from ksmbatch.listing import entries, show

    show(entries(kind), as_json, typer.echo)
    return 0
