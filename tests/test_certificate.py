"""The certificate of a compression: the largest error of either sign, at draws of which one alone is bad."""

import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import norm

from dpgmm.data import Dataset
from dpgmm.data.compression import Binned, compress
from dpgmm.draws.components import Components
from dpgmm.draws.thinning import evenly
from dpgmm.methods import certificate

pytestmark = pytest.mark.quick("methods")

DRAWS = 200
FULL = Dataset(np.array([-0.5, 0.5, 8.0, 9.0]))
"""Two pairs of points, each of which becomes one point of weight two."""
COMPRESSED = Dataset(np.array([0.0, 8.5]), np.array([2.0, 2.0]))
WORST = next(t for t in range(70, DRAWS) if t not in evenly(DRAWS, certificate.SPREAD))


def components(sd, centre, worst=WORST):
    """Wide components, but in one draw one of half the weight and of this width; some empty ones are narrower still."""
    weights, means, sds = (np.tile(row, (DRAWS, 1)) for row in ([0.5, 0.5, 1e-9], [0.0, 8.5, 3.0], [6.0, 6.0, 1.0]))
    sds[: DRAWS // 4, 2] = 1e-3
    sds[worst, 0], means[worst, 0] = sd, centre
    return weights, means, sds


def tree(weights, means, sds):
    dims = "chain", "draw", "component"
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(
                {
                    "weights": (dims, weights[None]),
                    "means": ((*dims, "dim"), means[None, ..., None]),
                    "covariances": ((*dims, "dim", "dim_"), sds[None, ..., None, None] ** 2),
                }
            )
        }
    )


def errors(weights, means, sds):
    """Exact log likelihood less the compressed one, of every draw."""

    def of(data):
        log_p = np.log(weights[:, None]) + norm.logpdf(data.points, means[:, None], sds[:, None])
        return logsumexp(log_p, axis=-1) @ data.weights

    return of(FULL) - of(COMPRESSED)


@pytest.mark.parametrize(("centre", "sign"), [(0.0, -1), (1.5, 1)])
def test_one_bad_draw_of_either_sign_is_found(centre, sign):
    """A component whose centre is between the two points has less of a likelihood, one beside them has more of it."""
    drawn = components(0.4, centre)
    exact = errors(*drawn)
    others = np.abs(np.delete(exact, WORST)).max()
    assert np.sign(exact[WORST]) == sign
    assert abs(exact[WORST]) > 20 * others > 0
    # Not among the draws that are evenly spread: it is looked at because it has the narrowest component that carries data.
    found = certificate.largest_error(tree(*drawn), FULL, COMPRESSED)
    assert found == pytest.approx(abs(exact[WORST]), rel=1e-9)


def test_draws_without_narrow_components_are_looked_at_too():
    """An error of wide components, in a draw that is evenly spaced, where a quarter of the draws are narrower."""
    weights, means, sds = components(6.0, 0.0)
    sds[: DRAWS // 4, :2] = 5.0
    bad = int(evenly(DRAWS, certificate.SPREAD)[-2])
    means[bad] = [60.0, 60.0, 60.0]
    exact = errors(weights, means, sds)
    assert np.abs(exact).argmax() == bad
    assert certificate.largest_error(tree(weights, means, sds), FULL, COMPRESSED) == pytest.approx(abs(exact[bad]))


FINE = 0.05
"""Width of the bins that take the points' place."""
MANY = Dataset(np.concatenate([norm.rvs(-3, 1, 3_000, random_state=0), norm.rvs(3, 0.5, 3_000, random_state=1)]))


def mixtures(sd, count=30):
    rng = np.random.default_rng(int(1000 * sd))
    means, sds = rng.normal(0, 3, (count, 4)), sd * rng.uniform(1, 2, (count, 4))
    return rng.dirichlet(np.ones(4), count), means, sds


def log_likelihoods(weights, means, sds, data):
    log_p = np.log(weights[:, None]) + norm.logpdf(data.points, means[:, None], sds[:, None])
    return logsumexp(log_p, axis=-1) @ data.weights


@pytest.mark.parametrize("sd", [0.02, 0.1, 0.4, 1.0])
def test_the_bound_is_above_the_error_and_not_far_above_that_of_narrow_components(sd):
    binned = Binned.of(MANY, FINE)
    weights, means, sds = mixtures(sd)
    told = certificate.bound(Components(weights, means[..., None], sds[..., None, None] ** 2), binned)
    error = np.abs(log_likelihoods(weights, means, sds, MANY) - log_likelihoods(weights, means, sds, binned.data))
    assert (told >= error - 1e-9).all()
    assert sd > 0.1 or np.median(told / error) < 100


def test_bins_that_hold_their_own_points_have_no_error():
    few = Dataset([0.0, 1.0, 1.0, 5.0, 5.01])
    binned = Binned.of(few, 0.5)
    assert len(binned.replaced()[0]) == 0
    weights, means, sds = mixtures(1e-3)
    assert certificate.bound(Components(weights, means[..., None], sds[..., None, None] ** 2), binned).max() == 0


def test_of_a_finer_compression_the_error_is_the_exact_one_and_a_bound_more():
    weights, means, sds = mixtures(0.1)
    small = compress(MANY, 4 * FINE)
    binned = Binned.of(MANY, FINE)
    exact = np.abs(log_likelihoods(weights, means, sds, MANY) - log_likelihoods(weights, means, sds, small)).max()
    found = certificate.largest_error(tree(weights, means, sds), binned, small)
    beside = certificate.bound(Components(weights, means[..., None], sds[..., None, None] ** 2), binned)
    assert exact <= found <= exact + 2 * float(beside.max())
    assert found > certificate.largest_error(tree(weights, means, sds), binned.data, small)
