"""The command line: `dpgmm compare`, `fit`, `diagnose`, `relabel`, `partition`, `study`, `list`."""

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
from .methods.fitting import fit as fit_posterior
from .model import loading
from .report import run_folder, terminal

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = terminal.console
QUICK = {
    "map": {"restarts": 4, "steps": 600},
    "svi": {"restarts": 2, "max_steps": 3_000, "draws_per_restart": 250},
    "nuts": {"chains": 2, "warmup": 100, "draws_per_chain": 100, "thin": 2},
    "gibbs": {"chains": 2, "warmup": 20, "draws_per_chain": 50},
    "blocked_gibbs": {"chains": 2, "warmup": 20, "draws_per_chain": 50},
    "cavi": {"restarts": 2, "moves": 20, "draws_per_restart": 250},
}

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
Chains = Annotated[int, typer.Option(min=1, help="Chains of NUTS and Gibbs.")]
Warmup = Annotated[int, typer.Option(min=1, help="Warm-up transitions a chain.")]
Draws = Annotated[int, typer.Option(min=4, help="Draws a chain, and a guide.")]
Restarts = Annotated[int, typer.Option(min=1, help="Restarts of MAP; SVI takes a quarter.")]
Compression = Annotated[bool, typer.Option(help="Certified compression of one-dimensional data.")]
Quick = Annotated[bool, typer.Option("--quick", help="A short run, mostly compiling: to see that all works.")]


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
    chains: Chains = 4,
    warmup: Warmup = 1_000,
    draws_: Annotated[int, typer.Option("--draws", min=4, help="Draws a chain, and a guide.")] = 1_000,
    restarts: Restarts = 16,
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
    options = _options(quick, chains, warmup, draws_, restarts)
    settings = {
        "data": data_set,
        "model": model,
        "model_options": posterior.options,
        "methods": names,
        "seed": seed,
        "compression": compression,
        "quick": quick,
        "method_options": {n: options.get(n, {}) for n in names},
    }
    trees, start = {}, time.perf_counter()
    try:
        for name in names:
            trees[name] = _fit(posterior, name, seed, compression, options.get(name, {}))
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
    chains: Chains = 4,
    warmup: Warmup = 1_000,
    draws_: Annotated[int, typer.Option("--draws", min=4, help="Draws a chain, and a guide.")] = 1_000,
    restarts: Restarts = 16,
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
    tree = _fit(posterior, name, seed, compression, _options(quick, chains, warmup, draws_, restarts).get(name, {}))
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
    frame.to_csv(path, index=False)
    table = frame.groupby("cluster").agg(observations=("cluster", "size"), mean_uncertainty=("uncertainty", "mean"))
    terminal.print_table(table.reset_index(), f"Partition of least expected {loss}")
    ball = found.credible_ball
    console.print(f"{found.num_clusters} clusters; expected loss {found.expected_loss:.6g} {found.units}.")
    console.print(f"{ball.level:.0%} credible ball ({ball.loss.name}): radius {ball.radius:.4g} {ball.loss.units}.")
    for note in found.notes:
        console.print(f"Note: {note}.")
    console.print(f"Saved {path}")


@app.command("list")
def list_() -> None:
    """What there is: models, methods, data sets, studies."""
    for what, entries in {
        "models": loading.names("models"),
        "methods": list(methods.REGISTRY),
        "data sets": list(datasets.REGISTRY),
        "studies": loading.names("comparisons"),
    }.items():
        console.print(f"[bold]{what}[/]: {', '.join(entries)}")


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="Name of a study, or the path of a file.")],
    out: Annotated[Path, typer.Option(help="Folder for what it leaves.")] = Path("runs/study"),
    quick: Quick = False,
) -> None:
    """Ask one question of comparisons/ and answer it with numbers."""
    run = loading.load_study(name)
    out.mkdir(parents=True, exist_ok=True)
    run(out, quick=quick)


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
    chosen = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in chosen or [names]:
        methods.find(name)
    return chosen


def _folder(out: Path | None, name: str) -> Path:
    folder = out or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give --out a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _options(quick: bool, chains: int, warmup: int, kept: int, restarts: int) -> dict[str, dict[str, Any]]:
    if quick:
        return QUICK
    return {
        "map": {"restarts": restarts},
        "svi": {"restarts": max(2, restarts // 4), "draws_per_restart": kept},
        "cavi": {"restarts": max(2, restarts // 4), "draws_per_restart": kept},
        **{
            m: {"chains": chains, "warmup": warmup, "draws_per_chain": kept} for m in ("nuts", "gibbs", "blocked_gibbs")
        },
    }


def _fit(posterior, name: str, seed: int, compression: bool, options: dict[str, Any]):
    columns = TextColumn(f"[bold]{name:>5}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[note]}")
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=None, note="compiling")

        def progress(done: int, total: int, note: str) -> None:
            bar.update(task, completed=done, total=total, note=note)

        return fit_posterior(posterior, name, seed=seed, compression=compression, progress=progress, **options)


if __name__ == "__main__":
    main()
