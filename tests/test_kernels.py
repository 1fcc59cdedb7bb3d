"""Every transition kernel leaves the joint distribution of parameters and data alone, and planted bugs do not.

Exact draws of that distribution come from numpy and scipy, an independent statement of the model; the kernel is compiled
once a check, with all of its bugs in it behind a switch, an argument of the program: number -1 is the kernel as it is.
"""

import functools
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
from jax import random
from jax.scipy.special import gammaln
from numpyro.infer.hmc import hmc
from scipy.special import logsumexp, softmax

from dpgmm import (
    Dataset,
    base_measure,
    calibration,
    clusters,
    concentration,
    conjugate,
    gaussian,
    load_model,
    mixture,
    sticks,
)
from dpgmm.concentration import Concentration
from dpgmm.distributions import LogGammas
from dpgmm.gaussian import BaseMeasure
from dpgmm.methods import _collapsed, _split_merge, blocked_gibbs
from dpgmm.posterior import Conjugate, Hyperprior, Mixture
from dpgmm.transforms import positive, stick_logits

R = 8_000
"""Replicates of a batch."""
PRIOR = Concentration(2.0, 1.0)
BASE = BaseMeasure(jnp.array([0.7]), jnp.asarray(0.3), jnp.asarray(5.0), jnp.array([[[1.3]]]))
STICKS, DIRICHLET = (Conjugate(BASE, PRIOR, rule) for rule in ("sticks", "dirichlet"))


# Draws of the joint distribution, by numpy: leading axis of R replicates.


def concentrations(rng):
    return rng.gamma(PRIOR.shape, 1 / PRIOR.rate, R)


def components(rng, number, base=BASE):
    """Means and standard deviations, (R, number, 1) and (R, number, 1, 1)."""
    mean, kappa, df, scale = (float(np.asarray(leaf).squeeze()) for leaf in base)
    variances = st.invgamma(df / 2, scale=scale**2 / 2).rvs((R, number), rng)
    means = mean + rng.normal(size=(R, number)) * np.sqrt(variances / kappa)
    return means[..., None], np.sqrt(variances)[..., None, None]


def stick_weights(rng, a, number):
    """Logits of ``number - 1`` sticks, and weights."""
    v = -np.expm1(-rng.exponential(size=(R, number - 1)) / a[:, None])
    v = np.clip(v, 1e-300, 1 - 1e-16)
    left = np.cumprod(np.concatenate([np.ones((R, 1)), 1 - v], axis=1), axis=1)
    return np.log(v) - np.log1p(-v), np.concatenate([v, np.ones((R, 1))], axis=1) * left


def labels_of(rng, weights, size):
    """Allocations of `size` points, (R, size)."""
    edges = np.cumsum(weights, axis=1)[:, None]
    return np.minimum((edges < rng.uniform(size=(R, size, 1))).sum(axis=-1), weights.shape[1] - 1)


def counts_of(labels, number):
    return (labels[..., None] == np.arange(number)).sum(axis=1).astype(float)


def seats(rng, a, size):
    """Partitions by the Chinese restaurant process: a newcomer joins an earlier guest, or with weight a nobody."""
    labels = np.zeros((R, size), int)
    for i in range(1, size):
        friend = labels[np.arange(R), rng.integers(0, i, R)]
        alone = rng.uniform(size=R) * (a + i) < a
        labels[:, i] = np.where(alone, labels[:, :i].max(axis=1) + 1, friend)
    return labels


def points_of(rng, labels, means, trils):
    noise = rng.normal(size=labels.shape)
    return (
        np.take_along_axis(means[..., 0], labels, 1)[..., None]
        + (np.take_along_axis(trils[..., 0, 0], labels, 1) * noise)[..., None]
    )


# Checks: a start, a step of one replicate, what to look at, and bugs.


class Check(NamedTuple):
    """`start(rng)`, a state of arrays; `step(key, state)`, what changes; `look(state)`; bugs as (where, name, bug).

    `steps` of the kernel, on R replicates.
    """

    start: Callable
    step: Callable
    look: Callable
    bugs: list
    steps: int = 1


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

PLANE = BaseMeasure(jnp.array([0.5, -1.0]), jnp.asarray(0.4), jnp.asarray(5.0), jnp.array([[[1.2, 0.0], [0.5, 0.8]]]))


def of_one_cluster(rng):
    [lower] = np.asarray(PLANE.scale_tril)
    psi = lower @ lower.T
    trils = np.linalg.cholesky(st.invwishart(float(PLANE.df), psi).rvs(R, rng))
    noise = rng.normal(size=(4, R, 2))
    noise[0] /= np.sqrt(float(PLANE.kappa))
    moved = np.einsum("rde,pre->prd", trils, noise)
    means = np.asarray(PLANE.mean) + moved[0]
    return {"mean": means, "tril": trils, "points": np.swapaxes(means + moved[1:], 0, 1)}


def cluster_step(key, s):
    statistics = clusters.statistics(s["points"] - PLANE.mean, jnp.zeros(3, int), 1, PLANE)
    means, trils = conjugate.sample(key, conjugate.update(*statistics, PLANE))
    return {"mean": means[0], "tril": trils[0, 0]}


def look_at_a_cluster(s):
    (x, y), (a, b, c) = s["mean"].T, s["tril"][:, [0, 1, 1], [0, 0, 1]].T
    centre = s["points"].mean(axis=1)
    size = np.log(np.var(s["points"], axis=1).sum(axis=1))
    return {
        "x": x,
        "y": y,
        "log a": np.log(a),
        "slope": b / a,
        "log c": np.log(c),
        "off the points": (x - centre[:, 0]) / a,
        "distance": np.abs(y - centre[:, 1]) / c,
        "size": np.log(a) - size / 2,
        "b by x": b / a * x,
    }


def a_degree_less(f, on):
    return lambda *args: (new := f(*args))._replace(df=new.df - on)


def one_more_in_kappa(f, on):
    return lambda *args: (new := f(*args))._replace(kappa=new.kappa + on)


def half_the_scatter(f, on):
    def wrong(counts, sums, squares, base, tied=False):
        about_mean = squares - conjugate.product(sums, sums, base) / counts[..., None, None, None]
        return f(counts, sums, squares - 0.5 * on * about_mean, base, tied)

    return wrong


def mean_without_kappa(f, on):
    return lambda key, base: f(key, base._replace(kappa=jnp.where(on, 1.0, base.kappa)))


CLUSTER = Check(
    of_one_cluster,
    cluster_step,
    look_at_a_cluster,
    [
        (conjugate, "update", a_degree_less),
        (conjugate, "update", one_more_in_kappa),
        (conjugate, "update", half_the_scatter),
        (conjugate, "sample", mean_without_kappa),
    ],
)

HYPER = Hyperprior(2.0, 1.0)


def of_base(rng):
    """The mean's prior is flat: it stands at zero, and only what does not move with everything is looked at."""
    kappa, (_, trils) = rng.gamma(HYPER.shape, 1 / HYPER.rate, R), components(rng, 3)
    means = trils[..., 0] * rng.normal(size=(R, 3, 1)) / np.sqrt(kappa)[:, None, None]
    return {"mean": np.zeros((R, 1)), "kappa": kappa, "means": means, "trils": trils}


def base_step(key, s):
    held = jnp.ones(3, bool)
    mean, kappa = conjugate.sample_base(key, s["means"], s["trils"], held, s["kappa"], HYPER)
    return {"mean": mean, "kappa": kappa}


def look_at_base(s):
    away = (s["means"] - s["mean"][:, None])[..., 0] / s["trils"][..., 0, 0]
    return {
        "kappa": s["kappa"],
        "away": away[:, 0],
        "spread": (away**2).sum(axis=1) * s["kappa"],
        "middle": away.mean(axis=1) * np.sqrt(s["kappa"]),
    }


def half_a_degree_less(f, on):
    return lambda *args: f(*args[:-1], args[-1]._replace(shape=args[-1].shape - 0.5 * on))


def noise_without_kappa(f, on):
    def wrong(key, means, trils, held, kappa, prior):
        mean, new = f(key, means, trils, held, kappa, prior)
        return jnp.where(on, f(key, means, trils, held, 1.0, prior)[0], mean), new

    return wrong


def one_component_forgotten(f, on):
    return lambda key, means, trils, held, *rest: f(key, means, trils, held.at[0].set(~on), *rest)


LEARNT_BASE = Check(
    of_base,
    base_step,
    look_at_base,
    [
        (conjugate, "sample_base", half_a_degree_less),
        (conjugate, "sample_base", noise_without_kappa),
        (conjugate, "sample_base", one_component_forgotten),
    ],
    steps=2,
)


def of_restaurant(rng, size=5):
    a = concentrations(rng)
    labels = seats(rng, a, size)
    return {"a": a, "labels": labels, "points": points_of(rng, labels, *components(rng, size))}


def look_at_partition(s):
    labels, x = s["labels"], s["points"][..., 0]
    together = labels[:, :, None] == labels[:, None, :]
    apart = np.abs(x[:, :, None] - x[:, None, :])
    number = 1 + (~np.tril(together, -1).any(axis=2))[:, 1:].sum(axis=1)
    return {
        "clusters": number,
        "clusters by a": number * s["a"],
        "pairs": together.sum(axis=(1, 2)) + 1e-3 * apart.mean(axis=(1, 2)),
        "distance within": (together * np.log1p(apart)).sum(axis=(1, 2)),
        "distance between": (~together * np.log1p(apart)).sum(axis=(1, 2)),
        "far and together": (together * (apart > 2)).sum(axis=(1, 2)) + 1e-3 * s["a"],
    }


def sweep_step(key, s):
    labels, _ = _collapsed.sweep(key, s["labels"], s["points"], s["a"], BASE, 6)
    return {"labels": labels}


def either(on, wrong, right):
    return jax.tree.map(lambda w, r: jnp.where(on, w, r), wrong, right)


def forgets_to_leave(f, on):
    """Stale statistics: a point takes its new seat without having left the old one."""
    return lambda table, k, x, sign, *rest: either(on & (sign < 0), table, f(table, k, x, sign, *rest))


def keeps_old_precisions(f, on):
    """Half-stale statistics: means follow, scatter matrices do not."""

    def wrong(table, k, x, sign, *rest):
        new = f(table, k, x, sign, *rest)
        return new._replace(precisions=jnp.where(on, table.precisions, new.precisions))

    return wrong


def wrong_sign_in_sherman_morrison(f, on):
    def wrong(table, k, x, sign, *rest):
        new = f(table, k, x, sign, *rest)
        return new._replace(precisions=jnp.where(on, 2 * table.precisions - new.precisions, new.precisions))

    return wrong


def keeps_its_own_seat(f, on):
    """A point that leaves still counts among those that sit at its table."""

    def wrong(table, k, x, sign, *rest):
        new = f(table, k, x, sign, *rest)
        return new._replace(counts=jnp.where(on & (sign < 0) & (new.counts > 0), table.counts, new.counts))

    return wrong


def one_degree_less(f, on):
    return lambda table, x, base: f(table._replace(dfs=table.dfs - on), x, base)


def kappa_stays(f, on):
    """The predictive density with the prior's kappa."""
    return lambda table, x, base: f(table, x, base._replace(kappa=base.kappa + on * (1.0 - table.counts)))


def no_determinant(f, on):
    return lambda df, kappa, log_dets, base: f(df, kappa, jnp.where(on, 0.0, log_dets), base)


def a_new_table_is_free(f, on):
    return lambda key, labels, points, a, *rest: f(key, labels, points, jnp.where(on, 1.0, a), *rest)


SWEEP = Check(
    of_restaurant,
    sweep_step,
    look_at_partition,
    [
        (clusters, "change", forgets_to_leave),
        (clusters, "change", keeps_old_precisions),
        (clusters, "change", wrong_sign_in_sherman_morrison),
        (clusters, "change", keeps_its_own_seat),
        (clusters, "log_predictive", one_degree_less),
        (clusters, "log_predictive", kappa_stays),
        (clusters, "_offset", no_determinant),
        (_collapsed, "sweep", a_new_table_is_free),
    ],
    steps=4,
)


def split_step(key, s):
    labels, _ = _split_merge.split_merge(key, s["labels"], s["points"], s["a"], BASE, 6)
    return {"labels": labels}


def proposal_of_unknown_probability(f, on):
    def wrong(*args):
        sides, log_q = f(*args)
        return sides, jnp.where(on, 0.0, log_q)

    return wrong


def evidence_without_kappa(f, on):
    """A normaliser of each cluster's evidence dropped."""
    return lambda counts, sums, squares, base: f(counts, sums, squares, base) - 0.5 * on * jnp.log(base.kappa)


SPLIT_MERGE = Check(
    of_restaurant,
    split_step,
    look_at_partition,
    [
        (_split_merge, "_restricted", proposal_of_unknown_probability),
        (conjugate, "log_marginal", evidence_without_kappa),
        (_split_merge, "split_merge", a_new_table_is_free),
    ],
    steps=3,
)


def of_mixture(rng):
    weights = stick_weights(rng, concentrations(rng), 3)[1]
    means, trils = components(rng, 3)
    labels = labels_of(rng, weights, 3)
    points = points_of(rng, labels, means, trils)
    return {"weights": weights, "means": means, "trils": trils, "labels": labels, "points": points}


def allocate_step(key, s):
    parts = Mixture(jnp.log(s["weights"] + 1e-300), s["means"], s["trils"])
    return {"labels": blocked_gibbs.allocate(key, parts, s["points"], BASE)[0]}


def look_at_labels(s):
    x, own = s["points"][..., 0], np.take_along_axis(s["means"][..., 0], s["labels"], 1)
    wide = np.take_along_axis(s["trils"][..., 0, 0], s["labels"], 1)
    return {
        "first": s["labels"][:, 0] + 1e-3 * x[:, 1],
        "sum": s["labels"].sum(axis=1) + 1e-3 * x[:, 1],
        "residual": (x - own)[:, 0] / wide[:, 0],
        "log sd": np.log(wide[:, 0]),
        "weight": np.take_along_axis(s["weights"], s["labels"], 1)[:, 0],
    }


def weights_ignored(f, on):
    return lambda log_weights, *rest: f(jnp.where(on, 0.0, log_weights), *rest)


def determinant_forgotten(f, on):
    return lambda lw, means, trils, x: f(lw, means, trils, x) + on * gaussian.log_determinant(trils)


ALLOCATE = Check(
    of_mixture,
    allocate_step,
    look_at_labels,
    [(mixture, "log_joint_density", weights_ignored), (mixture, "log_joint_density", determinant_forgotten)],
)


def of_process(rng):
    """Sticks of a process of 60 components, and for 4 points each one's weight."""
    a = concentrations(rng)
    weights = stick_weights(rng, a, 60)[1]
    labels = labels_of(rng, weights, 4)
    first = (labels[:, :, None] == labels[:, None, :]).argmax(axis=2)
    order = (first[:, :, None] == np.arange(4)).any(axis=1).cumsum(axis=1) - 1
    return {
        "a": a,
        "labels": np.take_along_axis(order, first, 1),
        "weights": np.take_along_axis(weights, labels, 1),
        "points": rng.normal(size=(R, 4, 1)),
    }


def parameters_step(key, s):
    state = _collapsed.State(s["labels"], s["a"], BASE.mean, BASE.kappa, jnp.asarray(False))
    sites = _collapsed.parameters(key, _collapsed.kept(state, s["points"], STICKS, 6), STICKS)
    return {"weights": jnp.exp(sticks.log_weights(sites["stick_logits"]))[s["labels"]]}


def one_point_more(f, on):
    """Sticks Beta(1 + n, ..): right for sticks in their own order, wrong in order of appearance."""

    def wrong(key, draw, prior):
        counts, *rest = draw.statistics
        return f(key, draw._replace(statistics=(counts + on * (counts > 0), *rest)), prior)

    return wrong


def concentration_after(f, on):
    return lambda key, draw, prior: f(key, draw._replace(concentration=draw.concentration + on), prior)


PARAMETERS = Check(
    of_process,
    parameters_step,
    lambda s: {
        "first": s["weights"][:, 0],
        "last": s["weights"][:, 3],
        "by a": s["weights"][:, 0] * s["a"],
        "largest": s["weights"].max(axis=1),
    },
    [(_collapsed, "parameters", one_point_more), (_collapsed, "parameters", concentration_after)],
)

POSTERIOR = load_model("stick_breaking")(Dataset(np.array([-1.0, 0.4, 2.0])), truncation=2, shape=2.0, rate=1.0)
STEP_SIZE, DEPTH = 0.2, 4
to_coordinates = jax.jit(jax.vmap(POSTERIOR.unconstrain))


def of_model(rng):
    """Coordinates of a model of two components, from parameters by numpy, with three points."""
    a = concentrations(rng)
    logits, weights = stick_weights(rng, a, 2)
    means, trils = components(rng, 2, POSTERIOR.conjugate.base)
    points = points_of(rng, labels_of(rng, weights, 3), means, trils)
    sites = {"concentration": a, "stick_logits": logits, "means": means, "scale_trils": trils}
    return {"u": jax.device_get(to_coordinates(sites)), "points": points}


def jacobian(u):
    return POSTERIOR.constrain(u)[1]


def likelihood(parameters, points):
    return mixture.log_likelihood(*POSTERIOR.mixture(parameters), points)


def target(u, points):
    parameters = POSTERIOR.constrain(u)[0]
    return POSTERIOR.log_prior(parameters) + likelihood(parameters, points) + jacobian(u)


def nuts_step(key, s):
    """One transition of fixed step size, as in the method but for adaptation."""
    init, sample = hmc(lambda u: -target(u, s["points"]), algo="NUTS")
    options = {"num_warmup": 0, "step_size": STEP_SIZE, "adapt_step_size": False, "adapt_mass_matrix": False}
    return {"u": sample(init(s["u"], max_tree_depth=DEPTH, rng_key=key, **options)).z}


def look_at_coordinates(s):
    u, x = s["u"], s["points"][..., 0]
    mean, spread = x.mean(axis=1), np.log(x.std(axis=1))
    return {
        "a": u["concentration"],
        "logit": u["stick_logits"][:, 0],
        "logit and a": u["stick_logits"][:, 0] - u["concentration"],
        "mean": u["means"][:, 0, 0],
        "mean from the points": u["means"][:, 0, 0] - mean,
        "log sd": u["scale_trils"][:, 0, 0],
        "log sd from the points": u["scale_trils"][:, 0, 0] - spread,
        "distance": np.abs(u["means"][:, 0, 0] - u["means"][:, 1, 0]),
    }


def no_jacobian(f, on):
    return lambda u: jnp.where(on, 0.0, f(u))


def likelihood_too_weak(f, on):
    return lambda *args: f(*args) * jnp.where(on, 0.1, 1.0)


def log_a_dropped(f, on):
    return lambda logits, a: f(logits, a) - on * logits.shape[-1] * jnp.log(a)


HERE = sys.modules[__name__]

NUTS = Check(
    of_model,
    nuts_step,
    look_at_coordinates,
    [
        (HERE, "jacobian", no_jacobian),
        (HERE, "likelihood", likelihood_too_weak),
        (sticks, "log_density_logits", log_a_dropped),
    ],
    steps=3,
)

CHECKS = {
    "concentration given clusters": GIVEN_CLUSTERS,
    "concentration given sticks": GIVEN_STICKS,
    "slice": SLICE,
    "permutation of labels": PERMUTE,
    "sticks": STICK_WEIGHTS,
    "Dirichlet weights": DIRICHLET_WEIGHTS,
    "components of a cluster": CLUSTER,
    "learnt base measure": LEARNT_BASE,
    "collapsed sweep": SWEEP,
    "split and merge": SPLIT_MERGE,
    "allocation": ALLOCATE,
    "weights of a partition": PARAMETERS,
    "No-U-Turn transition": NUTS,
}


@functools.cache
def program(name):
    """``(which, keys, states) -> states``: the check's kernel with bug number `which`, -1 for none."""
    check = CHECKS[name]

    def one(which, key, state):
        with pytest.MonkeyPatch.context() as patch:
            for i, (where, attribute, bug) in enumerate(check.bugs):
                right = where[attribute] if isinstance(where, dict) else getattr(where, attribute)
                setter = patch.setitem if isinstance(where, dict) else patch.setattr
                setter(where, attribute, bug(right, which == i))
            step = lambda i, s: s | check.step(random.fold_in(key, i), s)
            return jax.lax.fori_loop(0, check.steps, step, state)

    # Less of LLVM's optimisation: compiling takes half as long, and these programs run for a moment.
    fast = {"xla_backend_optimization_level": 0}
    return jax.jit(jax.vmap(one, in_axes=(None, 0, 0)), compiler_options=fast)


def verdict(name, which=-1, batches=1):
    check = CHECKS[name]

    def batch(key):
        key_start, key_steps = random.split(key)
        state = check.start(np.random.default_rng(np.asarray(key_start)))
        after = program(name)(which, random.split(key_steps, R), state)
        return check.look(state), check.look(jax.device_get(after))

    def sample(key):
        return jax.tree.map(lambda *q: np.concatenate(q), *(batch(k) for k in random.split(key, batches)))

    return calibration.joint_test(sample, random.PRNGKey(5))


SLOW = {"No-U-Turn transition"}
"""Checks that take ten seconds to compile."""


def of_check(name):
    return pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])


@pytest.mark.parametrize("name", [of_check(name) for name in CHECKS])
def test_a_kernel_leaves_the_joint_distribution_alone(name):
    found = verdict(name)
    assert found.passed, found


SUBTLE = {"keeps_old_precisions", "one_degree_less"}
"""Bugs that take more replicates to see; tests/test_gibbs.py sees them in long chains, against exact answers."""
BUGS = [(name, i) for name, check in CHECKS.items() for i in range(len(check.bugs))]


def of_bug(name, i):
    bug = CHECKS[name].bugs[i][2].__name__
    marks = [pytest.mark.slow] if bug in SUBTLE or name in SLOW else []
    return pytest.param(name, i, 16 if bug in SUBTLE else 1, marks=marks, id=f"{name}: {bug}")


@pytest.mark.parametrize(("name", "which", "batches"), [of_bug(*bug) for bug in BUGS])
def test_a_planted_bug_changes_it(name, which, batches):
    found = verdict(name, which, batches)
    assert not found.passed, found


# Densities: an oracle in scipy, at a few places, and bugs that change the function for good.


def sticks_density():
    logits, a = np.array([0.3, -1.2, 2.0]), 1.7
    v = st.logistic.cdf(logits)
    truth = (st.beta.logpdf(v, 1, a) + st.logistic.logpdf(logits)).sum()
    return jax.jit(lambda l: sticks.log_density_logits(l, a))(logits), truth


def masses_density():
    x, shape = np.array([0.2, -3.0]), 0.4
    return jax.jit(lambda x: LogGammas(jnp.asarray(shape), 2).log_prob(x))(x), st.loggamma.logpdf(x, shape).sum()


def base_density():
    """Of the means given factors, and of variances, D = 1: everything in the normal-inverse-gamma."""
    mean, sd = np.array([1.5]), np.array([[0.6]])
    m, kappa, df, scale = (float(np.asarray(leaf).squeeze()) for leaf in BASE)
    of_variance = st.invgamma.logpdf(0.36, df / 2, scale=scale**2 / 2) + np.log(2 * 0.6)
    of_mean = st.norm.logpdf(1.5, m, 0.6 / np.sqrt(kappa))
    component = {"means": mean[None], "scale_trils": sd[None]}
    return jax.jit(lambda p: base_measure.log_prior(p, BASE, "full"))(component), of_variance + of_mean


def evidence():
    """Of three points, as a product of predictive t densities."""
    x, total = np.array([0.2, 1.5, -0.4]), 0.0
    mean, kappa, df, scale = (float(np.asarray(leaf).squeeze()) for leaf in BASE)
    psi, y = scale**2, x - mean
    for point in x:
        total += st.t.logpdf(point, df, mean, np.sqrt(psi * (kappa + 1) / (kappa * df)))
        psi += kappa / (kappa + 1) * (point - mean) ** 2
        mean, kappa, df = (kappa * mean + point) / (kappa + 1), kappa + 1, df + 1
    return jax.jit(lambda *a: conjugate.log_marginal(*a, BASE))(
        jnp.asarray(3.0), y.sum(keepdims=True), (y @ y)[None, None, None]
    ), total


def coordinates():
    """Jacobians of the maps to positive numbers and to sticks, against differentiation."""

    @jax.jit
    def both(u):
        maps = [lambda u, t=t: t.constrain(u, {"concentration": 0.8}) for t in (positive(), stick_logits(1))]
        truth = [jnp.linalg.slogdet(jax.jacfwd(lambda u, m=m: m(u)[0])(u))[1] for m in maps]
        return sum(m(u)[1] for m in maps), sum(truth)

    return both(jnp.array([0.3, -1.0]))


ORACLES = {f.__name__: f for f in (sticks_density, masses_density, base_density, evidence, coordinates)}
DENSITY_BUGS = [
    ("sticks_density", sticks, "log_density_logits", "off by one", lambda f: lambda l, a: f(l[:-1], a)),
    ("sticks_density", sticks, "log_density_logits", "a too large", lambda f: lambda l, a: f(l, a + 1)),
    ("sticks_density", sticks, "log_density_logits", "no log a", lambda f: lambda l, a: f(l, a) - 3 * jnp.log(a)),
    ("masses_density", jax.scipy.special, "gammaln", "no normaliser", lambda f: lambda x: 0.0 * x),
    ("base_density", gaussian, "multigammaln", "no normaliser", lambda f: lambda x, d: 0.0 * x),
    ("base_density", gaussian, "log_determinant", "no determinant", lambda f: lambda l, *mean: 0.0 * f(l, *mean)),
    ("base_density", gaussian, "log_inverse_wishart", "df", lambda f: lambda l, df, t: f(l, df + 1, t)),
    ("evidence", conjugate, "multigammaln", "no normaliser", lambda f: lambda x, d: 0.0 * x),
    ("evidence", conjugate, "LOG_PI", "no constant", lambda f: 0.0),
    (
        "coordinates",
        sys.modules[__name__],
        "positive",
        "no Jacobian",
        lambda f: lambda: f()._replace(constrain=without(f())),
    ),
    (
        "coordinates",
        sys.modules[__name__],
        "stick_logits",
        "no Jacobian",
        lambda f: lambda n: f(n)._replace(constrain=without(f(n))),
    ),
]


def without(transform):
    return lambda u, sites: (transform.constrain(u, sites)[0], 0.0)


@pytest.mark.parametrize("name", ORACLES)
def test_a_density_is_scipys(name):
    np.testing.assert_allclose(*ORACLES[name](), rtol=1e-10)


@pytest.mark.parametrize(
    ("oracle", "module", "name", "bug", "wrong"), DENSITY_BUGS, ids=[f"{b[0]}: {b[3]}" for b in DENSITY_BUGS]
)
def test_a_density_with_a_bug_is_not(oracle, module, name, bug, wrong, monkeypatch):
    monkeypatch.setattr(module, name, wrong(getattr(module, name)))
    ours, truth = ORACLES[oracle]()
    assert abs(ours - truth) > 1e-3, bug


def test_enough_bugs_are_planted():
    assert len(BUGS) + len(DENSITY_BUGS) >= 20
