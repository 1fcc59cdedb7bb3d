"""Simulation-based calibration: parameters from the prior, points from them, a fit, and the rank of the truth."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array, random

from ... import draws as schema
from ...data import Dataset
from ...densities import mixture
from ...diagnostics.importance import k_hat
from ...draws import allocations, answer
from ...draws.thinning import evenly
from ...errors import InputError, at_least
from ...methods import Method, find, fitting, many
from ...model.posterior import Parameters, Posterior
from ...model.prior_predictive import check_proper, prior_draw
from .. import exact
from . import quantities
from .quantities import QUANTITIES, Draw
from .ranks import Ranks

NEGLIGIBLE = 1e-3
"""Largest bound on the distance between data of the truncated and of the untruncated process."""


class Refit(NamedTuple):
    """One simulation: ``rank (quantity,)`` of the truth, and the k-hat of the fit, None where it has none."""

    rank: np.ndarray
    k_hat: float | None


def simulate(
    posterior: Posterior,
    method: str | Method,
    key: Array | int,
    *,
    simulations: int = 200,
    draws: int = 99,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Ranks:
    """Ranks of the truth among thinned draws of `method` over simulated data sets (Talts et al. 2018, algorithm 1).

    Parameters come from the prior of `posterior`, by its NumPyro program, and as many points as it has from their
    mixture; `method` is run with its own `options` on ``posterior.on(points)``, hyperparameters untouched; `draws` of all
    its chains' draws, evenly spaced, are kept, one (of the best restart) for a point estimate. Ranks are uniform if the kept
    draws are independent draws of the posterior: chains must be long enough for that, since autocorrelation looks like
    overconfidence. Which quantities are ranked: `quantities_of`. `progress(done, simulations)` is called after every fit.

    `gibbs` samples the untruncated process: the truncation must be so high that the bound of Ishwaran & James on the
    data's law is below `NEGLIGIBLE`. A flat prior of the base measure's mean gives no parameters: it is held at the
    posterior's starting value, and quantities that move with the data are left out. That is exact: given the data, what does
    not move has the same law wherever the mean was, as the model only moves along with it.

    `key` is one of JAX's, of either kind, or a seed. With an `executor` fits run side by side, to the same ranks:
    see `dpgmm.fit_many`.

    Raises `InputError` for an unknown method or option, no simulations or draws, an improper prior of anything
    else, weighted points, a truncation too low.
    """
    common = {"simulations": simulations, "draws": draws, "executor": executor, "progress": progress}
    return as_ranks(posterior, method, list(refits(posterior, method, key, **common, **options)), draws)


def as_ranks(posterior: Posterior, method: str | Method, found: list[Refit], draws: int) -> Ranks:
    """`Ranks` of the refits so far."""
    names = quantities_of(posterior, method)
    k_hats = [refit.k_hat for refit in found if refit.k_hat is not None]
    point = find(method).kind == "point"
    return Ranks(
        method=find(method).name,
        model=posterior.name,
        names=names,
        rank=np.array([refit.rank for refit in found], int).reshape(-1, len(names)),
        draws=1 if point else draws,
        invariant=np.array([not QUANTITIES[name].joint or _exchangeable(posterior) for name in names]),
        k_hat=np.array(k_hats) if k_hats and len(k_hats) == len(found) else None,
        point_estimate=point,
    )


def quantities_of(posterior: Posterior, method: str | Method) -> tuple[str, ...]:
    """Names of the quantities of `QUANTITIES` that can be ranked.

    Left out: those that move with the data where the base measure's mean has a flat prior; the concentration where the
    model has none; the log joint for methods of the untruncated process, whose components stand in another order.
    """
    flat = posterior.conjugate is not None and posterior.conjugate.hyperprior is not None

    def kept(name, q):
        out_of_process = q.joint and find(method).target == "process"
        fixed = name == "concentration" and name not in posterior.transforms
        return not ((q.placed and flat) or out_of_process or fixed)

    return tuple(name for name, quantity in QUANTITIES.items() if kept(name, quantity))


def prior_draws(posterior: Posterior, key: Array, count: int) -> tuple[Parameters, Array]:
    """Parameters from the prior, leading axis `count`, and points ``(count, N, D)`` from each one's mixture.

    Raises `InputError` where the prior is improper, but for a flat prior of the base measure's mean: see `simulate`.
    """
    if (posterior.data.weights != 1).any():
        raise InputError(f"calibration: {posterior.data.name} has weighted points; give points of weight 1")
    check_proper(posterior, "calibration")
    every, keys = lambda keys: jax.lax.map(lambda k: prior_draw(posterior, k), keys), random.split(key, count)
    return posterior.compile(("prior draws", posterior.data.size), every, keys)[0](keys)


def refits(
    posterior: Posterior,
    method: str | Method,
    key: Array | int,
    *,
    simulations: int,
    draws: int = 99,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Iterator[Refit]:
    """The simulations of `simulate` one by one, in their order, so that what is finished survives an interruption."""
    found = find(method, options)
    at_least("calibration", 1, simulations=simulations, draws=draws)
    found.checked(posterior)
    if found.target == "process":
        _check_truncation(posterior, found.name)
    names = quantities_of(posterior, method)
    key_prior, key_fit, key_ties = random.split(_raw(key), 3)
    parameters, points = prior_draws(posterior, key_prior, simulations)
    truths = _truths(posterior, parameters, points)
    ties, points = np.random.default_rng(np.asarray(key_ties)), np.asarray(points)
    centre, scale = posterior.data.mean, posterior.data.scale
    at = np.stack([centre - scale, centre, centre + scale])
    keys = np.asarray(key_fit), np.asarray(key_ties)
    refitted = functools.partial(_refitted, posterior, found, options, keys, draws, at)
    tasks = [_Simulation(i, truths[i], points[i]) for i in range(simulations)]
    called = lambda task: f"simulation {task.number}"
    # Ties are broken here, in the order of the simulations: one stream of random numbers serves all of them.
    for values, k_hat_of_fit in many.each(refitted, tasks, executor, called=called, progress=progress):
        yield Refit(_rank(values, names, ties), k_hat_of_fit)


class _Simulation(NamedTuple):
    """What one refit is sent: its number, the truth, and ``points (N, D)``."""

    number: int
    truth: dict[str, np.ndarray]
    points: np.ndarray


def _refitted(
    posterior: Posterior,
    method: Method,
    options: dict[str, Any],
    keys: tuple[np.ndarray, np.ndarray],
    draws: int,
    at: np.ndarray,
    task: _Simulation,
) -> tuple[dict[str, np.ndarray], float | None]:
    """All quantities of the truth, first, and of `draws` draws, ``(1 + draws,)`` each, and the k-hat of the fit."""
    key_fit, key_ties = (random.fold_in(key, task.number) for key in keys)
    data = Dataset(task.points, name=f"simulation {task.number}")
    best = answer(fitting.run(method, posterior.on(data), key_fit, **options))
    every = _with_labels(key_ties, task.truth, best, draws, task.points, at)
    return jax.device_get(quantities.values(every)), _k_hat(best)


def _rank(values: dict[str, np.ndarray], names: tuple[str, ...], ties: np.random.Generator) -> np.ndarray:
    """Rank of the first of every quantity's values among the others, uniform over ties, ``(quantity,)``."""
    rows = np.stack([values[name] for name in names])
    if not np.isfinite(rows).all():
        worst = names[int(np.argmin(np.isfinite(rows).all(axis=1)))]
        raise InputError(
            f"calibration: {worst!r} is not finite in a simulation; correct the model's prior or the method"
        )
    below, equal = ((op(rows[:, 1:], rows[:, :1])).sum(axis=1) for op in (np.less, np.equal))
    return below + ties.integers(0, equal + 1)


def _truths(posterior: Posterior, parameters: Parameters, points: Array) -> list[dict[str, np.ndarray]]:
    """Weights, means, covariances, concentration and log joint of every simulation."""

    def one(pair):
        p, x = pair
        log_joint = posterior.log_prior(p) + mixture.log_likelihood(*posterior.mixture(p), x)
        found = posterior.components(p)._asdict() | {"log_joint": log_joint}
        return found | {"concentration": p.get("concentration", jnp.zeros(()))}

    pairs = parameters, points
    every = jax.device_get(posterior.compile("truths", lambda pairs: jax.lax.map(one, pairs), pairs)[0](pairs))
    return [{name: leaf[i] for name, leaf in every.items()} for i in range(len(points))]


def _with_labels(
    key: Array, truth: dict[str, np.ndarray], tree: xr.DataTree, count: int, points: np.ndarray, at: np.ndarray
) -> Draw:
    """The truth, first, and `count` draws of the fit as one `Draw` with a leading axis.

    Labels are those of the fit where it has them, else drawn given the components, as those of the truth always are.
    """
    posterior, stats = tree["posterior"].to_dataset(), tree["sample_stats"].to_dataset()
    total = posterior.sizes["chain"] * posterior.sizes["draw"]
    if total < count and schema.kind(tree) != "point":
        method = tree.attrs["method"]
        raise InputError(
            f"{method}: {total} draws a fit, and the truth is to be ranked among {count}; draw more, or lower draws"
        )
    kept = evenly(total, count)
    of_kept = lambda a: a.reshape(-1, *a.shape[2:])[kept]
    thinned = lambda a: of_kept(a.values)
    of_fit = {name: thinned(posterior[name]) for name in ("weights", "means")}
    of_fit["covariances"] = of_kept(schema.covariances(posterior))
    width = of_fit["weights"].shape[1]
    of_fit["log_joint"] = thinned(stats["log_joint"])
    of_fit["concentration"] = (
        thinned(posterior["concentration"]) if "concentration" in posterior else np.zeros(len(kept))
    )
    every = {name: np.concatenate([_widened(name, truth[name], width)[None], of_fit[name]]) for name in of_fit}
    components = every["weights"], every["means"], every["covariances"]
    labels = np.asarray(allocations.sample(key, *components, points))
    if "allocations" in stats:
        labels = np.concatenate([labels[:1], thinned(stats["allocations"])])
    return Draw(**jax.tree.map(jnp.asarray, every | {"labels": labels}), points=jnp.asarray(points), at=jnp.asarray(at))


def _widened(name: str, leaf: np.ndarray, width: int) -> np.ndarray:
    """A truth of fewer components than the draws show gets some of weight zero, copies of the last otherwise."""
    if name not in ("weights", "means", "covariances") or len(leaf) >= width:
        return leaf
    more = np.repeat(leaf[-1:], width - len(leaf), axis=0)
    return np.concatenate([leaf, 0 * more if name == "weights" else more])


def _k_hat(tree: xr.DataTree) -> float | None:
    return float(k_hat(tree)[0]) if "log_weight" in tree["sample_stats"] else None


def _check_truncation(posterior: Posterior, method: str) -> None:
    prior, truncation = posterior.conjugate, int(posterior.options["truncation"])
    assert prior is not None
    bound = exact.ishwaran_james_bound(posterior.data.size, truncation, prior.concentration)
    if bound > NEGLIGIBLE:
        raise InputError(
            f"calibration: {method} samples the untruncated process, and truncation = {truncation} may change the data's"
            f" law by {bound:.1g}; raise it until this is below {NEGLIGIBLE:g}"
        )


def _exchangeable(posterior: Posterior) -> bool:
    return posterior.conjugate is not None and posterior.conjugate.weights == "dirichlet"


def _raw(key: Array | int) -> Array:
    """A seed, or a key of `jax.random.key`, as one of `jax.random.PRNGKey`: methods' programs are compiled for those."""
    if isinstance(key, int):
        return random.PRNGKey(key)
    return random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
