"""Kernels of the concentration, of weights and of their labels: right as they are, and wrong with each planted bug."""

import jax.numpy as jnp
import numpy as np
from jax import random
from jax.scipy.special import gammaln
from joint import (
    DIRICHLET,
    PRIOR,
    STICKS,
    Check,
    R,
    concentrations,
    counts_of,
    kernel_tests,
    labels_of,
    stick_weights,
)
from scipy.special import logsumexp, softmax

from dpgmm.densities import concentration
from dpgmm.methods import blocked_gibbs


def of_partition(rng):
    a = concentrations(rng)
    friends = rng.uniform(size=(R, 10)) < a[:, None] / (a[:, None] + np.arange(10))
    return {"a": a, "k": friends.sum(axis=1).astype(float)}


def one_cluster_more(f, on):
    return lambda key, a, k, n, prior: f(key, a, k + on, n, prior)


def points_counted_twice(f, on):
    return lambda key, a, k, n, prior: f(key, a, k, n * (1 + on), prior)


def eta_off_by_one(f, on):
    return lambda key, alpha, beta: f(key, alpha - on, beta)


GIVEN_CLUSTERS = Check(
    of_partition,
    lambda key, s: {"a": concentration.given_clusters(key, s["a"], s["k"], 10, PRIOR)},
    lambda s: {"a": s["a"], "a k": s["a"] * s["k"], "a / k": s["a"] / s["k"]},
    [
        (concentration, "given_clusters", one_cluster_more),
        (concentration, "given_clusters", points_counted_twice),
        (concentration, "_log_beta", eta_off_by_one),
    ],
    steps=2,
)


def of_sticks(rng):
    a = concentrations(rng)
    return {"a": a, "log_last": -rng.exponential(size=(R, 3)).sum(axis=1) / a}


def the_last_stick_too(f, on):
    return lambda key, log_last, m, prior: f(key, log_last, m + on, prior)


def a_stick_forgotten(f, on):
    return lambda key, log_last, m, prior: f(key, log_last * jnp.where(on, 2 / 3, 1), m, prior)


GIVEN_STICKS = Check(
    of_sticks,
    lambda key, s: {"a": concentration.given_sticks(key, s["log_last"], 3, PRIOR)},
    lambda s: {"a": s["a"], "a log last": s["a"] * s["log_last"]},
    [(concentration, "given_sticks", the_last_stick_too), (concentration, "given_sticks", a_stick_forgotten)],
)


def jacobian_forgotten(f, on):
    return lambda key, log_density, x, *rest: f(key, lambda y: log_density(y) - on * y, x, *rest)


def refuses_to_go_down(f, on):
    """A biased accept step."""

    def wrong(key, log_density, x, *rest):
        new = f(key, log_density, x, *rest)
        return jnp.where(on & (new < x) & (random.uniform(key) < 0.3), x, new)

    return wrong


SLICE = Check(
    lambda rng: {"x": np.log(concentrations(rng))},
    lambda key, s: {"x": concentration.slice_step(key, lambda x: 2 * x - jnp.exp(x), s["x"])},
    lambda s: {"x": s["x"], "|x|": np.abs(s["x"])},
    [(concentration, "slice_step", jacobian_forgotten), (concentration, "slice_step", refuses_to_go_down)],
    steps=2,
)


def of_counts(rng, size=6):
    a = concentrations(rng)
    logits, weights = stick_weights(rng, a, 3)
    return {"a": a, "logits": logits, "counts": counts_of(labels_of(rng, weights, size), 3)}


def always_swaps(f, on):
    return lambda counts, a: jnp.where(on, 0.0, f(counts, a))


def last_component_is_a_stick(f, on):
    extra = lambda n, a: jnp.log(a) + gammaln(1 + n) + gammaln(a) - gammaln(1 + a + n)
    return lambda counts, a: f(counts, a) + on * extra(counts[-1], a)


PERMUTE = Check(
    of_counts,
    lambda key, s: {"counts": s["counts"][blocked_gibbs.permute(key, s["counts"], s["a"], "sticks")]},
    lambda s: {
        "first": s["counts"][:, 0],
        "last": s["counts"][:, -1],
        "first by a": s["counts"][:, 0] * s["a"],
        "slope": s["counts"][:, 0] - s["counts"][:, 2] + 0.01 * s["a"],
    },
    [
        (blocked_gibbs, "log_allocations", always_swaps),
        (blocked_gibbs, "log_allocations", last_component_is_a_stick),
    ],
    steps=3,
)


def one_point_less(f, on):
    return lambda key, counts, a, prior: f(key, jnp.maximum(counts - on, 0), a, prior)


def stale_order(f, on):
    """Counts of the order before the labels were permuted."""
    return lambda key, counts, a, prior: f(key, jnp.where(on, counts[::-1], counts), a, prior)


def concentration_of_one(f, on):
    return lambda key, counts, a, prior: f(key, counts, jnp.where(on, 1.0, a), prior)


def weights_step(rule, prior):
    def step(key, s):
        new = blocked_gibbs.WEIGHTS[rule](key, s["counts"], s["a"], prior)
        return {"a": new["concentration"], "logits": new.get("stick_logits", new.get("log_masses"))}

    return step


def look_at_logits(s):
    of_logits = {f"logit {i}": s["logits"][:, i] for i in range(s["logits"].shape[1])}
    return of_logits | {
        "a": s["a"],
        "a by counts": s["a"] * (1 + s["counts"][:, 0]),
        "logit by counts": s["logits"][:, 0] * (s["counts"][:, 0] - 2),
        "total": logsumexp(s["logits"], axis=1),
    }


STICK_WEIGHTS = Check(
    of_counts,
    weights_step("sticks", STICKS),
    look_at_logits,
    [
        (blocked_gibbs.WEIGHTS, "sticks", one_point_less),
        (blocked_gibbs.WEIGHTS, "sticks", stale_order),
        (blocked_gibbs.WEIGHTS, "sticks", concentration_of_one),
        (concentration, "given_sticks", the_last_stick_too),
    ],
)


def of_masses(rng):
    a = concentrations(rng)
    share = a[:, None] / 3
    # A gamma of small shape underflows: one of shape + 1, times a power of a uniform, in logs.
    masses = np.log(rng.gamma(share + 1, size=(R, 3))) + np.log(rng.uniform(size=(R, 3))) / share
    return {"a": a, "logits": masses, "counts": counts_of(labels_of(rng, softmax(masses, axis=1), 6), 3)}


def all_of_it_to_each(f, on):
    """Dirichlet(a, .., a) for Dirichlet(a / K, .., a / K)."""
    return lambda key, counts, a, prior: f(key, counts + on * a * 2 / 3, a, prior)


def gamma_of_a_dropped(f, on):
    """A normaliser that depends on a parameter."""
    return lambda key, log_density, x, *rest: f(key, lambda y: log_density(y) - on * gammaln(jnp.exp(y)), x, *rest)


DIRICHLET_WEIGHTS = Check(
    of_masses,
    weights_step("dirichlet", DIRICHLET),
    look_at_logits,
    [
        (blocked_gibbs.WEIGHTS, "dirichlet", all_of_it_to_each),
        (concentration, "slice_step", jacobian_forgotten),
        (concentration, "slice_step", gamma_of_a_dropped),
    ],
    steps=2,
)

test_a_kernel_leaves_the_joint_distribution_alone, test_a_planted_bug_changes_it = kernel_tests(
    {
        "concentration given clusters": GIVEN_CLUSTERS,
        "concentration given sticks": GIVEN_STICKS,
        "slice": SLICE,
        "permutation of labels": PERMUTE,
        "sticks": STICK_WEIGHTS,
        "Dirichlet weights": DIRICHLET_WEIGHTS,
    }
)
