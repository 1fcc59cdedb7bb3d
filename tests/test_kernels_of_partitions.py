"""Kernels of partitions: right as they are, and wrong with each planted bug."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from joint import (
    BASE,
    DIRICHLET,
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

from dpgmm import Dataset, exact, load_model, partitions
from dpgmm.densities import conjugate, sticks
from dpgmm.methods import _clusters as clusters
from dpgmm.methods import _collapsed, _pairs, _split_merge, _weights, blocked_gibbs
from dpgmm.model.posterior import Mixture


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


def moved(key, s, places, capacity, moves=1, within=0.0):
    about = s["points"] - BASE.mean
    statistics = clusters.statistics(about, s["labels"], capacity, BASE)
    return _split_merge.moves(
        key, moves, s["labels"], statistics, about, BASE, tied=False, places=places, within=within
    )


def split_step(key, s):
    return {"labels": moved(key, s, _split_merge.partition_places(s["a"]), 6).labels}


def proposal_of_unknown_probability(f, on):
    def wrong(*args):
        sides, log_q, statistics = f(*args)
        return sides, jnp.where(on, 0.0, log_q), statistics

    return wrong


def anchors_are_dealt_too(f, on):
    """The probability counts the two points that are not free to choose."""

    def wrong(table, i, j, *rest):
        away = lambda n: jnp.where(on, -1, n)
        return f(table, i, j, *rest)[0], f(table, away(i), away(j), *rest)[1], f(table, i, j, *rest)[2]

    return wrong


def evidence_without_kappa(f, on):
    """A normaliser of each cluster's evidence dropped."""
    return lambda counts, sums, squares, base: f(counts, sums, squares, base) - 0.5 * on * jnp.log(base.kappa)


def a_new_table_costs_nothing(f, on):
    return lambda a: f(jnp.where(on, 1.0, a))


SPLIT_MERGE = Check(
    of_restaurant,
    split_step,
    look_at_partition,
    [
        (_split_merge, "_deal", proposal_of_unknown_probability),
        (_split_merge, "_deal", anchors_are_dealt_too),
        (conjugate, "log_marginal", evidence_without_kappa),
        (_split_merge, "partition_places", a_new_table_costs_nothing),
    ],
    steps=3,
)


def split_within_step(key, s):
    return {"labels": moved(key, s, _split_merge.partition_places(s["a"]), 6, within=0.7).labels}


def chosen_as_from_all(f, on):
    """A second point from the first one's cluster counts as one from all points."""
    return lambda *args, **options: jnp.where(on, 0.0, f(*args, **options))


def alone_as_in_company(f, on):
    """A point that is alone in its cluster has no other to choose there, and must choose from all."""
    return lambda count, *rest, **options: f(jnp.where(on, jnp.maximum(count, 2), count), *rest, **options)


SPLIT_WITHIN = Check(
    of_restaurant,
    split_within_step,
    look_at_partition,
    [
        (_split_merge, "_log_choice", chosen_as_from_all),
        (_split_merge, "_log_choice", alone_as_in_company),
        (_split_merge, "_deal", proposal_of_unknown_probability),
    ],
    steps=3,
)


def of_components(rng, size=4):
    """Allocations to three components with sticks, and points."""
    a = concentrations(rng)
    labels = labels_of(rng, stick_weights(rng, a, 3)[1], size)
    return {"a": a, "labels": labels, "points": points_of(rng, labels, *components(rng, 3))}


def allocations_step(key, s):
    log_prior = lambda counts: blocked_gibbs.log_allocations(counts, s["a"])
    return {"labels": moved(key, s, _split_merge.allocation_places(log_prior), 3).labels}


def look_at_allocations(s):
    first = s["labels"][:, 0]
    of_labels = {f"size of {k}": (s["labels"] == k).sum(axis=1) + 1e-3 * s["a"] for k in range(3)}
    return look_at_partition(s) | of_labels | {"first": first + 1e-3 * s["a"], "first by a": first * s["a"]}


def always_the_last_place(f, on):
    """A new component's place is not drawn, but weighed as if it were."""

    def wrong(log_prior):
        right = f(log_prior)

        def places(counts, *rest):
            value = right(counts, *rest)
            last = jnp.max(jnp.where(counts > 0, -1, jnp.arange(len(counts))))
            put = jnp.where(jnp.arange(len(counts)) == last, jax.nn.logsumexp(value), -jnp.inf)
            return jnp.where(on, put, value)

        return places

    return wrong


def sticks_forgotten(f, on):
    return lambda counts, a: jnp.where(on, 0.0, f(counts, a))


ALLOCATIONS = Check(
    of_components,
    allocations_step,
    look_at_allocations,
    [
        (_split_merge, "allocation_places", always_the_last_place),
        (_split_merge, "_deal", proposal_of_unknown_probability),
        (blocked_gibbs, "log_allocations", sticks_forgotten),
    ],
    steps=12,
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
    state = _collapsed.GibbsState(s["labels"], s["a"], BASE.mean, BASE.kappa, jnp.zeros((), bool))
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


def of_parameters(rng, size=4):
    """Sticks and components, three of each, and points."""
    a = concentrations(rng)
    logits, weights = stick_weights(rng, a, 3)
    return {"a": a, "sites": logits, "weights": weights} | _of_components(rng, weights, size)


def of_masses(rng, size=4):
    a = concentrations(rng)
    masses = np.maximum(rng.gamma(np.broadcast_to(a[:, None] / 3, (R, 3))), 1e-300)
    weights = masses / masses.sum(axis=1, keepdims=True)
    return {"a": a, "sites": np.log(masses), "weights": weights} | _of_components(rng, weights, size)


def _of_components(rng, weights, size):
    means, trils = components(rng, 3)
    return {"means": means, "trils": trils, "points": points_of(rng, labels_of(rng, weights, size), means, trils)}


def parameters_move(prior, move):
    """A kernel of parameters: ``move(key, sites, points, model)``."""
    name = {"sticks": "stick_logits", "dirichlet": "log_masses"}[prior.weights]
    log_weights = {"sticks": sticks.log_weights, "dirichlet": jax.nn.log_softmax}[prior.weights]
    mixture = lambda sites: Mixture(log_weights(sites[name]), sites["means"], sites["scale_trils"])
    model = SimpleNamespace(mixture=mixture, conjugate=prior)

    def step(key, s):
        sites = {"concentration": s["a"], name: s["sites"], "means": s["means"], "scale_trils": s["trils"]}
        new = move(key, sites, s["points"], model)
        weights, means, trils = mixture(new)
        return {
            "a": new["concentration"],
            "sites": new[name],
            "weights": jnp.exp(weights),
            "means": means,
            "trils": trils,
        }

    return step


def pairs_step(prior):
    return parameters_move(
        prior, lambda key, sites, points, posterior: blocked_gibbs.part_pairs(key, sites, points, prior, posterior, 3)
    )


def whole_step(prior):
    """A whole sweep: pairs parted anew, allocations, splits and mergers of them, an order, parameters."""

    def move(key, sites, points, model):
        state = blocked_gibbs.BlockedGibbsState(sites, jnp.zeros(len(points), int))
        return blocked_gibbs.step(key, state, points, prior, model, 1, 8).parameters

    return parameters_move(prior, move)


def look_at_parameters(s):
    w, m, sd, x = s["weights"], s["means"][..., 0], s["trils"][..., 0, 0], s["points"][..., 0]
    density = (w[:, None] * np.exp(-0.5 * ((x[..., None] - m[:, None]) / sd[:, None]) ** 2) / sd[:, None]).sum(axis=-1)
    largest = np.take_along_axis(m, w.argmax(axis=1)[:, None], axis=1)[:, 0]
    found = {
        f"{name} {k}": v[:, k] for k in range(3) for name, v in (("weight", w), ("mean", m), ("log sd", np.log(sd)))
    }
    return found | {
        "a": s["a"],
        "largest weight": w.max(axis=1),
        "largest weight by a": w.max(axis=1) * s["a"],
        "likelihood": np.log(density).sum(axis=1),
        "mean of the largest from the points": largest - x.mean(axis=1),
        "spread of the means beside that of the points": np.log(m.std(axis=1)) - np.log(x.std(axis=1)),
    }


def proposals_unweighed(f, on):
    return lambda *args: jnp.where(on, 0.0, f(*args))


def choices_unweighed(f, on):
    """The choice on the way back, every second one, has probability one."""
    calls = []

    def wrong(*args, **options):
        calls.append(args)
        return jnp.where(on & (len(calls) % 2 == 0), 0.0, f(*args, **options))

    return wrong


def order_has_no_probability(f, on):
    return lambda *args: f(*args) * jnp.where(on, 0.0, 1.0)


ORDER = [(_weights, "log_order", order_has_no_probability)]
PAIRS = [(_pairs, "log_proposal", proposals_unweighed), (_pairs, "log_choices", choices_unweighed)]

test_a_kernel_leaves_the_joint_distribution_alone, test_a_planted_bug_changes_it = kernel_tests(
    {
        "collapsed sweep": SWEEP,
        "split and merge": SPLIT_MERGE,
        "split and merge, both points from one cluster": SPLIT_WITHIN,
        "split and merge of components": ALLOCATIONS,
        "weights of a partition": PARAMETERS,
        "pairs parted anew, sticks": Check(
            of_parameters, pairs_step(STICKS), look_at_parameters, PAIRS, steps=6, long=(choices_unweighed,)
        ),
        "pairs parted anew, Dirichlet": Check(
            of_masses, pairs_step(DIRICHLET), look_at_parameters, ORDER, steps=6, slow=True
        ),
        "whole sweep, sticks": Check(
            of_parameters, whole_step(STICKS), look_at_parameters, PAIRS[:1], steps=4, slow=True
        ),
        "whole sweep, Dirichlet": Check(of_masses, whole_step(DIRICHLET), look_at_parameters, [], steps=4, slow=True),
    }
)


def a_launch(labels):
    """What a proposal knows of the points 0 and 1, which set out, and of the others that `labels` has with them."""
    points = jnp.asarray(np.random.default_rng(1).normal(size=(6, 1)) * 2)
    member = jnp.isin(jnp.asarray(labels), jnp.asarray([labels[0], labels[1]]))
    return points, member, _split_merge._launch(random.PRNGKey(0), 0, 1, member, points, BASE, tied=False)


def test_a_launch_does_not_know_how_the_points_are_divided():
    once, again = a_launch([0, 0, 0, 0, 0, 7])[2], a_launch([2, 5, 5, 2, 5, 7])[2]
    jax.tree.map(np.testing.assert_array_equal, once, again)


@pytest.mark.quick("methods")
def test_the_probability_of_a_split_is_how_often_it_is_proposed():
    """Every division of four points between two, drawn 40,000 times, against q, and the q that a merge is weighed with."""
    points, member, launched = a_launch([0] * 6)
    member = member.at[5].set(False)
    deal = jax.jit(
        lambda free, present, u: _split_merge._deal(launched, 0, 1, free, present, member, u, points, BASE)[:2]
    )
    divisions = [jnp.array([False, True, *(bool(m >> n & 1) for n in range(3)), False]) for m in range(8)]
    q = np.exp([float(deal(False, sides, jnp.zeros(6))[1]) for sides in divisions])
    np.testing.assert_allclose(q.sum(), 1, rtol=1e-12)
    assert q.min() > 1e-6
    assert q.max() < 0.99
    drawn, log_q = jax.vmap(lambda u: deal(True, jnp.zeros(6, bool), u))(random.uniform(random.PRNGKey(2), (40_000, 6)))
    number = np.asarray(drawn[:, 2:5] @ (2 ** np.arange(3)))
    np.testing.assert_array_equal(np.asarray(drawn)[:, [0, 1, 5]], [[False, True, False]] * len(number))
    np.testing.assert_allclose(np.exp(log_q), q[number], rtol=1e-10)
    found = np.bincount(number, minlength=8) / len(number)
    assert np.abs((found - q) / np.sqrt(q * (1 - q) / len(number))).max() < 4


@pytest.mark.parametrize("tied", [True, False])
def test_a_split_or_merger_leaves_the_enumerated_posterior_alone(tied):
    """All 15 partitions of four points and their exact probabilities: where one proposal takes exact draws of them.

    Clusters that share a covariance are weighed given the others, without the two in question: with five points there are
    others. In standard errors of the number of draws of every partition.
    """
    points = np.array([0.1, 0.4, 2.9, 3.3, 9.0])[:, None]
    p = load_model("stick_breaking")(
        Dataset(points), truncation=3, covariance="tied" if tied else "full", component_scale=0.5, kappa=0.25
    )
    truth, size, a = exact.partitions(p, concentration=1.5), 40_000, jnp.asarray(1.5)
    probability = np.exp(truth.log_posterior)
    starts = np.random.default_rng(0).choice(len(probability), size, p=probability / probability.sum())
    about, base = jnp.asarray(points) - p.conjugate.base.mean, p.conjugate.base

    def one(key, labels):
        statistics = clusters.statistics(about, labels, 6, base)
        return _split_merge.moves(
            key, 3, labels, statistics, about, base, tied=tied, places=_split_merge.partition_places(a)
        ).labels

    after = np.asarray(
        jax.jit(jax.vmap(one))(random.split(random.PRNGKey(0), size), jnp.asarray(truth.labels, int)[starts])
    )
    code = lambda labels: partitions.canonical(np.asarray(labels)) @ 6 ** np.arange(5)
    assert (code(after) != code(truth.labels)[starts]).mean() > 0.1
    for c, wanted in zip(code(truth.labels), probability, strict=True):
        change = (code(after) == c) * 1.0 - (code(truth.labels)[starts] == c)
        error = np.sqrt(wanted * (1 - wanted) / size)
        assert abs(change.mean()) <= 4 * change.std() / np.sqrt(size)
        assert abs((code(after) == c).mean() - wanted) <= 4 * error
