"""How long does the article's training run take, written its way and ours, and do the two agree?

`plain_loss` says the article's objective the way the article does: weights normalised after exp, sticks by a running
subtraction, scipy-style log densities, `vmap` over the points and over the components, all in float32. It is run with
the same Adam beside `models/article.py`, on all points and on few weighted ones, taking turns in one process.

    dpgmm study article_training

prints the table and writes ``article_training.json``. Of the agreement, mind what can agree. The objective as a
function: at one and the same parameters the two must give one value. The path of the optimiser: only until rounding
takes over. Components collapse on a few points there, and two correct float64 programs part as two float32 ones do.
"""

import os
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, vmap
from jax.example_libraries import optimizers
from jax.scipy import stats
from jax.scipy.special import logsumexp
from jaxtyping import Float, Int
from rich.status import Status
from rich.table import Table

from dpgmm import datasets
from dpgmm.data import Dataset
from dpgmm.model import loading
from dpgmm.report import files
from dpgmm.report.terminal import wide_console

article = loading.load("article", "models")

STICKS, STEPS, BLOCK = 25, 10_000, 100
ADAM = optimizers.adam(0.05)
LAP = 200
"""Steps of the slow ways in one turn."""
TOLERANCE = 1e-5
"""Relative disagreement of two losses that is put down to float32."""
SPACING = 25
"""Steps between two looks at a path."""


# The article's way.


def plain_loss(params: tuple[Array, Array, Array, Array], data: Float[Array, " N"]) -> Float[Array, ""]:
    """What `models.article.make_joint_loss(25)` computes, said the article's way. Finite while no weight underflows."""
    log_weights, log_concentration, mus, log_scales = params
    weights = _normalised(jnp.exp(log_weights))
    of_sticks = stats.beta.logpdf(_sticks(weights)[:STICKS], 1, jnp.exp(log_concentration))
    of_points = vmap(partial(_plain_log_density, weights, mus, log_scales))(data)
    return -(jnp.sum(of_sticks) + jnp.sum(of_points))


def _normalised(weights: Float[Array, " K"]) -> Float[Array, " K"]:
    return weights / jnp.sum(weights)


def _sticks(weights: Float[Array, " K"]) -> Float[Array, " K"]:
    """Each weight over what the earlier ones have left of 1."""

    def one(used, weight):
        return used + weight, jnp.exp(jnp.log(weight) - jnp.log(1 - used))

    return lax.scan(one, jnp.zeros((), weights.dtype), weights)[1]


def _plain_log_density(
    weights: Float[Array, " K"], mus: Float[Array, " K"], log_scales: Float[Array, " K"], datum: Float[Array, ""]
) -> Float[Array, ""]:
    def one(weight, mu, log_scale):
        return jnp.log(weight) + stats.norm.logpdf(datum, loc=mu, scale=jnp.exp(log_scale))

    return logsumexp(vmap(one)(weights, mus, log_scales))


@jax.jit
def plain_training(state: Any, iterations: Array, data: Array) -> tuple:
    """Final and all earlier optimiser states, the article's way: the loss is left for later."""
    _, update, get_params = ADAM
    return lax.scan(article.make_step_scannable(get_params, jax.grad(plain_loss), update, data), state, iterations)


class PlainRun:
    """The plain run, a stretch at a time: parameters before each step, from one compiled scan over `BLOCK` steps."""

    def __init__(self, params: tuple, data: Array):
        self.state, self.data = ADAM.init_fn(params), data
        self.history: list[tuple] = []

    def go_on(self, steps: int) -> tuple:
        """Run on for a multiple of `BLOCK` steps and return the path so far."""
        for _ in range(steps // BLOCK):
            iterations = np.arange(BLOCK, dtype=np.int32) + BLOCK * len(self.history)
            self.state, states = plain_training(self.state, iterations, self.data)
            self.history.append(tuple(np.asarray(leaf) for leaf in ADAM.params_fn(states)))
        return tuple(map(np.concatenate, zip(*self.history, strict=True)))


# The comparison.


def run(out: Path, *, quick: bool = False, progress: bool = True) -> dict[str, Any]:
    """Time and compare, print a table, write ``out/article_training.json``. `quick`: 300 steps instead of 10,000."""
    console = wide_console()
    steps, turns = (300, 3) if quick else (STEPS, 5)
    data = datasets.four_gaussians()
    with console.status("compiling") if progress else nullcontext(console) as status:
        say = status.update if isinstance(status, Status) else lambda _: None
        times, runs = _time(data, steps, turns, say)
        say("comparing the losses")
        result = {"machine": _machine(), **times, **_agreement(data, *runs)}
        result["float64_runs_part_at"] = _parting(data, min(steps, 600))
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(out / "article_training.json", result)
    console.print(_table(result))
    console.print(_words(result))
    return result


def _time(data: Dataset, steps: int, turns: int, say: Callable) -> tuple[dict[str, Any], tuple]:
    """Seconds of each way, compile time apart, and the plain path and our two results.

    The ways take turns, so that another load of the machine falls on all of them: in every turn the plain run goes on
    for a part of its steps, ours on all points takes `LAP` steps, and ours on few points runs as a whole.
    """
    start, points = article.initial_parameters(), jnp.asarray(data.points[:, 0], jnp.float32)
    plain = PlainRun(start, points)
    ways = {
        "plain": lambda: plain.go_on(steps // turns),
        "all points": lambda: article.train(data, compress=False, steps=LAP),
        "few points": lambda: article.train(data, steps=steps),
    }
    say("compiling")
    first = {
        "plain": _seconds(lambda: PlainRun(start, points).go_on(steps // turns))[0],
        "all points": _seconds(ways["all points"])[0],
        "few points": _seconds(ways["few points"])[0],
    }
    laps: dict[str, list[float]] = {name: [] for name in ways}
    last: dict[str, Any] = {}
    for turn in range(turns):
        say(f"turn {turn + 1} of {turns}")
        for name, way in ways.items():
            seconds, last[name] = _seconds(way)
            laps[name].append(seconds)
    say(f"all points, {steps:,} steps")
    last["all points"] = article.train(data, compress=False, steps=steps)
    seconds = {
        "plain": sum(laps["plain"]),
        # As one scan the whole run is another program, with its compilation in its time: from the laps instead.
        "all points": median(laps["all points"]) * steps / LAP,
        "few points": median(laps["few points"]),
    }
    return {
        "steps": steps,
        "laps": laps,
        "seconds": seconds,
        "compile_seconds": {name: max(0.0, first[name] - median(laps[name])) for name in ways},
        "times_faster": {name: seconds["plain"] / seconds[name] for name in ways},
    }, tuple(last[name] for name in ways)


def _seconds(way: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    value = jax.block_until_ready(way())
    return time.perf_counter() - begin, value


def _agreement(data: Dataset, path: tuple, on_all: Any, on_few: Any) -> dict[str, Any]:
    """How far the losses agree: as functions of the same parameters, and along the three paths."""
    finite = int(np.argmin([*np.all([np.isfinite(leaf).all(axis=1) for leaf in path], axis=0), False]))
    steps = np.arange(0, finite, SPACING)
    at = tuple(leaf[steps] for leaf in path)
    plain, ours = (_losses(loss, at, data) for loss in (plain_loss, article.make_joint_loss(STICKS)))
    with jax.enable_x64(True):
        exact = _losses(article.make_joint_loss(STICKS), at, data, jnp.float64)
    on_few_exactly = _losses(article.make_joint_loss(STICKS), on_few.history, data)
    along = {"all points": on_all.loss[steps], "few points": on_few.loss[steps]}
    return {
        "finite_steps": {
            "plain": finite,
            "all points": int(np.isfinite(on_all.loss).sum()),
            "few points": int(np.isfinite(on_few.loss).sum()),
        },
        "plain_smallest_weight_at_its_end": float(jnp.min(_normalised(jnp.exp(path[0][finite - 1])))),
        "same_parameters": {
            "ours against plain": _worst(ours, plain),
            "plain against float64": _worst(plain, exact),
            "ours against float64": _worst(ours, exact),
            "few points against all points": _worst(on_few.loss[on_few.history_steps], on_few_exactly),
        },
        "same_path": {
            name: {"worst": _worst(losses, plain), "parts_at": _parts_at(losses, plain, steps)}
            for name, losses in along.items()
        },
        "certificate": on_few.certificate._asdict() if on_few.certificate else None,
        "last_loss": {"all points": float(on_all.loss[-1]), "few points": float(on_few.loss[-1])},
        "last_log_concentration": {
            "plain, while finite": float(path[1][finite - 1, 0]),
            "all points": float(on_all.parameters.log_concentration[0]),
            "few points": float(on_few.parameters.log_concentration[0]),
        },
    }


def _losses(loss: Callable, params: tuple, data: Dataset, dtype: Any = jnp.float32) -> np.ndarray:
    points = jnp.asarray(data.points[:, 0], dtype)
    params = tuple(jnp.asarray(leaf, dtype) for leaf in params)
    return np.asarray(jax.jit(lambda ps: lax.map(lambda p: loss(p, points), ps))(params))


def _worst(some: Float[np.ndarray, "*shape"], others: Float[np.ndarray, "*shape"]) -> float:
    """Largest relative difference where the second is finite; infinite where only the first is not."""
    known = np.isfinite(others)
    return float(np.max(np.nan_to_num(np.abs(some[known] / others[known] - 1), nan=np.inf)))


def _parts_at(
    some: Float[np.ndarray, " steps"], others: Float[np.ndarray, " steps"], steps: Int[np.ndarray, " steps"]
) -> int | None:
    """First of the steps where the two differ by more than `TOLERANCE`, or None."""
    apart = np.flatnonzero(~(np.abs(some / others - 1) <= TOLERANCE))
    return int(steps[apart[0]]) if len(apart) else None


def _parting(data: Dataset, steps: int) -> int | None:
    """First step at which two float64 runs of the one objective, said both ways, part; None if they do not."""
    with jax.enable_x64(True):
        start = article.initial_parameters(dtype=jnp.float64)
        path = PlainRun(start, jnp.asarray(data.points[:, 0])).go_on(steps)
        plain = _losses(plain_loss, path, data, jnp.float64)
        ours = article.train(data, compress=False, steps=steps, dtype=jnp.float64).loss
    return _parts_at(ours, plain, np.arange(steps))


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "device": str(jax.devices()[0]),
        "jax": jax.__version__,
        "load_at_start": os.getloadavg()[0],
    }


def _table(result: dict[str, Any]) -> Table:
    table = Table(title=f"The article's training run, {result['steps']:,} steps, float32")
    for column in ("", "seconds", "compiling, s", "ms per step", "times faster", "finite steps"):
        table.add_column(column, justify="right" if column else "left")
    for name, seconds in result["seconds"].items():
        table.add_row(
            name,
            f"{seconds:.2f}",
            f"{result['compile_seconds'][name]:.1f}",
            f"{1e3 * seconds / result['steps']:.3f}",
            f"{result['times_faster'][name]:.1f}",
            f"{result['finite_steps'][name]:,}",
        )
    return table


def _words(result: dict[str, Any]) -> str:
    same = ", ".join(f"{name} {worst:.1e}" for name, worst in result["same_parameters"].items())
    paths = ", ".join(
        f"{name} from step {path['parts_at']} (worst {path['worst']:.1e})" for name, path in result["same_path"].items()
    )
    first, smallest = result["finite_steps"]["plain"], result["plain_smallest_weight_at_its_end"]
    cause = f"The plain run is no number from step {first:,} on; its smallest weight before that: {smallest:.1e}.\n"
    return (cause if first < result["steps"] else "") + (
        f"Largest relative difference of the loss at the same parameters: {same}.\n"
        f"Paths that part from the plain one by more than {TOLERANCE:g}: {paths}; "
        f"two float64 runs of the one objective part at step {result['float64_runs_part_at']}.\n"
        f"Certificate of the few points: {result['certificate']}"
    )


if __name__ == "__main__":
    run(Path("runs/article_training"))
