"""`chips`, `wasabi` and `cbi`: what stands for draws beside one partition and its ball. The labelled layer on arrays."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
import pandas as pd
import xarray as xr

from .. import draws as schema
from ..draws import allocations as gaussian_allocations
from ..draws.components import Components
from ..draws.monte_carlo import mcse_of_each
from ..errors import InputError, at_least
from ._conformal import KERNEL, Conformal, conformal
from ._particles import Particles, particles
from ._partition import LIMIT, _Labels, _labels
from ._subpartition import OUT, SubPartition, subpartition
from .losses import Loss


@dataclasses.dataclass(frozen=True, eq=False)
class Chips:
    """What `chips` found.

    partition: labels by first appearance over `obs`, whose coordinate is the row of the data; -1 for those left out.
    probability, probability_mcse: of the sub-partition, and the Monte Carlo standard error (NaN of few draws).
    holds: the draws in which it holds. parameters: `weights`, `means`, `covariances` of each of its clusters in those draws,
    over `sample` and `cluster`; None where the draws have no Gaussian components. observations, notes: as in `Partition`.
    """

    partition: xr.DataArray
    probability: float
    probability_mcse: float
    gamma: float
    size: int
    num_clusters: int
    holds: xr.DataArray
    parameters: xr.Dataset | None
    observations: np.ndarray
    notes: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """One row a cluster: observations inside, means and standard deviations of weight and centre over those draws."""
        inside = self.partition.values[self.partition.values != OUT]
        frame = pd.DataFrame({"cluster": np.arange(self.num_clusters), "observations": np.bincount(inside)})
        if self.parameters is None:
            return frame
        told = {"weight": self.parameters["weights"]}
        dims = self.parameters["dim"].values
        told |= {"mean" if len(dims) == 1 else f"mean {d}": self.parameters["means"].sel(dim=d) for d in dims}
        for name, values in told.items():
            frame[name], frame[f"{name} sd"] = values.mean("sample").values, values.std("sample").values
        return frame


@dataclasses.dataclass(frozen=True, eq=False)
class Wasabi:
    """What `wasabi` found: `partitions` over `particle` and `obs`, `weights` over `particle`, decreasing; `nearest`, the
    particle of each draw; `distance`, the Wasserstein distance in `units`; `particles`, the same as arrays.
    """

    partitions: xr.DataArray
    weights: xr.DataArray
    nearest: xr.DataArray
    distance: float
    units: str
    particles: Particles
    observations: np.ndarray
    notes: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """One row a particle: share of the draws nearest to it, number of clusters, mean loss of those draws."""
        found = self.particles
        columns = {"weight": found.weights, "clusters": found.num_clusters, "expected loss": found.expected_losses}
        return pd.DataFrame({"particle": np.arange(len(found.weights))} | columns)


@dataclasses.dataclass(frozen=True, eq=False)
class Cbi:
    """What `cbi` found: `modes` over `mode` and `obs`, `weights` of them, the share of calibration draws that lead there.

    `conformal` has `p_value(partition)` and `contains(partition, level)` for labels of the `observations`.
    """

    modes: xr.DataArray
    weights: xr.DataArray
    conformal: Conformal
    observations: np.ndarray
    notes: tuple[str, ...]

    def p_value(self, partition: np.ndarray | xr.DataArray) -> float:
        """Conformal p-value of labels ``(n,)`` of the `observations`."""
        return self.conformal.p_value(np.asarray(partition))

    def table(self) -> pd.DataFrame:
        """One row a mode: share of the calibration draws, number of clusters, p-value."""
        labels = self.modes.values
        columns = {"mode": np.arange(len(labels)), "weight": self.weights.values, "clusters": labels.max(axis=1) + 1}
        return pd.DataFrame(columns | {"p-value": [self.p_value(row) for row in labels]})


def chips(
    draws: xr.DataTree | xr.Dataset,
    gamma: float = 0.95,
    *,
    allocations: str = "allocations",
    group: str = "posterior",
    sample_dims: Sequence[str] = ("chain", "draw"),
    limit: int = LIMIT,
    starts: int = 64,
    rounds: int = 64,
    seed: int = 0,
) -> Chips:
    """The most observations whose clustering holds with posterior probability `gamma` or more (CHIPS).

    In the draws where it holds each of its clusters is in one component, which has all its members: the cluster's weight,
    mean and covariance are that component's, and need no relabelling. They are draws given that the sub-partition holds.

    `draws` and what names them: as in `partition`. Definition, search and source: `subpartition`.

    Raises `InputError` where neither allocations nor components are found, and for options out of range.
    """
    found = _observed(draws, allocations, group, sample_dims, limit, seed)
    best = subpartition(found.draws, gamma, starts=starts, rounds=rounds, seed=seed)
    held = _over_samples(best.holds, draws, group, sample_dims)
    chains = best.holds.reshape(*held.shape[:1], -1, 1) if held.ndim == 2 else best.holds[None, :, None]
    return Chips(
        partition=_over(best.partition[None], found.rows, "one")[0].drop_vars("one"),
        probability=best.probability,
        probability_mcse=float(mcse_of_each(chains.astype(float))[0]),
        gamma=best.gamma,
        size=best.size,
        num_clusters=best.num_clusters,
        holds=held,
        parameters=_parameters(draws, best, found, allocations, group, seed),
        observations=found.rows,
        notes=found.notes,
    )


def wasabi(
    draws: xr.DataTree | xr.Dataset,
    num_particles: int = 4,
    loss: str | Loss = "vi",
    *,
    allocations: str = "allocations",
    group: str = "posterior",
    sample_dims: Sequence[str] = ("chain", "draw"),
    limit: int = LIMIT,
    restarts: int = 16,
    starts: int = 16,
    seed: int = 0,
    workers: int | None = None,
) -> Wasabi:
    """Several partitions with weights that together stand for the draws: a Wasserstein approximation (WASABI).

    `draws` and what names them: as in `partition`. Definition, search and source: `particles`.

    Raises `InputError` where neither allocations nor components are found, and for options out of range.
    """
    found = _observed(draws, allocations, group, sample_dims, limit, seed)
    options = {"restarts": restarts, "starts": starts, "seed": seed, "workers": workers}
    best = particles(found.draws, num_particles, loss, **options)
    return Wasabi(
        partitions=_over(best.partitions, found.rows, "particle"),
        weights=xr.DataArray(best.weights, dims="particle", coords={"particle": np.arange(len(best.weights))}),
        nearest=_over_samples(best.nearest, draws, group, sample_dims),
        distance=best.distance,
        units=best.loss.units,
        particles=best,
        observations=found.rows,
        notes=found.notes,
    )


def cbi(
    draws: xr.DataTree | xr.Dataset,
    num_modes: int = 2,
    loss: str | Loss = "vi",
    *,
    allocations: str = "allocations",
    group: str = "posterior",
    sample_dims: Sequence[str] = ("chain", "draw"),
    limit: int = LIMIT,
    kernel: float = KERNEL,
    training: float = 0.5,
    seed: int = 0,
) -> Cbi:
    """A conformal credible set of partitions, a p-value for any partition, and modes (CBI).

    `draws` and what names them: as in `partition`. Definition and source: `conformal`.

    Raises `InputError` where neither allocations nor components are found, and for options out of range.
    """
    found = _observed(draws, allocations, group, sample_dims, limit, seed)
    best = conformal(found.draws, loss, kernel=kernel, training=training, seed=seed)
    modes, weights = best.modes(num_modes)
    return Cbi(
        modes=_over(modes, found.rows, "mode"),
        weights=xr.DataArray(weights, dims="mode", coords={"mode": np.arange(len(weights))}),
        conformal=best,
        observations=found.rows,
        notes=found.notes,
    )


def _observed(
    draws: xr.DataTree | xr.Dataset, name: str, group: str, sample_dims: Sequence[str], limit: int, seed: int
) -> _Labels:
    at_least("partition", 1, limit=limit)
    at_least("partition", 0, seed=seed)
    return _labels(draws, name, group, tuple(sample_dims), limit, seed)


def _over(labels: np.ndarray, rows: np.ndarray, of: str) -> xr.DataArray:
    return xr.DataArray(labels, dims=(of, "obs"), coords={of: np.arange(len(labels)), "obs": rows})


def _over_samples(
    values: np.ndarray, draws: xr.DataTree | xr.Dataset, group: str, sample_dims: Sequence[str]
) -> xr.DataArray:
    """Values of every draw over those of `sample_dims` that make it up, else over `sample`."""
    sizes = draws[group].sizes if isinstance(draws, xr.DataTree) else draws.sizes
    shape = {d: sizes[d] for d in sample_dims if d in sizes}
    if math.prod(shape.values()) != len(values):
        shape = {"sample": len(values)}
    return xr.DataArray(values.reshape(tuple(shape.values())), dims=tuple(shape))


def _parameters(
    draws: xr.DataTree | xr.Dataset, best: SubPartition, found: _Labels, name: str, group: str, seed: int
) -> xr.Dataset | None:
    """Weight, mean and covariance of every cluster's component in the draws where the sub-partition holds."""
    if not isinstance(draws, xr.DataTree) or group != "posterior":
        return None
    try:
        tree = schema.check(draws)
    except InputError:  # somebody else's draws: labels are all that is known of them
        return None
    posterior = tree["posterior"].to_dataset()
    components = Components.of(posterior).flatten()
    own = _components_of(tree, components, found.rows, name, seed)
    _, first = np.unique(best.partition[best.partition != OUT], return_index=True)
    members = np.flatnonzero(best.partition != OUT)[first]
    weights, means, covariances = components.at(best.holds).take(own[best.holds][:, members].astype(int)).full()
    places = np.unravel_index(np.flatnonzero(best.holds), posterior["weights"].shape[:2])
    sample = {d: ("sample", posterior[d].values[k]) for d, k in zip(("chain", "draw"), places, strict=True)}
    dims = posterior["dim"].values if "dim" in posterior.coords else np.arange(means.shape[-1])
    return xr.Dataset(
        {
            "weights": (("sample", "cluster"), weights),
            "means": (("sample", "cluster", "dim"), means),
            "covariances": (("sample", "cluster", "dim", "dim_"), covariances),
        },
        coords={**sample, "cluster": np.arange(best.num_clusters), "dim": dims, "dim_": dims},
    )


def _components_of(tree: xr.DataTree, components: Components, rows: np.ndarray, name: str, seed: int) -> np.ndarray:
    """The component of each observation in each draw, ``(T, n)``: kept ones, else the same draw of them as `partition`'s."""
    for where in ("posterior", "sample_stats"):
        if where in tree.children and name in tree[where].to_dataset():
            kept = tree[where].to_dataset()[name].values
            return kept.reshape(-1, kept.shape[-1])[:, rows]
    return gaussian_allocations.draw(jax.random.key(seed), *components, schema.data_of(tree).points[rows])
