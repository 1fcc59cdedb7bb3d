"""How do seconds and memory grow with points, components and dimensions, and how far are they from what the machine can do?

    dpgmm study scaling

One of N, K and D is varied at a time. Three works: value and gradient of the likelihood, a pass of coordinate ascent, and
in one dimension the compression of all points, made of numbers on disk as the command line reads them. Every case runs in a
process of its own, one after the other, whose peak memory, Python and JAX included, is read from the operating system;
compilation apart, the median over rounds. Slopes are of logarithms, from the middle of a row to its end. Beside them what
the machine was measured to do at most in the same run: exponentials, matrix products and sums of what lies in memory.
Then the same gradient on more and more cores, of as many points (strong scaling) and of as many a core (weak scaling), with
XLA's own threads and with a device for each core.
Writes ``scaling.html`` and ``scaling.json``.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from dpgmm import Dataset, devices, load_model
from dpgmm.data import read
from dpgmm.data.compression import compress, default_bin_width
from dpgmm.densities import mixture
from dpgmm.methods import _cavi_passes, cavi
from dpgmm.report import plots, study
from dpgmm.report.study import Picture, Section

QUESTION = "Twice as many points, components or dimensions: how many times as long, and how much more memory?"
GIGABYTE = 1e9
BLOCK = 10_000_000
"""Numbers of a file that are made at a time."""


class Case(NamedTuple):
    """A `work` on `size` points of dimension `dim` with `num_components`, on so many `cores`; 0: all."""

    work: str
    size: int
    dim: int
    num_components: int
    cores: int = 0


class Row(NamedTuple):
    """Cases in which one of the sizes, `varied`, grows; `label` tells it from another row of the same work."""

    varied: str
    cases: tuple[Case, ...]
    label: str


def rows_of(base: Case, **values: tuple[int, ...]) -> list[Row]:
    """A row for each name: `base` with that size in place of its own."""
    return [Row(name, tuple(base._replace(**{name: n}) for n in row), base.work) for name, row in values.items()]


def on_cores(size: int, most: int) -> list[Row]:
    """Gradients on 1, 2, 4, ... and all cores: of `size` points, and of as many a core. None where there is no telling."""
    counts = sorted({2**i for i in range(most.bit_length())} | {most}) if most else []
    rows = []
    for work in ("gradient", DEVICES) if counts else ():
        cases = tuple(Case(work, size, 2, 20, count) for count in counts)
        rows.append(Row("cores", cases, f"{work}, strong"))
        rows.append(Row("cores", tuple(c._replace(size=size * c.cores) for c in cases), f"{work}, weak"))
    return rows


DEVICES = "gradient, a device a core"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
"""Cores that this process may use; 0 where no process can be kept to some of them."""
POINTS = 1_000, 10_000, 100_000, 1_000_000, 10_000_000
SIZES: dict[str, tuple[int, ...]] = {"size": POINTS, "num_components": (5, 20, 50, 200), "dim": (1, 2, 5, 10, 20, 50)}
FULL = [
    *rows_of(Case("gradient", 100_000, 2, 20), **SIZES),
    *rows_of(Case("pass", 100_000, 2, 20), **SIZES),
    *rows_of(Case("compression", 1_000, 1, 0), size=(*POINTS[1:], 100_000_000)),
    *on_cores(1_000_000, CORES),
]
QUICK = [
    *rows_of(Case("gradient", 1_000, 2, 5), size=(1_000, 8_000)),
    *rows_of(Case("compression", 1_000, 1, 0), size=(1_000, 8_000)),
    *on_cores(20_000, min(CORES, 2)),
]
SECONDS = 2.0
"""Rounds are made for so long, and `ROUNDS` at least, `MOST` at most."""
ROUNDS, MOST = 3, 30


def run(out: Path, *, quick: bool = False) -> dict[str, Any]:
    """Run every case in a process of its own; print tables, write the page. `quick`: few small cases, two cores at most."""
    rows = QUICK if quick else FULL
    measured, found = {}, []
    with study.bar("scaling", sum(len(row.cases) for row in rows)) as next_fit, tempfile.TemporaryDirectory() as folder:
        limits = machine_limits()
        for row in rows:
            for case in row.cases:
                next_fit(" ".join(map(str, case)))
                measured[case] = measured.get(case) or _in_a_child(case, folder)
            cases = [_of(c, measured[c]) for c in row.cases]
            found.append({"work": row.label, "varied": row.varied, "cases": cases})
            sizes = [case[row.varied] for case in cases]
            found[-1]["slope"] = slope(sizes, [c["seconds"] for c in cases]) if row.varied != "cores" else None
    numbers = {"machine": study.machine(), "limits": limits, "rows": found}
    table = [_cells(_of(case, of), limits) for case, of in measured.items()]
    many_cores, grown = ([row for row in found if (row["varied"] == "cores") == cores] for cores in (True, False))
    pictures = [_picture(grown, limits), *([_picture_of_cores(many_cores)] if many_cores else [])]
    sections = [Section("Every case", table, [_words(limits)], pictures)]
    study.leave(out, "scaling", "Growth of seconds and memory", QUESTION, numbers, conclusions(found), sections)
    return numbers


def conclusions(found: list[dict[str, Any]]) -> list[str]:
    """A sentence a row: the slope, and what the largest case took."""
    names = {"size": "points", "num_components": "components", "dim": "dimensions"}
    sentences = []
    for row in found:
        first, last = row["cases"][0], row["cases"][-1]
        if row["varied"] == "cores":
            sentences.append(
                f"{row['work']}: {last['size']:,} points on {last['cores']} cores take {last['seconds']:.3g} s,"
                f" {first['size']:,} on one {first['seconds']:.3g}: {speed_up(row):.2f} times the points a second."
            )
            continue
        sentences.append(
            f"{row['work']}: seconds grow as the number of {names[row['varied']]} to the power {row['slope']:.2f};"
            f" {last[row['varied']]:,} take {last['seconds']:.3g} s, peak memory {last['peak_bytes'] / GIGABYTE:.2g} GB."
        )
    return sentences


def speed_up(row: dict[str, Any]) -> float:
    """Points a second in the last case over those in the first."""
    first, last = row["cases"][0], row["cases"][-1]
    return last["size"] / last["seconds"] / (first["size"] / first["seconds"])


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Slope of log seconds on log sizes, by least squares, over the second half of the sizes, two at least."""
    half = min(len(sizes) // 2, len(sizes) - 2)
    return float(np.polyfit(np.log(sizes[half:]), np.log(seconds[half:]), 1)[0])


# The machine.


def machine_limits() -> dict[str, float]:
    """Exponentials, floating-point operations of a matrix product and bytes summed, a second, the most of some rounds."""
    x, square = jnp.linspace(-5, 0, 2**17), jnp.ones((1_000, 1_000))
    long = jnp.ones(2**24)
    exponentials = jax.jit(lambda x: jax.lax.fori_loop(0, 100, lambda _, y: jnp.exp(-y), x))
    return {
        "exponentials": 100 * x.size / min(_rounds(lambda: exponentials(x))),
        "product": 2e9 / min(_rounds(lambda: square @ square)),
        "bytes": long.nbytes / min(_rounds(lambda: jnp.sum(long))),
    }


def least_seconds(case: dict[str, Any], limits: dict[str, float]) -> float | None:
    """What the exponentials or the products of a pass alone would take, whichever is more; None for a compression.

    None on some of the cores, too: the limits are those of all.

    N K exponentials; two products of the F = 1 + D + D (D + 1) / 2 features with K components, there and back.
    """
    if case["work"] == "compression" or case["cores"]:
        return None
    pairs, features = case["size"] * case["num_components"], 1 + case["dim"] * (case["dim"] + 3) // 2
    products = 0.0 if case["dim"] == 1 else 4 * pairs * features / limits["product"]
    return max(pairs / limits["exponentials"], products)


def _words(limits: dict[str, float]) -> str:
    exponentials, product, read_ = (limits[name] / 1e9 for name in ("exponentials", "product", "bytes"))
    return (
        f"The machine: {exponentials:.2f} billion exponentials, {product:.0f} billion operations of a matrix product,"
        f" {read_:.1f} GB summed a second. Bound: what the exponentials or the products of a pass would take at that rate,"
        " whichever is more, over what it took."
    )


# Cases.


def seconds_of(case: Case, folder: str) -> list[float]:
    """Seconds of rounds of a case, the first, which compiles, left out."""
    if case.work == "compression":
        path = Path(folder) / f"{case.size}.npy"
        if not path.exists():
            _write(path, case.size)
        return _rounds(lambda: _compressed(path), warm=case.size < BLOCK)
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 4, (4, case.dim))
    data = Dataset(centres[rng.choice(4, case.size)] + rng.normal(size=(case.size, case.dim)))
    posterior = load_model("stick_breaking")(data, truncation=case.num_components)
    arrays = posterior.arrays()
    if case.work == "pass":
        prior = cavi.checked(posterior)
        state = cavi.init(random.PRNGKey(0), arrays, prior, case.num_components)
        step = jax.jit(lambda state, data: _cavi_passes.step(state, data, prior))
        return _rounds(lambda: step(state, arrays))
    components = posterior.mixture(posterior.initial(random.PRNGKey(0)))
    both = jax.jit(jax.value_and_grad(lambda c, x, omega: mixture.log_likelihood(c[0], c[1], c[2], x, omega)))
    with devices(case.cores) if case.work == DEVICES else contextlib.nullcontext():
        return _rounds(lambda: both(components, *arrays))


def _compressed(path: Path) -> Any:
    data = read(path)
    return compress(data, default_bin_width(data)).points


def _write(path: Path, size: int) -> None:
    """Numbers of four Gaussians, a block at a time."""
    out = np.lib.format.open_memmap(path, mode="w+", dtype=float, shape=(size,))
    for start in range(0, size, BLOCK):
        rng, count = np.random.default_rng(start), min(BLOCK, size - start)
        out[start : start + count] = 4 * rng.choice(4, count) + rng.normal(size=count)


def _rounds(once: Callable[[], Any], *, warm: bool = True) -> list[float]:
    if warm:
        jax.block_until_ready(once())
    seconds = []
    while len(seconds) < (ROUNDS if warm else 1) or (warm and sum(seconds) < SECONDS and len(seconds) < MOST):
        begun = time.perf_counter()
        jax.block_until_ready(once())
        seconds.append(time.perf_counter() - begun)
    return seconds


def child(case: Case, folder: str) -> dict[str, Any]:
    """What a process of its own does, and its peak memory, bytes."""
    seconds = seconds_of(case, folder)
    return {"seconds": median(seconds), "rounds": len(seconds), "peak_bytes": study.peak_bytes()}


def _in_a_child(case: Case, folder: str) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), folder, *map(str, case)]
    there = {"JAX_NUM_CPU_DEVICES": str(case.cores)} if case.work == DEVICES else {}
    with _kept_to(case.cores):
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | there)
    return json.loads(done.stdout)


@contextlib.contextmanager
def _kept_to(cores: int) -> Iterator[None]:
    """Within this, processes that are started have the first so many cores; 0: all. JAX asks as it is imported."""
    if not cores:
        yield
        return
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(every)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


def _of(case: Case, measured: dict[str, Any]) -> dict[str, Any]:
    return case._asdict() | measured


def _cells(case: dict[str, Any], limits: dict[str, float]) -> dict[str, Any]:
    least = least_seconds(case, limits)
    return {
        "work": case["work"],
        "N": f"{case['size']:,}",
        "D": case["dim"],
        "K": case["num_components"] or "",
        "cores": case["cores"] or "all",
        "seconds": case["seconds"],
        "bound": "" if least is None else f"{least / case['seconds']:.0%}",
        "peak GB": case["peak_bytes"] / GIGABYTE,
    }


def _picture(rows: list[dict[str, Any]], limits: dict[str, float]) -> Picture:
    """Seconds against what is varied, a panel each; dashed: the bound."""
    varied, works = (list(dict.fromkeys(row[of] for row in rows)) for of in ("varied", "work"))
    canvas, [axes] = plots.figure(columns=len(varied), height=3.4)
    for axis, name in zip(axes, varied, strict=True):
        for row in [row for row in rows if row["varied"] == name]:
            x, colour = [case[name] for case in row["cases"]], f"C{works.index(row['work'])}"
            axis.plot(x, [case["seconds"] for case in row["cases"]], "o-", color=colour, label=row["work"])
            least = [least_seconds(case, limits) for case in row["cases"]]
            if least[0] is not None:
                axis.plot(x, least, "--", color=colour, lw=1)
        axis.set(xscale="log", yscale="log", xlabel={"size": "points", "dim": "dimensions"}.get(name, "components"))
    axes[0].set(ylabel="seconds")
    axes[0].legend(frameon=False)
    note = "Seconds of one round, log axes. Dashed: what the machine's exponentials or products alone would take."
    return Picture(canvas, note)


def _picture_of_cores(rows: list[dict[str, Any]]) -> Picture:
    """Points a second over those on one core."""
    canvas, [[axis]] = plots.figure(height=3.2, width=7.0)
    counts = [case["cores"] for case in rows[0]["cases"]]
    for i, row in enumerate(rows):
        shares = [speed_up({"cases": [row["cases"][0], case]}) for case in row["cases"]]
        axis.plot(counts, shares, ["o-", "s:"][i % 2], color=f"C{3 + i // 2}", label=row["work"])
    axis.plot(counts, counts, "--", color="0.6", lw=1, label="as many times as cores")
    axis.set(xlabel="cores", ylabel="times the points a second", xticks=counts)
    axis.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    note = "Points a second over those on one core: as many points on all (strong), as many points a core (weak)."
    return Picture(canvas, note)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    work, *numbers = sys.argv[2:]
    print(json.dumps(child(Case(work, *map(int, numbers)), sys.argv[1])))
