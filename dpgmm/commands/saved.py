"""Commands on files of draws: what is computed from them, printed and saved."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from xarray import DataTree

from .. import diagnostics, draws, partitions, relabelling
from ..diagnostics import elpd
from ..errors import InputError
from ..labels import summary
from ..report import files, own_table, terminal
from . import asked
from .document import Document

console = terminal.console


def opened(file: Path, names: str | None = None) -> DataTree:
    """Draws in a file: in our schema, or of another sampler by `names` or by what variables are usually called."""
    if names is None:
        try:
            return draws.load(file)
        except InputError as error:
            ours = error
        try:
            tree = draws.from_draws(file)
        except InputError:
            raise ours from None
        if not tree.attrs["notes"]:  # It has our names, and something is wrong with it.
            raise ours
    else:
        tree = draws.from_draws(file, **asked.names(names))
    if tree.attrs["notes"]:
        print(f"{file}: {tree.attrs['notes']}.", file=sys.stderr)
    return tree


def diagnose(file: Path, names: str | None) -> Document:
    """The table of diagnostics, and the verdict."""
    tree = draws.check(opened(file, names), str(file))
    diagnosis = diagnostics.diagnose(tree)
    terminal.print_table(diagnosis.table.reset_index(), "Diagnostics")
    told = terminal.show(tree, diagnosis)
    return {"method": tree.attrs.get("method"), **told, "diagnostics": diagnosis.table, "chains": diagnosis.chains}


def relabel(file: Path, method: str, out: Path | None, names: str | None) -> Document:
    """R-hat before and after, and a file of the aligned draws."""
    tree = draws.check(opened(file, names), str(file))
    few = summary.few_points(tree)
    found = relabelling.relabel(tree, method, points=few.points, point_weights=few.weights)
    path = draws.save(found.draws, out or file.with_name(f"{file.stem}-relabelled.nc"))
    r_hat = summary.r_hats(tree, found) if tree["posterior"].sizes["draw"] >= 4 else None
    if r_hat is not None:
        terminal.print_table(r_hat, f"R-hat, raw and relabelled by {found.method}")
    console.print(f"Objective {found.objective:,.6g}; {found.ties} draws with several permutations equally good.")
    console.print(f"Saved {path}")
    told = {"method": found.method, "objective": found.objective, "ties": found.ties}
    return told | {"r_hat": r_hat, "saved": str(path)}


def partition(
    file: Path,
    summary: str,
    loss: str,
    level: float,
    num: int,
    limit: int,
    seed: int,
    out: Path | None,
    names: str | None,
) -> Document:
    """A summary of the partitions of the draws, in numbers and as a table of observations."""
    if summary not in SUMMARIES:
        raise InputError(f"no summary {summary!r}; choose one of {', '.join(SUMMARIES)}")
    tree = opened(file, names)
    columns, table, numbers, told, notes = SUMMARIES[summary](tree, loss, level, num, limit, seed)
    ending = "partition" if summary == "point" else summary
    path = files.write_table(out or file.with_name(f"{file.stem}-{ending}.csv"), pd.DataFrame(columns))
    for line in told:
        console.print(line)
    for note in notes:
        console.print(f"Note: {note}.")
    console.print(f"Saved {path}")
    found = {"summary": summary, **numbers, "table": table, "observations": pd.DataFrame(columns)}
    return found | {"notes": list(notes), "saved": str(path)}


def _point(tree: DataTree, loss: str, level: float, num: int, limit: int, seed: int):
    """The partition of least expected loss and its credible ball."""
    found = partitions.partition(tree, loss, level=level, limit=limit, seed=seed)
    columns = {"observation": found.observations, "cluster": found.partition.values}
    frame = pd.DataFrame(columns | {"uncertainty": found.uncertainty.values})
    table = frame.groupby("cluster").agg(observations=("cluster", "size"), mean_uncertainty=("uncertainty", "mean"))
    table = table.reset_index()
    terminal.print_table(table, f"Partition of least expected {loss}")
    ball = found.credible_ball
    numbers = {"loss": loss, "clusters": found.num_clusters, "expected_loss": found.expected_loss, "units": found.units}
    numbers |= {"ball": {"level": ball.level, "loss": ball.loss.name, "radius": ball.radius, "units": ball.loss.units}}
    told = (
        f"{found.num_clusters} clusters; expected loss {found.expected_loss:.6g} {found.units}.",
        f"{ball.level:.0%} credible ball ({ball.loss.name}): radius {ball.radius:.4g} {ball.loss.units}.",
    )
    return frame, table, numbers, told, found.notes


def _chips(tree: DataTree, loss: str, level: float, num: int, limit: int, seed: int):
    """The largest sub-partition of that probability."""
    found = partitions.chips(tree, level, limit=limit, seed=seed)
    table = found.table()
    terminal.print_table(table, f"Largest sub-partition that holds with probability {level:g} (CHIPS)")
    numbers = {"level": level, "size": found.size, "clusters": found.num_clusters}
    numbers |= {"probability": found.probability, "probability_mcse": found.probability_mcse}
    told = (
        f"{found.size} of {len(found.observations)} observations in {found.num_clusters} clusters; holds in "
        f"{found.probability:.4g} of the draws (standard error {found.probability_mcse:.2g}). The others: -1.",
    )
    columns = {"observation": found.observations, "cluster": found.partition.values}
    return columns, table, numbers, told, found.notes


def _wasabi(tree: DataTree, loss: str, level: float, num: int, limit: int, seed: int):
    """Several partitions with weights."""
    found = partitions.wasabi(tree, num, loss, limit=limit, seed=seed)
    table = found.table()
    terminal.print_table(table, f"Partitions that stand for the draws together, by {loss} (WASABI)")
    numbers = {"loss": loss, "distance": found.distance, "units": found.units}
    columns = {f"particle_{k}": row for k, row in enumerate(found.partitions.values)}
    told = (f"Wasserstein distance to the draws {found.distance:.6g} {found.units}.",)
    return {"observation": found.observations} | columns, table, numbers, told, found.notes


def _cbi(tree: DataTree, loss: str, level: float, num: int, limit: int, seed: int):
    """Modes of the kernel density, and p-values."""
    found = partitions.cbi(tree, num, loss, limit=limit, seed=seed)
    table = found.table()
    terminal.print_table(table, f"Modes of the density of the draws, by {loss} (CBI)")
    size = len(found.observations)
    one, alone = found.p_value(np.zeros(size, int)), found.p_value(np.arange(size))
    numbers = {"loss": loss, "level": level, "p_value_of_one_cluster": one, "p_value_of_all_apart": alone}
    told = (
        f"Conformal p-values: {one:.3g} of one cluster, {alone:.3g} of all apart; "
        f"a partition is in the {level:.0%} credible set where its own is {1 - level:.3g} or more.",
    )
    columns = {f"mode_{k}": row for k, row in enumerate(found.modes.values)}
    return {"observation": found.observations} | columns, table, numbers, told, found.notes


SUMMARIES = {"point": _point, "chips": _chips, "wasabi": _wasabi, "cbi": _cbi}


def predict(
    file: Path, new: Path, missing: list[str] | None, loss: str, limit: int, seed: int, out: Path | None
) -> Document:
    """A table of new rows with cluster and density beside them."""
    tree = draws.load(file)
    own, points = own_table.read(new, tree, missing or ())
    found = partitions.predict(tree, points, loss=loss, limit=limit, seed=seed).table()
    path = own.write(out or new.with_name(f"{new.stem}-predicted.csv"), found)
    title = "New rows by cluster, means; -1: likelier in none of the clusters that there are"
    clusters = terminal.print_clusters(found, title)
    if lacking := own.lacking():
        console.print(lacking)
    alone = own.rows[found["cluster"].to_numpy() < 0] + 1
    if len(alone):
        console.print(f"In none of the clusters: row {', '.join(map(str, alone[: own_table.SHOWN]))} below the header.")
    total = float(found["log_density"].to_numpy().sum())
    console.print(f"Log predictive density of all rows {total:,.2f} nats.")
    console.print(f"Saved {path}")
    return {"log_density": total, "clusters": clusters, "rows": found, "saved": str(path)}


def assign(
    file: Path, table: Path | None, missing: list[str] | None, loss: str, limit: int, seed: int, out: Path | None
) -> Document:
    """The table that was fitted with cluster and uncertainty beside it."""
    tree = draws.load(file)
    own = own_table.read_observed(table, tree, missing or ())
    found = partitions.assign(tree, loss=loss, limit=limit, seed=seed).table()
    named = table or file
    path = own.write(out or named.with_name(f"{named.stem}-assigned.csv"), found)
    shown = found.assign(**own_table.coordinates(tree))
    clusters = terminal.print_clusters(shown, f"Rows by cluster of the partition of least expected {loss}, means")
    if lacking := own.lacking():
        console.print(lacking)
    console.print(f"Saved {path}")
    return {"loss": loss, "clusters": clusters, "rows": found, "saved": str(path)}


def compare_models(paths: list[Path], rows: int, out: Path | None) -> Document:
    """Models by their leave-one-out predictions."""
    found = elpd.compare({str(path): draws.load(path) for path in paths}, rows=rows)
    table = found.reset_index(names="model")
    terminal.print_table(table, "Expected log predictive density, PSIS-LOO, best first")
    console.print(f"{found.attrs['rows'].capitalize()}; differences to the best, with standard errors dse.")
    if out is not None:
        console.print(f"Saved {files.write_table(out, table)}")
    return {"models": table, "rows": found.attrs["rows"], "saved": None if out is None else str(out)}
