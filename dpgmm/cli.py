"""The command line: `dpgmm compare`, `fit`, `diagnose`, `relabel`, `partition`, `study`, `list`."""

import inspect
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import pandas as pd
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from . import __version__, data, diagnostics, draws, methods, partitions, relabelling
from .data import datasets
from .errors import InputError
from .labels import summary as labelling
from .methods import budgets
from .methods.fitting import fit as fit_posterior
from .model import loading
from .report import described, files, run_folder, terminal

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = terminal.console
OTHERWISE = {"data": "as the first argument", "truncation": "by --truncation"}
"""How to give what is no option of --set."""

DataArgument = Annotated[str, typer.Argument(help="Name of a data set, or a .csv/.npy file of numbers.")]
Model = Annotated[str, typer.Option(help="Name of a model, or the path of a model file.")]
Truncation = Annotated[
    int | None, typer.Option(help="Number of components K; by default from 20 to 50, by the points and the prior.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Option of the model, such as covariance=diagonal."),
]
Columns = Annotated[str | None, typer.Option(help="Columns of the file, separated by commas.")]
Seed = Annotated[int, typer.Option(help="Same seed, same machine: same numbers.")]
Chains = Annotated[int | None, typer.Option(min=1, help="Chains of samplers; by default 4.")]
Warmup = Annotated[int | None, typer.Option(min=1, help="Warm-up transitions a chain; by default 1,000.")]
Draws = Annotated[int | None, typer.Option("--draws", min=4, help="Draws a chain, and a guide; by default 1,000.")]
Restarts = Annotated[int | None, typer.Option(min=1, help="Restarts of MAP, by default 16; guides take a quarter.")]
Option = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="METHOD.NAME=VALUE", help="Option of a method; `dpgmm list METHOD` names them."),
]
Compression = Annotated[bool, typer.Option(help="Certified compression of one-dimensional data.")]
Quick = Annotated[bool, typer.Option("--quick", help="A short run, to see that all works; what is given besides wins.")]


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"dpgmm {__version__}", highlight=False)
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
    data_set: Annotated[str, typer.Argument(metavar="[DATA]", help="Data set name or file.")] = "four_gaussians",
    model: Model = "stick_breaking",
    methods_: Annotated[
        str | None, typer.Option("--methods", help="Methods, separated by commas; by default those that suit the data.")
    ] = None,
    truncation: Truncation = None,
    set_: Set = None,
    columns: Columns = None,
    chains: Chains = None,
    warmup: Warmup = None,
    draws_: Draws = None,
    restarts: Restarts = None,
    option: Option = None,
    seed: Seed = 0,
    compression: Compression = True,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/DATA-TIME.")] = None,
    quick: Quick = False,
) -> None:
    """Fit one model by several methods, print one table, and leave a run folder with report.html."""
    posterior = _posterior(model, _data(data_set, columns), truncation, set_)
    names = methods.suited(posterior) if methods_ is None else _methods(methods_)
    for name in names:
        methods.check(name, posterior)
    folder = _folder(out, posterior.data.name)
    given = budgets.Budget(chains, warmup, draws_, restarts)
    options = budgets.of_all(names, given, option or [], quick)
    settings = {
        "data": data_set,
        "model": model,
        "model_options": posterior.options,
        "methods": names,
        "seed": seed,
        "compression": compression,
        "quick": quick,
        "method_options": options,
    }
    trees, start = {}, time.perf_counter()
    try:
        for name in names:
            trees[name] = _fit(posterior, name, seed, compression, options[name])
            draws.save(trees[name], folder / f"{name}.nc")
    except KeyboardInterrupt:
        console.print(f"[yellow]Stopped. Finished methods are saved in {folder}: {', '.join(trees) or 'none'}.[/]")
        if not trees:
            raise
    run_folder.leave(folder, trees, settings | {"wall_seconds": time.perf_counter() - start})


@app.command()
def fit(
    data_set: DataArgument,
    method: Annotated[str, typer.Option(help="Name of a method.")] = "nuts",
    model: Model = "stick_breaking",
    truncation: Truncation = None,
    set_: Set = None,
    columns: Columns = None,
    chains: Chains = None,
    warmup: Warmup = None,
    draws_: Draws = None,
    restarts: Restarts = None,
    option: Option = None,
    seed: Seed = 0,
    compression: Compression = True,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("draws.nc"),
    quick: Quick = False,
) -> None:
    """Fit one model by one method and save its draws."""
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it, or give --out another")
    posterior = _posterior(model, _data(data_set, columns), truncation, set_)
    if len(names := _methods(method)) > 1:
        raise InputError(f"fit takes one method, found {', '.join(names)}; `dpgmm compare` takes several")
    [name] = names
    options = budgets.of_all(names, budgets.Budget(chains, warmup, draws_, restarts), option or [], quick)
    tree = _fit(posterior, name, seed, compression, options[name])
    draws.save(tree, out)
    terminal.show(tree, diagnostics.diagnose(tree))
    console.print(f"Saved {out}")


@app.command()
def diagnose(file: Annotated[Path, typer.Argument(help="A .nc file of draws.")]) -> None:
    """Label-invariant diagnostics of saved draws, raw ones beside them, and a verdict."""
    tree = draws.load(file)
    diagnosis = diagnostics.diagnose(tree)
    terminal.print_table(diagnosis.table.reset_index(), "Diagnostics")
    terminal.show(tree, diagnosis)


@app.command()
def relabel(
    file: Annotated[Path, typer.Argument(help="A .nc file of draws.")],
    method: Annotated[str, typer.Option(help=f"One of {', '.join(relabelling.METHODS)}.")] = "ecr_iterative_1",
    out: Annotated[Path | None, typer.Option(help="File to write; by default FILE with -relabelled.")] = None,
) -> None:
    """Give the components of all draws one labelling, and save the aligned draws."""
    tree = draws.load(file)
    few = labelling.few_points(tree)
    found = relabelling.relabel(tree, method, points=few.points, point_weights=few.weights)
    path = draws.save(found.draws, out or file.with_name(f"{file.stem}-relabelled.nc"))
    if tree["posterior"].sizes["draw"] >= 4:
        terminal.print_table(labelling.r_hats(tree, found), f"R-hat, raw and relabelled by {found.method}")
    console.print(f"Objective {found.objective:,.6g}; {found.ties} draws with several permutations equally good.")
    console.print(f"Saved {path}")


@app.command()
def partition(
    file: Annotated[Path, typer.Argument(help="A .nc file of draws.")],
    loss: Annotated[str, typer.Option(help=f"One of {', '.join(partitions.LOSSES)}.")] = "vi",
    limit: Annotated[int, typer.Option(min=2, help="Observations at most; of more, a random sample.")] = 1_000,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="CSV file to write; by default FILE with -partition.")] = None,
) -> None:
    """The partition of least expected loss under the draws, its credible ball, and who is sure of what."""
    found = partitions.partition(draws.load(file), loss, limit=limit, seed=seed)
    columns = {"observation": found.observations, "cluster": found.partition.values}
    frame = pd.DataFrame(columns | {"uncertainty": found.uncertainty.values})
    path = out or file.with_name(f"{file.stem}-partition.csv")
    files.write_table(path, frame)
    table = frame.groupby("cluster").agg(observations=("cluster", "size"), mean_uncertainty=("uncertainty", "mean"))
    terminal.print_table(table.reset_index(), f"Partition of least expected {loss}")
    ball = found.credible_ball
    console.print(f"{found.num_clusters} clusters; expected loss {found.expected_loss:.6g} {found.units}.")
    console.print(f"{ball.level:.0%} credible ball ({ball.loss.name}): radius {ball.radius:.4g} {ball.loss.units}.")
    for note in found.notes:
        console.print(f"Note: {note}.")
    console.print(f"Saved {path}")


@app.command("list")
def list_(
    name: Annotated[
        str | None, typer.Argument(help="A method or model, by name or path, whose options to show.")
    ] = None,
) -> None:
    """What there is: models, methods, data sets, studies; or the options of one method or model."""
    if name is not None:
        what, function = described.named(name)
        terminal.print_table(described.options(function), f"Options of {what} {name}")
        return
    for what, entries in {
        "models": loading.names("models"),
        "methods": methods.names(),
        "methods of other libraries": methods.peers(),
        "data sets": list(datasets.REGISTRY),
        "studies": loading.names("comparisons"),
    }.items():
        console.print(f"[bold]{what}[/]: {', '.join(entries)}")


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="Name of a study, or the path of a file.")],
    out: Annotated[Path, typer.Option(help="Folder for what it leaves.")] = Path("runs/study"),
    methods_: Annotated[
        str | None, typer.Option("--methods", help="Methods by name or path, of a study that compares methods.")
    ] = None,
    quick: Quick = False,
) -> None:
    """Ask one question of comparisons/ and answer it with numbers."""
    run = loading.load_study(name)
    given = {}
    if methods_ is not None:
        if "methods" not in inspect.signature(run).parameters:
            raise InputError(f"study {name} takes no --methods; inference_methods does")
        given["methods"] = _methods(methods_)
    out.mkdir(parents=True, exist_ok=True)
    run(out, quick=quick, **given)


def main() -> None:
    """Entry point: float64, a compilation cache, one line and code 2 for an error that the user can mend."""
    jax.config.update("jax_enable_x64", True)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dpgmm" / "jax"
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    try:
        app(standalone_mode=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)


def _data(name: str, columns: str | None) -> data.Dataset:
    if name in datasets.REGISTRY:
        return datasets.REGISTRY[name]()
    if not Path(name).exists() and not Path(name).suffix:
        raise InputError(f"no data set {name!r}: there are {', '.join(datasets.REGISTRY)}; or give a file of numbers")
    return data.read(name, columns.split(",") if columns else None)


def _model_options(settings: list[str] | None) -> dict[str, Any]:
    """Options of the model by name, from NAME=VALUE: numbers where they are numbers."""
    options = {}
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not (name.isidentifier() and equals and value):
            raise InputError(f"--set {setting}: give NAME=VALUE, such as --set covariance=diagonal")
        if name in ("data", "truncation"):
            raise InputError(
                f"--set {setting}: no option of the model's prior; give the {name} itself, {OTHERWISE[name]}"
            )
        try:
            options[name] = float(value)
        except ValueError:
            options[name] = value
    return options


def _posterior(model: str, data_set: data.Dataset, truncation: int | None, settings: list[str] | None):
    """The posterior, its truncation said in a line."""
    given = {} if truncation is None else {"truncation": truncation}
    posterior = loading.load_model(model)(data_set, **given, **_model_options(settings))
    if "truncation" in posterior.options:
        why = "as given" if given else "by the number of points and the prior; --truncation gives another"
        console.print(f"{posterior.options['truncation']} components, {why}.")
    return posterior


def _methods(names: str) -> list[str]:
    """Names of the methods asked for by name or by the path of a file."""
    chosen: dict[str, str] = {}
    for asked in [name.strip() for name in names.split(",") if name.strip()] or [names]:
        name = methods.find(asked).name
        if chosen.setdefault(name, asked) != asked:
            raise InputError(f"--methods: {chosen[name]} and {asked} are both called {name!r}; give one another name")
    return list(chosen)


def _folder(out: Path | None, name: str) -> Path:
    folder = out or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give --out a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fit(posterior, name: str, seed: int, compression: bool, options: dict[str, Any]):
    columns = TextColumn(f"[bold]{name:>5}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[note]}")
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=None, note="compiling")

        def progress(done: int, total: int, note: str) -> None:
            bar.update(task, completed=done, total=total, note=note)

        tree = fit_posterior(posterior, name, seed=seed, compression=compression, progress=progress, **options)
        if bar.tasks[0].total is None:  # A method that reports nothing.
            bar.update(task, completed=1, total=1, note="done")
        return tree


if __name__ == "__main__":
    main()
