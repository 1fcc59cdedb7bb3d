"""Kinds of start for optimisers and chains, of one and the same posterior."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from sklearn.cluster import kmeans_plusplus

from dpgmm.errors import InputError
from dpgmm.model.posterior import Posterior

JITTER = 1e-3
"""Spread of means that all start at the data's mean, in standard deviations of the data."""


def starting(posterior: Posterior, kind: str) -> Posterior:
    """The same posterior with other starts: the kind's means replace those of the model's own start.

    The kinds are in `STARTS`. Raises `InputError` for another one.
    """
    if kind not in STARTS:
        raise InputError(f"no kind of start {kind!r}; there are {', '.join(STARTS)}")
    own = posterior.initial

    def initial(key: Array) -> dict[str, Array]:
        key_own, key_means = random.split(key)
        return own(key_own) | STARTS[kind](key_means, posterior)

    return dataclasses.replace(posterior, initial=initial)


def _at_points(key: Array, posterior: Posterior) -> dict[str, Array]:
    """The model's own: means at random points of the data."""
    return {}


def _at_mean(key: Array, posterior: Posterior) -> dict[str, Array]:
    data, num_components = posterior.data, int(posterior.options["truncation"])
    noise = random.normal(key, (num_components, data.dim))
    return {"means": jnp.asarray(data.mean) + JITTER * jnp.asarray(data.scale) * noise}


def _by_kmeans(key: Array, posterior: Posterior) -> dict[str, Array]:
    """Means at points far from one another (Arthur & Vassilvitskii 2007), by scikit-learn, called from within JAX."""
    data, num_components = posterior.data, int(posterior.options["truncation"])
    shape = jax.ShapeDtypeStruct((num_components, data.dim), jax.dtypes.canonicalize_dtype(float))

    def seeds(seed):
        state = int(np.asarray(seed))
        centres = kmeans_plusplus(data.points, num_components, sample_weight=data.weights, random_state=state)[0]
        return centres.astype(shape.dtype)

    seed = random.randint(key, (), 0, 2**31 - 1)
    return {"means": jax.pure_callback(seeds, shape, seed, vmap_method="sequential")}


STARTS = {"points of the data": _at_points, "mean of the data": _at_mean, "k-means++": _by_kmeans}
