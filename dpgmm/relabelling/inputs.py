"""What relabelling needs, taken from a DataTree or Dataset whatever its variables and dimensions are called."""

import dataclasses
import functools
from collections.abc import Hashable, Mapping, Sequence

import jax
import numpy as np
import xarray as xr

from ..draws import allocations as allocating
from ..draws import spreads
from ..draws.components import Components
from ..draws.schema import expanded
from ..errors import InputError
from . import assignment
from .probabilities import Gaussians, counts

SAMPLE = ("chain", "draw")
SPREADS = ("covariances", "variances", "scales", "precisions")
OURS = ("weights", "means", "covariances", "variances", "allocations", "probabilities")
LOG_DENSITIES = ("total_log_likelihood", "log_likelihood", "log_joint", "lp", "lp__")


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """Arrays by role, draws of all chains in one axis T. Roles that the draws lack raise `InputError` when asked for.

    `names` maps roles (weights, means, covariances, variances, scales, precisions, allocations, probabilities,
    log_density) to variables; `components` are the names that the component dimension has.
    """

    posterior: xr.Dataset
    components: tuple[str, ...]
    names: Mapping[str, str]
    sample_stats: xr.Dataset
    given_points: np.ndarray | None
    given_point_weights: np.ndarray | None
    first_label: int
    seed: int

    @functools.cached_property
    def num_components(self) -> int:
        """K, or an `InputError` where the component dimensions are missing or differ in length."""
        sizes = {d: self.posterior.sizes[d] for d in self.components if d in self.posterior.sizes}
        missing = [d for d in self.components if d not in sizes]
        if missing:
            raise InputError(
                f"component = {missing[0]!r}: no such dimension in the posterior, which has "
                f"{', '.join(map(str, self.posterior.sizes))}; name the dimension(s) of the components"
            )
        if len(set(sizes.values())) > 1:
            raise InputError(f"component dimensions differ in length: {sizes}; they must name one and the same axis")
        return next(iter(sizes.values()))

    @functools.cached_property
    def num_draws(self) -> int:
        """T, draws of all chains."""
        return self.posterior.sizes["chain"] * self.posterior.sizes["draw"]

    @functools.cached_property
    def points(self) -> np.ndarray:
        """Observations ``(N, D)``."""
        if self.given_points is None:
            raise InputError(
                "no observations: there is no observed_data group to take them from; give points= (name or array)"
            )
        return self.given_points

    @functools.cached_property
    def point_weights(self) -> np.ndarray | None:
        """Weights ``(N,)`` of the observations, or None where all are one."""
        weights = self.given_point_weights
        return None if weights is None or (weights == 1).all() else weights

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """Mixture weights ``(T, K)``."""
        return self._by_component("weights")

    @functools.cached_property
    def means(self) -> np.ndarray:
        """Means ``(T, K, D)``; a variable without a dimension beside the component's is D = 1."""
        means = self._by_component("means")
        return means.reshape(*means.shape[:2], -1)

    @functools.cached_property
    def covariances(self) -> np.ndarray:
        """Covariances ``(T, K, D, D)``, from whichever of `SPREADS` was named: a number, a diagonal or a matrix each."""
        role = next((r for r in SPREADS if r in self.names), "covariances")
        values = self._by_component(role)
        name, shape = self.names[role], (1, *self.means.shape)
        found = spreads.covariances(spreads.arranged(values[None], name, role, shape), role, name)[0]
        return expanded(found, self.means)

    @functools.cached_property
    def gaussians(self) -> Gaussians:
        """All of the above, with the dimensions checked against each other."""
        if self.points.shape[1] != self.means.shape[-1]:
            raise InputError(
                f"points have {self.points.shape[1]} columns and means {self.means.shape[-1]}; they must agree"
            )
        return Gaussians(self.weights, self.means, self.covariances, self.points)

    @functools.cached_property
    def probabilities(self) -> np.ndarray | Gaussians:
        """Allocation probabilities ``(T, N, K)`` as given, or the `Gaussians` that stand for them."""
        if "probabilities" not in self.names:
            return self.gaussians
        values = self._by_component("probabilities")
        if values.ndim != 3:
            raise InputError(f"{self.names['probabilities']}: it must have one dimension beside {SAMPLE} and component")
        if (values < 0).any() or not np.allclose(values.sum(axis=1), 1, atol=1e-3):
            raise InputError(
                f"{self.names['probabilities']}: not probabilities: they must sum to 1 over the components"
            )
        return np.swapaxes(values, 1, 2)

    @functools.cached_property
    def allocations(self) -> np.ndarray:
        """Allocations ``(T, N)`` from 0: as given, or one drawn from the probabilities of each draw.

        They are drawn with the components in order of weight and mean, so that they do not depend on the labels.
        """
        if "allocations" in self.names:
            return self.labels(self._variable("allocations")).reshape(self.num_draws, -1)
        probabilities, key = self.probabilities, jax.random.PRNGKey(self.seed)
        if not isinstance(probabilities, Gaussians):
            return _drawn(probabilities, np.random.default_rng(self.seed))
        components = Components(*probabilities[:3])
        order = components.order()
        labels = allocating.draw(key, *components.take(order), self.points)
        for part in assignment.blocks(*labels.shape):
            labels[part] = np.take_along_axis(order[part], labels[part].astype(np.int64), axis=1)
        return labels

    def labels(self, variable: xr.DataArray) -> np.ndarray:
        """Values of an allocation variable, ``(chain, draw, ...)``, counted from 0."""
        labels = np.asarray(variable.transpose(*SAMPLE, ...).values)
        last = self.first_label + self.num_components - 1
        whole = labels.dtype.kind in "iuf" and bool((labels == np.floor(labels)).all())
        if not whole or labels.min() < self.first_label or labels.max() > last:
            raise InputError(
                f"{variable.name}: values {labels.min()} to {labels.max()} ({labels.dtype}), expected whole numbers "
                f"{self.first_label} to {last}; where components are counted from 1, as in Stan, give first_label=1"
            )
        return (labels if labels.dtype.kind in "iu" else labels.astype(np.int64)) - self.first_label

    @functools.cached_property
    def log_density(self) -> np.ndarray:
        """A log density of every draw, ``(T,)``, whose largest value says which draw is the pivot."""
        for name in [self.names["log_density"]] if "log_density" in self.names else LOG_DENSITIES:
            for group in (self.sample_stats, self.posterior):
                if name in group and set(group[name].dims) == set(SAMPLE):
                    return np.asarray(group[name].transpose(*SAMPLE).values, float).ravel()
        if "log_density" in self.names:
            raise InputError(f"log_density = {self.names['log_density']!r}: no such variable of dimensions {SAMPLE}")
        raise InputError(
            f"no pivot: none of {', '.join(LOG_DENSITIES)} tells the best draw; give pivot=(chain, draw) or log_density="
        )

    @functools.cached_property
    def active(self) -> np.ndarray:
        """Whether a component carries data, ``(T, K)``: it holds a point, or is expected to hold one at least.

        Where neither allocations nor probabilities are to be had, all components count as active.
        """
        if "allocations" in self.names:
            cells = self.allocations + self.num_components * np.arange(self.num_draws)[:, None]
            shape = self.num_draws, self.num_components
            return np.bincount(cells.ravel(), minlength=shape[0] * shape[1]).reshape(shape) > 0
        gaussian = {"weights", "means"} <= set(self.names) and any(r in self.names for r in SPREADS)
        if "probabilities" not in self.names and not (gaussian and self.given_points is not None):
            return np.ones((self.num_draws, self.num_components), bool)
        return counts(self.probabilities, self.point_weights) >= 1

    def column(self, name: str, index: int) -> np.ndarray:
        """One scalar of every component, ``(T, K)``, of the variable called `name`, entry `index` of what it holds."""
        values = self._values(self._named(name, "by"), name).reshape(self.num_draws, self.num_components, -1)
        if not 0 <= index < values.shape[-1]:
            raise InputError(f"by = ({name!r}, {index}): {name} has entries 0 to {values.shape[-1] - 1} per component")
        return values[..., index]

    def _by_component(self, role: str) -> np.ndarray:
        return self._values(self._variable(role), role)

    def _values(self, variable: xr.DataArray, role: str) -> np.ndarray:
        """``(T, K, ...)`` float; one value for all components where the variable has no component dimension."""
        own = [d for d in variable.dims if d in self.components]
        values = np.asarray(variable.transpose(*SAMPLE, *own[:1], ...).values, float)
        if not np.isfinite(values).all():
            raise InputError(f"{variable.name} ({role}) is not finite everywhere; remove or refit the broken chain")
        if not own:
            values = np.repeat(values[:, :, None], self.num_components, axis=2)
        return values.reshape(self.num_draws, *values.shape[2:])

    def _variable(self, role: str) -> xr.DataArray:
        if role not in self.names:
            raise InputError(f"{role}: this method needs them and no variable was named; give {role}=")
        return self._named(self.names[role], role)

    def _named(self, name: str, role: str) -> xr.DataArray:
        if role == "allocations" and name not in self.posterior and name in self.sample_stats:
            return self.sample_stats[name]
        if name not in self.posterior:
            found = ", ".join(map(str, self.posterior.data_vars))
            raise InputError(f"{role} = {name!r}: no such variable in the posterior, which has {found}")
        variable = self.posterior[name]
        if not set(SAMPLE) <= set(variable.dims):
            raise InputError(f"{name}: dimensions {variable.dims}, expected chain and draw among them")
        return variable


def gather(
    draws: xr.DataTree | xr.Dataset,
    component: str | Sequence[str],
    names: Mapping[str, str | None],
    points: str | np.ndarray | xr.DataArray | None,
    point_weights: str | np.ndarray | xr.DataArray | None,
    first_label: int,
    seed: int,
) -> Inputs:
    """`Inputs` of a tree (its group `posterior`) or of a Dataset. Names left out default to those of our schema."""
    posterior = group(draws, "posterior") if isinstance(draws, xr.DataTree) else draws
    if not isinstance(posterior, xr.Dataset) or not posterior.data_vars:
        raise InputError(
            f"draws: {type(draws).__name__} without a posterior; give an xarray Dataset or a DataTree with a group "
            "'posterior' (an InferenceData has .to_datatree())"
        )
    missing = [d for d in SAMPLE if d not in posterior.sizes]
    if missing:
        raise InputError(f"draws: no dimension {missing[0]!r}; rename, or add it with .expand_dims({missing[0]!r})")
    chosen = {role: name for role, name in names.items() if name is not None}
    if sum(role in chosen for role in SPREADS) > 1:
        raise InputError(f"{', '.join(r for r in SPREADS if r in chosen)}: give one of them, they say the same thing")
    sample_stats = group(draws, "sample_stats") if isinstance(draws, xr.DataTree) else xr.Dataset()
    ours = [r for r in OURS if r not in chosen and (r in posterior or r == "allocations" in sample_stats)]
    chosen |= {r: r for r in ours if not (r in SPREADS and any(s in chosen for s in SPREADS))}
    found = _observed(draws, points, "points")
    weights = _observed(draws, point_weights, "point_weights")
    inputs = Inputs(
        posterior=posterior,
        components=(component,) if isinstance(component, str) else tuple(component),
        names=chosen,
        sample_stats=sample_stats,
        given_points=None if found is None else found.reshape(len(found), -1),
        given_point_weights=None if points is not None and point_weights is None else weights,
        first_label=first_label,
        seed=seed,
    )
    _ = inputs.num_components  # a misspelt dimension is reported first, whatever the method goes on to ask for
    return inputs


def group(tree: xr.DataTree, name: str) -> xr.Dataset:
    """A group as a Dataset; an empty one where the tree lacks it."""
    return tree[name].to_dataset() if name in tree.children else xr.Dataset()


def _observed(draws, given, role: str) -> np.ndarray | None:
    """Points or point weights: an array, a name, ours by default, or the only variable observed."""
    if given is not None and not isinstance(given, str):
        return np.asarray(given, float)
    groups = (
        [group(draws, g) for g in ("observed_data", "constant_data")] if isinstance(draws, xr.DataTree) else [draws]
    )
    if isinstance(given, str):
        for dataset in groups:
            if given in dataset:
                return np.asarray(dataset[given].values, float)
        raise InputError(f"{role} = {given!r}: no such variable among the observed data; give its name or an array")
    observed: Mapping[Hashable, xr.DataArray] = groups[0].data_vars if isinstance(draws, xr.DataTree) else {}
    name = role if role in observed else next(iter(observed)) if role == "points" and len(observed) == 1 else None
    return None if name is None else np.asarray(observed[name].values, float)


def _drawn(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One allocation of every point, by inversion, the components of a draw in order of their expected counts."""
    order = np.argsort(probabilities.sum(axis=1), axis=-1, kind="stable")
    result = np.empty(probabilities.shape[:2], np.int64)
    for t, p in enumerate(probabilities):
        cumulative = np.cumsum(p[:, order[t]], axis=1)
        u = rng.random(len(p)) * cumulative[:, -1]
        result[t] = order[t][(cumulative <= u[:, None]).sum(axis=1).clip(max=p.shape[1] - 1)]
    return result
