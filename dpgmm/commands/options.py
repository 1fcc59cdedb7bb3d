"""Options that several commands take, as typer wants them described. Nothing here imports JAX: `--help` is quick."""

from pathlib import Path
from typing import Annotated

import typer

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Name of a data set, or a file: a table, .npy, .npz, Parquet, packed or not; - reads a pipe.",
    ),
]
Model = Annotated[str, typer.Option(help="Name of a model, or the path of a model file.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Name of a model, or the path of a model file; by default stick_breaking. Given several times, models are "
        "compared.",
    ),
]
Truncation = Annotated[
    int | None, typer.Option(help="Number of components K; by default from 20 to 50, by the points and the prior.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Option of the model, such as covariance=diagonal."),
]
Columns = Annotated[str | None, typer.Option(help="Columns of the file, by name or position, separated by commas.")]
Weights = Annotated[str | None, typer.Option("--weights", help="Column of the points' weights.")]
DropMissing = Annotated[bool, typer.Option("--drop-missing", help="Leave out rows that lack a value.")]
Missing = Annotated[
    list[str] | None, typer.Option("--missing", metavar="VALUE", help="What stands for a missing value, such as -200.")
]
Seed = Annotated[int, typer.Option(help="Same seed, same machine: same numbers.")]
Chains = Annotated[int | None, typer.Option(min=1, help="Chains of samplers; by default 4.")]
Warmup = Annotated[int | None, typer.Option(min=1, help="Warm-up transitions a chain; by default 1,000.")]
Draws = Annotated[int | None, typer.Option("--draws", min=4, help="Draws a chain, and a guide; by default 1,000.")]
Restarts = Annotated[int | None, typer.Option(min=1, help="Restarts of MAP, by default 16; guides take a quarter.")]
Option = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="METHOD.NAME=VALUE", help="Option of a method; `dpgmm list METHOD` names them."),
]
DrawsFile = Annotated[Path, typer.Argument(help="A file of draws: .nc, or CmdStan's .csv or .npz with --names.")]
Loss = Annotated[str, typer.Option(help="Loss of the partition; `dpgmm list` names them.")]
Limit = Annotated[int, typer.Option(min=2, help="Observations of the partition at most; of more, a random sample.")]
Compression = Annotated[bool, typer.Option(help="Certified compression of one-dimensional data.")]
Quick = Annotated[bool, typer.Option("--quick", help="A short run, to see that all works; what is given besides wins.")]
Methods = Annotated[
    str | None, typer.Option("--methods", help="Methods, separated by commas; by default those that suit the data.")
]
Holdout = Annotated[
    float | None, typer.Option(help="Share of rows, by --seed, held out of all methods to compare predictions on.")
]
TimeBudget = Annotated[
    str | None,
    typer.Option("--time-budget", metavar="TIME", help="Time for each method, such as 90s, 10m or 2h; it then ends."),
]
Executor = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="Run the fits of a study that times none side by side: processes:4, threads:4 or dask://HOST:PORT.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output; what people read goes to standard error.")
]
Names = Annotated[
    str | None,
    typer.Option(
        "--names",
        metavar="ROLE=NAME,...",
        help="Of another sampler: weights=theta,means=mu,scales=sigma,points=FILE",
    ),
]
