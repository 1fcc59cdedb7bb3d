"""The command line: `dpgmm compare`, `fit`, `diagnose`, `relabel`, `partition`, `predict`, and so on."""

import io
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from .commands import options as o
from .errors import InputError

HELP = """Compare inference methods for Dirichlet-process Gaussian mixtures.

Exit codes: 0 done, 2 wrong input, told in one line, 130 stopped by Ctrl-C or SIGTERM.
"""
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=HELP)
# What a command does is imported when it runs: `--help` waits for neither JAX nor pandas.


def _version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        print(f"dpgmm {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What all commands share: nothing but the version."""


@app.command()
def compare(
    data_set: o.DataArgument = "four_gaussians",
    model: o.Models = None,
    methods: o.Methods = None,
    truncation: o.Truncation = None,
    set_: o.Set = None,
    columns: o.Columns = None,
    weights: o.Weights = None,
    drop_missing: o.DropMissing = False,
    missing: o.Missing = None,
    chains: o.Chains = None,
    warmup: o.Warmup = None,
    draws: o.Draws = None,
    restarts: o.Restarts = None,
    option: o.Option = None,
    seed: o.Seed = 0,
    compression: o.Compression = True,
    holdout: o.Holdout = None,
    time_budget: o.TimeBudget = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/DATA-TIME.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that --out holds.")] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this folder, as it was asked for; nothing else is read.")
    ] = None,
    quick: o.Quick = False,
    json: o.Json = False,
) -> None:
    """Fit one model, or several, by several methods, print one table, and leave a run folder with report.html.

    Examples: `dpgmm compare galaxies`, `dpgmm compare patients.csv --columns age,dose --methods nuts,gibbs`,
    `dpgmm compare galaxies --model stick_breaking --model ./my_model.py`,
    `dpgmm compare --resume runs/patients-20260101-120000`.
    """
    from .commands import comparing_models, document

    if resume is not None:
        return document.say(lambda: comparing_models.resume(resume), as_json=json)
    models = model or ["stick_breaking"]
    several = (methods, truncation, set_, columns, weights, drop_missing, missing, chains, warmup, draws, restarts)
    request = comparing_models.Request(
        data_set, models[0], *several, option, seed, compression, holdout, time_budget, quick
    )
    document.say(lambda: comparing_models.compare(request, models, out, overwrite=overwrite), as_json=json)


@app.command()
def fit(
    data_set: o.DataArgument,
    method: Annotated[str, typer.Option(help="Name of a method.")] = "nuts",
    model: o.Model = "stick_breaking",
    truncation: o.Truncation = None,
    set_: o.Set = None,
    columns: o.Columns = None,
    weights: o.Weights = None,
    drop_missing: o.DropMissing = False,
    missing: o.Missing = None,
    chains: o.Chains = None,
    warmup: o.Warmup = None,
    draws: o.Draws = None,
    restarts: o.Restarts = None,
    option: o.Option = None,
    seed: o.Seed = 0,
    compression: o.Compression = True,
    time_budget: o.TimeBudget = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("draws.nc"),
    quick: o.Quick = False,
    json: o.Json = False,
) -> None:
    """Fit one model by one method and save its draws.

    Example: `dpgmm fit galaxies --method gibbs --out galaxies.nc`.
    """
    from .commands import comparing, document

    several = (method, truncation, set_, columns, weights, drop_missing, missing, chains, warmup, draws, restarts)
    request = comparing.Request(data_set, model, *several, option, seed, compression, None, time_budget, quick)
    document.say(lambda: comparing.fit(request, out), as_json=json)


@app.command()
def diagnose(file: o.DrawsFile, names: o.Names = None, json: o.Json = False) -> None:
    """Label-invariant diagnostics of saved draws, raw ones beside them, and a verdict.

    Examples: `dpgmm diagnose runs/patients/nuts.nc`, `dpgmm diagnose stan.csv --names weights=theta,means=mu,scales=sigma`.
    """
    from .commands import document, saved

    document.say(lambda: saved.diagnose(file, names), as_json=json)


@app.command()
def relabel(
    file: o.DrawsFile,
    method: Annotated[str, typer.Option(help="Relabelling method; `dpgmm list` names them.")] = "ecr_iterative_1",
    out: Annotated[Path | None, typer.Option(help="File to write; by default FILE with -relabelled.")] = None,
    names: o.Names = None,
    json: o.Json = False,
) -> None:
    """Give the components of all draws one labelling, and save the aligned draws.

    Example: `dpgmm relabel runs/patients/nuts.nc --method stephens`.
    """
    from .commands import document, saved

    document.say(lambda: saved.relabel(file, method, out, names), as_json=json)


@app.command()
def partition(
    file: o.DrawsFile,
    summary: Annotated[
        str,
        typer.Option(
            help="point: the partition of least expected loss, with its credible ball; chips: the most observations whose "
            "clustering holds with probability --level; wasabi: several partitions with weights; cbi: modes and p-values."
        ),
    ] = "point",
    loss: o.Loss = "vi",
    level: Annotated[float, typer.Option(help="Posterior probability of the ball, sub-partition or set.")] = 0.95,
    num: Annotated[int, typer.Option(min=1, help="Partitions of wasabi, modes of cbi.")] = 4,
    limit: o.Limit = 1_000,
    seed: o.Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="CSV file to write; by default FILE with -partition, -chips, -wasabi or -cbi.")
    ] = None,
    names: o.Names = None,
    json: o.Json = False,
) -> None:
    """What stands for all partitions of the draws, without labels: one, a sure part of one, several, or a set of them.

    Example: `dpgmm partition runs/patients/nuts.nc --summary chips --level 0.9`.
    """
    from .commands import document, saved

    several = (summary, loss, level, num, limit, seed)
    document.say(lambda: saved.partition(file, *several, out, names), as_json=json)


@app.command()
def predict(
    file: o.DrawsFile,
    new: Annotated[Path, typer.Argument(metavar="NEW", help="A table with the columns that the draws are of.")],
    missing: o.Missing = None,
    loss: o.Loss = "vi",
    limit: o.Limit = 1_000,
    seed: o.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="CSV file to write; by default NEW with -predicted.")] = None,
    json: o.Json = False,
) -> None:
    """New rows: which cluster each would join, or none, and its log predictive density, beside all columns of the table.

    Example: `dpgmm predict runs/patients/nuts.nc new_patients.csv`.
    """
    from .commands import document, saved

    document.say(lambda: saved.predict(file, new, missing, loss, limit, seed, out), as_json=json)


@app.command()
def assign(
    file: o.DrawsFile,
    table: Annotated[Path | None, typer.Argument(metavar="[TABLE]", help="The table that was fitted.")] = None,
    missing: o.Missing = None,
    loss: o.Loss = "vi",
    limit: o.Limit = 1_000,
    seed: o.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="CSV file to write; by default TABLE with -assigned.")] = None,
    json: o.Json = False,
) -> None:
    """The rows that were fitted: cluster and uncertainty of each, beside all columns of the table.

    Example: `dpgmm assign runs/patients/nuts.nc patients.csv`.
    """
    from .commands import document, saved

    document.say(lambda: saved.assign(file, table, missing, loss, limit, seed, out), as_json=json)


@app.command("compare-models")
def compare_models(
    files: Annotated[list[Path], typer.Argument(metavar="A.nc B.nc ...", help="Draws of models of the same data.")],
    rows: Annotated[int, typer.Option(min=2, help="Rows left out, one by one; of more, a random sample.")] = 1_000,
    out: Annotated[Path | None, typer.Option(help="CSV file to write the table to.")] = None,
    json: o.Json = False,
) -> None:
    """Models of the same data by their leave-one-out predictions: elpd, differences, and weights for stacking.

    Example: `dpgmm compare-models runs/sticks/nuts.nc runs/dirichlet/nuts.nc`.
    """
    from .commands import document, saved

    document.say(lambda: saved.compare_models(files, rows, out), as_json=json)


@app.command("list")
def list_(
    name: Annotated[
        str | None, typer.Argument(help="A method or model, by name or path, whose options to show.")
    ] = None,
    json: o.Json = False,
) -> None:
    """What there is: models, methods, data sets, studies; or the options of one method or model.

    Examples: `dpgmm list`, `dpgmm list nuts`, `dpgmm list ./my_model.py`.
    """
    if name is None:
        from .commands import catalogue

        catalogue.show(as_json=json)
        return
    from .commands import document, listing

    document.say(lambda: listing.show(name), as_json=json)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="Name of a study, or the path of a file.")],
    out: Annotated[Path, typer.Option(help="Folder for what it leaves.")] = Path("runs/study"),
    methods: Annotated[
        str | None, typer.Option("--methods", help="Methods by name or path, of a study that compares methods.")
    ] = None,
    executor: o.Executor = None,
    quick: o.Quick = False,
) -> None:
    """Ask one question of comparisons/ and answer it with numbers.

    Examples: `dpgmm study label_switching --quick`, `dpgmm study calibration --executor processes:4`.
    """
    from .commands import listing

    listing.study(name, out, methods, executor, quick=quick)


def main() -> None:
    """Entry point: float64, a compilation cache, one line and code 2 for an error that the user can correct."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dpgmm" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    os.environ.setdefault("JAX_ENABLE_X64", "true")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):  # A terminal of few characters shows a question mark for the others.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        try:
            app(standalone_mode=True)
        finally:
            sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    except OSError as error:  # A full disk, a pipe that was closed.
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        os._exit(2)  # What is left in buffers cannot be written either.


if __name__ == "__main__":
    main()
