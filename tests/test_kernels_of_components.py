"""Kernels of components, of a learnt base measure and of allocations: right as they are, and wrong with planted bugs."""

import jax.numpy as jnp
import numpy as np
import scipy.stats as st
from joint import BASE, Check, R, components, kernel_tests, of_mixture

from dpgmm.densities import conjugate, gaussian, mixture
from dpgmm.densities.gaussian import BaseMeasure
from dpgmm.methods import _clusters as clusters
from dpgmm.methods import blocked_gibbs
from dpgmm.model.posterior import Hyperprior, Mixture

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
    return lambda *args, **options: (new := f(*args, **options))._replace(df=new.df - on)


def one_more_in_kappa(f, on):
    return lambda *args, **options: (new := f(*args, **options))._replace(kappa=new.kappa + on)


def half_the_scatter(f, on):
    def wrong(counts, sums, squares, base, *, tied=False):
        about_mean = squares - conjugate.product(sums, sums, base) / counts[..., None, None, None]
        return f(counts, sums, squares - 0.5 * on * about_mean, base, tied=tied)

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
    return lambda key, log_weights, *rest: f(key, jnp.where(on, 0.0, log_weights), *rest)


def determinant_forgotten(f, on):
    return lambda key, lw, means, trils, x: f(key, lw + on * gaussian.log_determinant(trils), means, trils, x)


ALLOCATE = Check(
    of_mixture,
    allocate_step,
    look_at_labels,
    [(mixture, "allocations", weights_ignored), (mixture, "allocations", determinant_forgotten)],
)

test_a_kernel_leaves_the_joint_distribution_alone, test_a_planted_bug_changes_it = kernel_tests(
    {
        "components of a cluster": CLUSTER,
        "learnt base measure": LEARNT_BASE,
        "allocation": ALLOCATE,
    }
)
