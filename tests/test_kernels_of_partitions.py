"""Kernels of partitions: right as they are, and wrong with each planted bug."""

import jax
import jax.numpy as jnp
import numpy as np
from joint import (
    BASE,
    STICKS,
    Check,
    R,
    components,
    concentrations,
    kernel_tests,
    labels_of,
    points_of,
    seats,
    stick_weights,
)

from dpgmm import clusters, conjugate, sticks
from dpgmm.methods import _collapsed, _split_merge


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
    # tests/test_gibbs.py sees them in long chains, against exact answers.
    subtle=(keeps_old_precisions, one_degree_less),
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

test_a_kernel_leaves_the_joint_distribution_alone, test_a_planted_bug_changes_it = kernel_tests(
    {
        "collapsed sweep": SWEEP,
        "split and merge": SPLIT_MERGE,
        "weights of a partition": PARAMETERS,
    }
)
