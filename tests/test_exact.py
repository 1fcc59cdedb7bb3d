"""Exact answers for few points, against sums and integrals done by scipy alone, and what wrong priors would give."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.stats as st
from scipy.integrate import quad
from scipy.special import beta, gammaln

import dpgmm
from dpgmm import Dataset, InputError, exact, load_model
from dpgmm.densities.concentration import Concentration, nodes

POINTS = {
    1: np.array([[0.3], [-1.0], [2.5], [2.2], [-0.8]]),
    2: np.array([[0.3, 1.0], [-1.0, 0.2], [2.5, -1.0], [2.2, -0.7], [-0.8, 0.0]]),
}


def posterior(dim=1, model="stick_breaking", n=5, **options):
    return load_model(model)(Dataset(POINTS[dim][:n]), **{"truncation": 3, "shape": 2.0, "rate": 1.5} | options)


def set_partitions(items):
    """All partitions as lists of lists, by recursion."""
    if not items:
        yield []
        return
    first, *rest = items
    for smaller in set_partitions(rest):
        yield [[first], *smaller]
        for i, block in enumerate(smaller):
            yield [*smaller[:i], [first, *block], *smaller[i + 1 :]]


def evidence(points, base):
    """A cluster's evidence as a chain of multivariate t densities, by the textbook update."""
    mean, kappa, df, [lower] = (np.asarray(leaf) for leaf in base)
    psi, dim, total = lower @ lower.T, len(mean), 1.0
    for x in points:
        total *= st.multivariate_t.pdf(x, mean, psi * (kappa + 1) / (kappa * (df - dim + 1)), df=df - dim + 1)
        psi = psi + kappa / (kappa + 1) * np.outer(x - mean, x - mean)
        mean, kappa, df = (kappa * mean + x) / (kappa + 1), kappa + 1, df + 1
    return total


def integral(f, shape=2.0, rate=1.5):
    density = st.gamma(shape, scale=1 / rate).pdf
    return sum(quad(lambda a: f(a) * density(a), *ends, epsabs=0, limit=200)[0] for ends in ((0, 1), (1, 8), (8, 60)))


def brute_partitions(points, base, expectation):
    """Posterior of every partition as a dict of blocks, and the evidence."""
    n = len(points)
    joint = {}
    for blocks in set_partitions(list(range(n))):
        k = len(blocks)
        prior = expectation(lambda a, k=k: a**k * np.exp(gammaln(a) - gammaln(a + n)))
        sizes = np.prod([np.exp(gammaln(len(b))) for b in blocks])
        joint[frozenset(map(frozenset, blocks))] = prior * sizes * np.prod([evidence(points[b], base) for b in blocks])
    total = sum(joint.values())
    return {blocks: value / total for blocks, value in joint.items()}, total


def blocks_of(labels):
    return frozenset(frozenset(np.flatnonzero(labels == k).tolist()) for k in set(labels.tolist()))


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("a", [None, 0.7])
def test_partitions_are_the_brute_sum(dim, a):
    p = posterior(dim)
    found = exact.partitions(p, concentration=a)
    expectation = integral if a is None else lambda f: f(a)
    truth, total = brute_partitions(POINTS[dim], p.conjugate.base, expectation)
    assert len(found.labels) == len(truth) == 52
    for labels, log_probability in zip(found.labels, found.log_posterior, strict=True):
        np.testing.assert_allclose(np.exp(log_probability), truth[blocks_of(labels)], rtol=1e-8)
    np.testing.assert_allclose(found.log_evidence, np.log(total), rtol=1e-9)
    np.testing.assert_allclose(np.exp(found.log_prior).sum(), 1, rtol=1e-10)
    together = sum(v for blocks, v in truth.items() if any({0, 3} <= b for b in blocks))
    np.testing.assert_allclose(found.similarity[0, 3], together, rtol=1e-8)
    three = sum(v for blocks, v in truth.items() if len(blocks) == 3)
    np.testing.assert_allclose(found.num_clusters[3], three, rtol=1e-8)


@pytest.mark.parametrize("a", [None, 0.7])
def test_predictive_is_a_ratio_of_evidences(a):
    """The next point's density is the evidence of n + 1 points over that of n, base measure held."""
    p, y = posterior(n=4), np.array([[0.1], [3.0]])
    found = exact.partitions(p, concentration=a, at=y)
    for point, density in zip(y, found.predictive, strict=True):
        more = p.on(Dataset(np.concatenate([POINTS[1][:4], point[None]])))
        ratio = exact.partitions(more, concentration=a).log_evidence - found.log_evidence
        np.testing.assert_allclose(density, np.exp(ratio), rtol=1e-9)


def brute_labelled(p, counts_prior):
    points, num_components = p.data.points, p.options["truncation"]
    joint = {}
    for z in itertools.product(range(num_components), repeat=len(points)):
        groups = [points[np.array(z) == k] for k in range(num_components)]
        joint[z] = counts_prior([len(g) for g in groups]) * np.prod([evidence(g, p.conjugate.base) for g in groups])
    return joint


def sticks_prior(a):
    """Integral over each stick of ``v^n (1 - v)^m Beta(v | 1, a)``."""
    return lambda c: np.prod([beta(1 + c[k], a + sum(c[k + 1 :])) / beta(1, a) for k in range(len(c) - 1)])


def dirichlet_prior(a):
    def prior(c):
        share = a / len(c)
        of_components = sum(gammaln(share + np.array(c)) - gammaln(share))
        return np.exp(gammaln(a) - gammaln(a + sum(c)) + of_components)

    return prior


RULES = {"stick_breaking": sticks_prior, "symmetric_dirichlet": dirichlet_prior}


@pytest.mark.parametrize("model", RULES)
@pytest.mark.parametrize("a", [None, 0.7])
def test_allocations_are_the_brute_sum(model, a):
    p = posterior(model=model, n=4)
    found = exact.allocations(p, concentration=a, at=np.array([[1.0]]))
    prior = RULES[model]
    of_counts = prior(a) if a else lambda c: integral(lambda a: prior(a)(c))
    truth = brute_labelled(p, of_counts)
    total = sum(truth.values())
    for labels, log_probability in zip(found.labels, found.log_posterior, strict=True):
        np.testing.assert_allclose(np.exp(log_probability), truth[tuple(labels.tolist())] / total, rtol=1e-7)
    np.testing.assert_allclose(found.log_evidence, np.log(total), rtol=1e-8)
    np.testing.assert_allclose(found.component[2, 1], sum(v for z, v in truth.items() if z[2] == 1) / total, rtol=1e-7)
    np.testing.assert_allclose(np.exp(found.log_prior).sum(), 1, rtol=1e-9)
    # Labels forgotten, nothing else is.
    counts = [sum(v for z, v in truth.items() if len(set(z)) == k) / total for k in range(5)]
    np.testing.assert_allclose(found.partitions.num_clusters, counts, rtol=1e-7, atol=1e-14)
    more = p.on(Dataset(np.concatenate([POINTS[1][:4], [[1.0]]])))
    ratio = exact.allocations(more, concentration=a).log_evidence - found.log_evidence
    np.testing.assert_allclose(found.partitions.predictive, np.exp(ratio), rtol=1e-9)


def test_a_stick_off_by_one_is_another_prior():
    """Negative control: the last component as a stick too, and the prior of allocations no longer sums to one."""
    counts = [[z.count(k) for k in range(3)] for z in itertools.product(range(3), repeat=4)]
    right = [sticks_prior(0.7)(c) for c in counts]
    wrong = [np.prod([beta(1 + c[k], 0.7 + sum(c[k + 1 :])) / beta(1, 0.7) for k in range(3)]) for c in counts]
    np.testing.assert_allclose(sum(right), 1, rtol=1e-12)
    assert sum(wrong) < 0.9


def test_labels_of_a_symmetric_prior_are_exchangeable_and_those_of_sticks_are_not():
    np.testing.assert_allclose(exact.allocations(posterior(model="symmetric_dirichlet")).component, 1 / 3, rtol=1e-10)
    assert np.ptp(exact.allocations(posterior(), concentration=0.3).component[0]) > 0.01


def test_truncation_distance_falls_and_stays_below_the_bound():
    found = [exact.truncation(posterior(truncation=k), concentration=0.5) for k in (2, 3, 5)]
    for distances in ([t.prior_distance for t in found], [t.posterior_distance for t in found]):
        assert distances[0] > 4 * distances[1] > 16 * distances[2] > 0
    assert all(t.prior_distance <= t.bound for t in found)
    np.testing.assert_allclose(found[2].bound, 4 * 5 * np.exp(-8))
    by_scipy = integral(lambda a: 20 * np.exp(-2 / a))
    np.testing.assert_allclose(exact.truncation(posterior()).bound, by_scipy, rtol=1e-6)


def test_ten_points_are_not_too_many():
    data = Dataset(dpgmm.datasets.galaxies().points[::9][:10])
    found = exact.partitions(load_model("stick_breaking")(data))
    assert len(found.labels) == 115_975
    np.testing.assert_allclose(np.exp(found.log_posterior).sum(), 1, rtol=1e-9)
    np.testing.assert_allclose(np.exp(found.log_prior).sum(), 1, rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.on(Dataset(np.arange(11.0))), "11 points are too many to enumerate; give at most 10"),
        (lambda p: p.on(Dataset(np.arange(3.0), np.arange(1, 4))), "points of weight 1; repeat points"),
        (lambda p: dataclasses.replace(p, conjugate=None), "stick_breaking: exact answers need a conjugate prior"),
    ],
)
def test_what_cannot_be_enumerated_is_said(change, message):
    with pytest.raises(InputError, match=message):
        exact.partitions(change(posterior()))


def test_bad_arguments_are_said():
    with pytest.raises(InputError, match=r"concentration = -1.0: it must be a positive number"):
        exact.partitions(posterior(), concentration=-1.0)
    with pytest.raises(InputError, match=r"at has shape \(3, 2\); give points of shape \(G, 1\)"):
        exact.partitions(posterior(), at=np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"50\^5 labelled allocations are too many"):
        exact.allocations(posterior(truncation=50))
    # Few allocations, but as many different counts.
    with pytest.raises(InputError, match=r"200\^2 labelled allocations are too many"):
        exact.allocations(posterior(n=2, truncation=200))
    with pytest.raises(InputError, match=r"Gamma\(0.001, 1\): it cannot be integrated out by quadrature"):
        exact.partitions(posterior(shape=0.001, rate=1.0))


@pytest.mark.parametrize("ask", [exact.partitions, exact.truncation])
def test_a_finite_mixture_is_no_dirichlet_process(ask):
    with pytest.raises(InputError, match="symmetric_dirichlet: no Dirichlet process, but a finite mixture"):
        ask(posterior(model="symmetric_dirichlet"))


@pytest.mark.parametrize("model", RULES)
def test_many_components_are_enumerated(model):
    found = exact.allocations(posterior(model=model, n=1, truncation=300), concentration=0.7)
    assert found.labels.min() == 0
    assert found.labels.max() == 299
    np.testing.assert_allclose(np.exp(found.log_prior).sum(), 1, rtol=1e-10)
    np.testing.assert_allclose(found.component.sum(axis=1), 1, rtol=1e-10)


@pytest.mark.parametrize("shape", [0.05, 1.0, 1e3, 1e6])
def test_the_concentration_is_integrated_out(shape):
    """The prior of a, and its mean, whatever its shape; and a prior that is nearly a number is that number."""
    a, log_weights = nodes(Concentration(shape, shape), 5)
    np.testing.assert_allclose(np.exp(log_weights).sum(), 1, rtol=1e-8)
    np.testing.assert_allclose(np.exp(log_weights) @ a, 1, rtol=1e-8)
    if shape == 1e6:
        found, wanted = (
            exact.partitions(posterior(shape=shape, rate=shape)),
            exact.partitions(posterior(), concentration=1.0),
        )
        np.testing.assert_allclose(found.log_evidence, wanted.log_evidence, rtol=1e-5)
