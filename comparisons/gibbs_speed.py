"""How long does a Gibbs sweep take, from a thousand to a million points, and do the chains find the clusters?

    dpgmm study gibbs_speed

prints three tables and writes ``gibbs_speed.json``. The data are five overlapping Gaussians in the plane, the model is
stick breaking with K = 20. Collapsed Gibbs samples the untruncated process, blocked Gibbs the truncated one.

Speed: seconds of a sweep of one chain, the median over chunks of sweeps and over runs of the methods in turn; compilation
apart. The largest size runs in processes of their own, whose peak memory, Python and JAX included, is read from the
operating system. Mixing: chains from dispersed starts at the largest size, with and without split-merge
proposals after every sweep, one for collapsed and three for blocked Gibbs, and with pairs of components parted anew
as well; sweep by sweep the number of clusters and
``log p(x, partition)``, components integrated out, weights by the Chinese restaurant process with its concentration at the
prior mean, the same function for all; at the end the adjusted Rand index against the true components and the variation of
information between chains, in bits. Efficiency: effective draws a second of that log density, of the number of clusters and
of the size of the largest one.
"""

import json
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from arviz_stats.sampling_diagnostics import ess
from rich.table import Table
from sklearn.metrics import adjusted_rand_score

from dpgmm import Dataset, Posterior, fit, load_model, partitions
from dpgmm.densities import conjugate
from dpgmm.methods import _clusters
from dpgmm.report import files, study
from dpgmm.report.terminal import wide_console

WEIGHTS = np.array([0.35, 0.25, 0.2, 0.15, 0.05])
MEANS = np.array([[0.0, 0.0], [3.0, 1.0], [-3.0, 2.0], [1.0, -4.0], [5.0, 5.0]])
FACTORS = np.array(
    [[[1, 0], [0.5, 0.8]], [[0.8, 0], [-0.4, 0.7]], [[1, 0], [0, 1]], [[1.2, 0], [0.3, 0.6]], [[0.7, 0], [0, 0.7]]]
)
TRUNCATION = 20
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "collapsed": ("gibbs", {"split_merges": 0}),
    "collapsed, split-merge": ("gibbs", {"split_merges": 1}),
    "blocked": ("blocked_gibbs", {"split_merges": 0, "pair_moves": 0}),
    "blocked, split-merge": ("blocked_gibbs", {"split_merges": 3, "pair_moves": 0}),
    "blocked, pairs": ("blocked_gibbs", {"split_merges": 3, "pair_moves": 4}),
}
GIGABYTE = 1e9
LABELS = 256
"""Clusters that log joints have room for: more than any draw has."""


class Plan(NamedTuple):
    """What is run. `sweeps` by number of points, `rounds` times; from `alone` points on in a process of their own.

    `mixing`: points, chains, and the sweeps of every method; `efficiency`: points, chains, sweeps.
    """

    sweeps: dict[int, int]
    alone: int
    rounds: int
    mixing: tuple[int, int, dict[str, int]]
    efficiency: tuple[int, int, int]


FULL = Plan(
    sweeps={1_000: 1_000, 10_000: 200, 100_000: 20, 1_000_000: 3},
    alone=1_000_000,
    rounds=2,
    mixing=(
        1_000_000,
        2,
        {
            "collapsed": 10,
            "collapsed, split-merge": 10,
            "blocked": 60,
            "blocked, split-merge": 60,
            "blocked, pairs": 30,
        },
    ),
    efficiency=(10_000, 2, 200),
)
QUICK = Plan(
    sweeps={1_000: 200},
    alone=10_000,
    rounds=1,
    mixing=(1_000, 2, {"collapsed": 100, "blocked": 100, "blocked, split-merge": 100}),
    efficiency=(1_000, 2, 100),
)
TIMED = "collapsed", "blocked"
"""Methods whose sweeps are timed at every size."""


def run(out: Path, *, quick: bool = False) -> dict[str, Any]:
    """Time, trace, print the tables, write ``out/gibbs_speed.json``. `quick`: a thousand points, no split-merge."""
    console, plan = wide_console(), QUICK if quick else FULL
    with console.status("timing sweeps"):
        speed = _speed(plan)
    size, chains, by_method = plan.mixing
    with console.status("chains from dispersed starts"):
        found = _in_a_child if size >= plan.alone else child
        mixing = {name: found("mixing", name, size, chains, sweeps) for name, sweeps in by_method.items()}
    with console.status("effective draws a second"):
        efficiency = {name: efficiency_of(name, *plan.efficiency) for name in by_method}
    result = {
        "machine": study.machine(),
        "plan": plan._asdict(),
        "speed": speed,
        "mixing": mixing,
        "efficiency": efficiency,
    }
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(out / "gibbs_speed.json", result)
    for table in _speed_table(speed), _mixing_table(mixing, plan), _efficiency_table(efficiency, plan):
        console.print(table)
    return result


def simulated(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points ``(size, 2)`` of the mixture, and the component of each, ``(size,)``."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(len(WEIGHTS), size, p=WEIGHTS)
    return MEANS[truth] + np.einsum("nde,ne->nd", FACTORS[truth], rng.normal(size=(size, 2))), truth


def log_joint(labels: np.ndarray, posterior: Posterior) -> float:
    """``log p(x, partition)``, nats, components integrated out, the concentration at its prior mean."""
    prior, points = posterior.conjugate, posterior.data.points
    assert prior is not None
    shape, rate = prior.concentration
    return float(_log_joint(points, labels, prior.base, shape / rate))


@jax.jit
def _log_joint(points, labels, base, a):
    seen = _clusters.statistics(points - base.mean, labels, LABELS, base)
    return conjugate.log_partition(seen[0], a) + conjugate.log_marginal(*seen, base).sum()


@cache
def _posterior(size: int) -> tuple[Posterior, np.ndarray]:
    points, truth = simulated(size)
    return load_model("stick_breaking")(Dataset(points, name="five Gaussians"), truncation=TRUNCATION), truth


def _fit(posterior: Posterior, name: str, chains: int, sweeps: int, **options: Any) -> xr.DataTree:
    method, own = METHODS[name]
    return fit(posterior, method, chains=chains, warmup=0, draws_per_chain=sweeps, **own, **options)


def _speed(plan: Plan) -> list[dict[str, Any]]:
    """One row for every size and method, the methods taking turns."""
    rows = []
    for size, sweeps in plan.sweeps.items():
        ours = (lambda name, *a: _in_a_child("sweeps", name, *a)) if size >= plan.alone else sweeps_of
        found = {name: [] for name in TIMED}
        for _ in range(plan.rounds):
            for name in TIMED:
                found[name].append(ours(name, size, sweeps))
        for name, runs in found.items():
            laps = [lap for one in runs for lap in one["laps"]]
            row = {"method": name, "size": size, "seconds": median(laps), "best_seconds": min(laps), "laps": len(laps)}
            row |= {"compile_seconds": runs[0]["compile_seconds"], "clusters": runs[-1]["clusters"]}
            rows.append(row | {"peak_bytes": max((r["peak_bytes"] for r in runs if "peak_bytes" in r), default=None)})
    return rows


def sweeps_of(name: str, size: int, sweeps: int) -> dict[str, Any]:
    """One chain: seconds a sweep of every chunk after the first, seconds of compilation, clusters at the end."""
    posterior, _ = _posterior(size)
    times, done = [], []

    def progress(so_far: int, _: int, __: str) -> None:
        times.append(time.perf_counter())
        done.append(so_far)

    tree = _fit(posterior, name, 1, sweeps, progress=progress)
    laps = (np.diff(times) / np.diff(done)).tolist()
    clusters = int(tree["sample_stats"].to_dataset()["occupied_clusters"].values[0, -1])
    return {"laps": laps, "compile_seconds": tree.attrs["compile_seconds"], "clusters": clusters}


def mixing_of(name: str, size: int, chains: int, sweeps: int) -> dict[str, Any]:
    """Several chains from dispersed starts: what is said of mixing at the top of this file."""
    posterior, truth = _posterior(size)
    tree = _fit(posterior, name, chains, sweeps, keep_allocations=True)
    labels = tree["sample_stats"].to_dataset()["allocations"].values
    last = labels[:, -1]
    between = [float(partitions.vi(last[i], last[j])) for i in range(chains) for j in range(i)]
    return {
        "log_joint": [[log_joint(z, posterior) for z in chain] for chain in labels],
        "log_joint_of_truth": log_joint(truth, posterior),
        "clusters": tree["sample_stats"].to_dataset()["occupied_clusters"].values.tolist(),
        "rand": [float(adjusted_rand_score(truth, z)) for z in last],
        "vi_between": max(between),
        "vi_to_truth": [float(partitions.vi(z, truth)) for z in last],
        "run_seconds": tree.attrs["run_seconds"],
    }


def efficiency_of(name: str, size: int, chains: int, sweeps: int) -> dict[str, Any]:
    """Effective draws a second of running time, the first fifth of every chain counted as warm-up, which costs too."""
    posterior, _ = _posterior(size)
    tree = _fit(posterior, name, chains, sweeps, keep_allocations=True)
    labels = tree["sample_stats"].to_dataset()["allocations"].values[:, sweeps // 5 :]
    largest = lambda z: float(np.bincount(z).max())
    quantities = {
        "log joint": np.array([[log_joint(z, posterior) for z in chain] for chain in labels]),
        "clusters": tree["sample_stats"].to_dataset()["occupied_clusters"].values[:, sweeps // 5 :].astype(float),
        "largest cluster": np.array([[largest(z) for z in chain] for chain in labels]),
    }
    seconds = tree.attrs["run_seconds"]
    found = {quantity: float(ess(values)) / seconds for quantity, values in quantities.items()}
    return {"ess_per_second": found, "run_seconds": seconds}


def _in_a_child(what: str, name: str, *numbers: int) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), what, name, *map(str, numbers)]
    cache = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]  # made at run time
    environment = os.environ | ({} if cache is None else {"JAX_COMPILATION_CACHE_DIR": cache})
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout)


def child(what: str, name: str, *numbers: int) -> dict[str, Any]:
    """What a process of its own does, and its peak memory, bytes."""
    found = {"sweeps": sweeps_of, "mixing": mixing_of}[what](name, *numbers)
    return found | {"peak_bytes": study.peak_bytes()}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    return table


def _speed_table(rows: list[dict[str, Any]]) -> Table:
    table = _table("A sweep of one chain", "method", "N", "seconds", "per point", "clusters", "compiling", "peak")
    for row in rows:
        peak = row["peak_bytes"]
        seconds = f"{row['seconds']:.4f}", f"{1e6 * row['seconds'] / row['size']:.2f} us"
        memory = "" if peak is None else f"{peak / GIGABYTE:.2f} GB"
        compiling = f"{row['compile_seconds']:.1f}"
        table.add_row(row["method"], f"{row['size']:,}", *seconds, str(row["clusters"]), compiling, memory)
    return table


def _mixing_table(mixing: dict[str, dict[str, Any]], plan: Plan) -> Table:
    size, chains, by_method = plan.mixing
    title = f"{chains} chains from dispersed starts, N = {size:,}; log joint above the truth's, VI between chains"
    columns = "sweeps", "clusters", "log joint", "Rand", "VI", "seconds"
    table = _table(title, "method", *columns)
    listed = lambda values, form: " ".join(format(v, form) for v in values)
    for name, found in mixing.items():
        above = [chain[-1] - found["log_joint_of_truth"] for chain in found["log_joint"]]
        table.add_row(
            name,
            str(by_method[name]),
            listed([chain[-1] for chain in found["clusters"]], "d"),
            listed(above, ",.0f"),
            listed(found["rand"], ".3f"),
            f"{found['vi_between']:.3f}",
            f"{found['run_seconds']:.0f}",
        )
    return table


def _efficiency_table(efficiency: dict[str, dict[str, Any]], plan: Plan) -> Table:
    size, chains, sweeps = plan.efficiency
    quantities = list(next(iter(efficiency.values()))["ess_per_second"])
    title = f"Effective draws a second, N = {size:,}, {chains} chains of {sweeps} sweeps"
    table = _table(title, "method", *quantities)
    for name, found in efficiency.items():
        table.add_row(name, *(f"{found['ess_per_second'][q]:.2f}" for q in quantities))
    return table


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    if len(sys.argv) > 2:
        print(json.dumps(child(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))))
    else:
        run(Path("runs/gibbs_speed"))
