"""How long does relabelling take, method by method, beside R's label.switching 1.8, and how much memory at size?

    dpgmm study relabelling_speed

prints the table and writes ``relabelling_speed.json``. R's seconds are CPU seconds, measured on another machine on a real
Gibbs run (K = 5, n = 200, m = 400), and for STEPHENS also at m = 1,000, n = 500, K = 5. In a checkout our times of the
small case are taken on that very run, elsewhere on simulated draws of its size; the larger cases are simulated. Ours
are wall-clock seconds of the array functions with their default settings, several starts included, the median over
repeats; what the first call takes longer is the compilation. The largest case runs in a process of its own, whose peak
memory, Python and JAX included, is read from the operating system.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from dpgmm import relabelling
from dpgmm.relabelling import Gaussians
from dpgmm.report import files, study
from dpgmm.report.terminal import wide_console

REAL = Path(__file__).resolve().parents[1] / "tests" / "data" / "five_components.npz"
R_SECONDS = {
    "ecr": 0.057,
    "ecr_iterative_1": 0.296,
    "ecr_iterative_2": 0.263,
    "stephens": 0.942,
    "pra": 0.051,
    "aic": 0.007,
    "data_based": 0.142,
    "sjw": 37.798,
}
"""R's CPU seconds at m = 400, n = 200, K = 5; SJW's for 40 iterations."""
R_STEPHENS = 9.7
"""R's CPU seconds of STEPHENS at m = 1,000, n = 500, K = 5."""
SMALL, MIDDLE, LARGE = (400, 200, 5), (1_000, 500, 5), (10_000, 1_000, 10)
GIGABYTE = 1e9


class Case(NamedTuple):
    """Draws with random labels: ``gaussians`` and ``allocations (m, n)``; ``pivot`` is the number of one draw."""

    gaussians: Gaussians
    allocations: np.ndarray
    pivot: int


def run(out: Path, *, quick: bool = False) -> dict[str, Any]:
    """Time all methods, print a table, write ``out/relabelling_speed.json``.

    `quick`: fewer repeats, and a twentieth of the large case.
    """
    console, repeats = wide_console(), 3 if quick else 9
    size = (1_000, 500, 10) if quick else LARGE
    with console.status("timing, and the large case in a process of its own"):
        rows, large = _rows(repeats), _in_a_child(size)
    result = {
        "machine": study.machine(),
        "small_case": "real" if REAL.exists() else "simulated",
        "repeats": repeats,
        "rows": rows,
        "large": large,
    }
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(out / "relabelling_speed.json", result)
    console.print(_table(rows))
    m, n, k = large["size"]
    console.print(
        f"STEPHENS at m = {m:,}, n = {n:,}, K = {k}: {large['seconds']:.1f} s with compilation, "
        f"{large['iterations']} iterations, peak memory of its process {large['peak_bytes'] / GIGABYTE:.2f} GB "
        f"({large['bytes_before'] / GIGABYTE:.2f} GB before it began); the probabilities alone are "
        f"{8 * m * n * k / GIGABYTE:.2f} GB."
    )
    return result


def _rows(repeats: int) -> list[dict[str, Any]]:
    small = _methods(real() if REAL.exists() else simulated(*SMALL))
    middle = _methods(simulated(*MIDDLE))
    cases = [(name, SMALL, R_SECONDS.get(name), function) for name, function in small.items()]
    cases += [("stephens", MIDDLE, R_STEPHENS, middle["stephens"]), ("ecr", MIDDLE, None, middle["ecr"])]
    return [
        {"method": name, "size": size, "r_seconds": r_seconds, **_timed(function, repeats)}
        for name, size, r_seconds, function in cases
    ]


def real() -> Case:
    """The Gibbs run of the reference values."""
    with np.load(REAL) as file:
        x, allocations, parameters, pivot = (file[k] for k in ("x", "allocations", "parameters", "pivot_draw"))
    means, variances, weights = np.moveaxis(parameters, -1, 0)
    return Case(Gaussians(weights, means[..., None], variances[..., None, None], x[:, None]), allocations, int(pivot))


def simulated(num_draws: int, num_points: int, num_components: int, seed: int = 0) -> Case:
    """Overlapping unit Gaussians two apart, draws scattered about them, labels permuted at random in every draw."""
    rng = np.random.default_rng(seed)
    centres = 2.0 * np.arange(num_components)
    points = centres[rng.integers(num_components, size=num_points)] + rng.normal(size=num_points)
    shape = (num_draws, num_components)
    means = centres + 0.3 * rng.normal(size=shape)
    variances = np.exp(0.2 * rng.normal(size=shape))
    weights = rng.dirichlet(np.full(num_components, 20.0), size=num_draws)
    order = rng.permuted(np.tile(np.arange(num_components), (num_draws, 1)), axis=1)
    weights, means, variances = (np.take_along_axis(a, order, axis=1) for a in (weights, means, variances))
    allocations = np.empty((num_draws, num_points), np.int8)
    for t in range(num_draws):
        log_joint = (
            np.log(weights[t]) - 0.5 * np.log(variances[t]) - 0.5 * (points[:, None] - means[t]) ** 2 / variances[t]
        )
        allocations[t] = np.argmax(log_joint + rng.gumbel(size=log_joint.shape), axis=1)
    return Case(Gaussians(weights, means[..., None], variances[..., None, None], points[:, None]), allocations, 0)


def _methods(case: Case) -> dict[str, Callable[[], Any]]:
    gaussians, allocations, t = case
    num_components = gaussians.shape[2]
    parameters = np.stack([gaussians.means[..., 0], gaussians.covariances[..., 0, 0], gaussians.weights], axis=-1)
    return {
        "ecr": lambda: relabelling.ecr(allocations, allocations[t], num_components),
        "ecr_iterative_1": lambda: relabelling.ecr_iterative_1(allocations, num_components),
        "ecr_iterative_2": lambda: relabelling.ecr_iterative_2(allocations, gaussians),
        "stephens": lambda: relabelling.stephens(gaussians),
        "pra": lambda: relabelling.pra(parameters, parameters[t]),
        "aic": lambda: relabelling.aic(parameters[..., 0]),
        "data_based": lambda: relabelling.data_based(allocations, gaussians.points, num_components),
        "sjw": lambda: relabelling.sjw(allocations, *gaussians),
        "transport": lambda: relabelling.transport(gaussians.means, gaussians.covariances),
    }


def _timed(function: Callable[[], Any], repeats: int) -> dict[str, Any]:
    laps = [_lap(function) for _ in range(1 + repeats)]
    seconds, result = [lap[0] for lap in laps], laps[-1][1]
    return {
        "seconds": median(seconds[1:]),
        "best_seconds": min(seconds[1:]),
        "compile_seconds": max(0.0, seconds[0] - median(seconds[1:])),
        "objective": result.objective,
        "iterations": len(result.history),
    }


def _lap(function: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = function()
    return time.perf_counter() - begin, result


def _in_a_child(size: tuple[int, int, int]) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), *map(str, size)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _large(size: tuple[int, int, int]) -> dict[str, Any]:
    """STEPHENS from Gaussian parameters: seconds, and this process's peak memory before and after, bytes."""
    gaussians = simulated(*size).gaussians
    before, begin = study.peak_bytes(), time.perf_counter()
    result = relabelling.stephens(gaussians)
    seconds = time.perf_counter() - begin
    return {
        "size": size,
        "seconds": seconds,
        "bytes_before": before,
        "peak_bytes": study.peak_bytes(),
        "objective": result.objective,
        "iterations": len(result.history),
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Relabelling: our median wall-clock seconds beside R's CPU seconds")
    for column in ("method", "m", "n", "K", "seconds", "compiling", "R", "faster"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for row in rows:
        r_seconds = row["r_seconds"]
        table.add_row(
            row["method"],
            *(f"{s:,}" for s in row["size"]),
            f"{row['seconds']:.4f}",
            f"{row['compile_seconds']:.2f}",
            "" if r_seconds is None else f"{r_seconds:.3f}",
            "" if r_seconds is None else f"{r_seconds / row['seconds']:.0f} x",
        )
    return table


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(_large((int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))))
    else:
        run(Path("runs/relabelling_speed"))
