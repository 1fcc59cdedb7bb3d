"""Coordinate ascent: its bound against Monte Carlo, exact evidence and scikit-learn's fixed points; its moves."""

import functools

import few_points
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp
from sklearn.mixture import BayesianGaussianMixture

import dpgmm
from dpgmm.densities import base_measure, conjugate, passes
from dpgmm.methods import _cavi_moves, _cavi_passes, _cavi_weights, cavi
from dpgmm.methods._cavi_passes import CAVIState, Statistics

MODELS = {"sticks": "stick_breaking", "dirichlet": "symmetric_dirichlet"}
FEW = ["full", "spherical", *(pytest.param(c, marks=pytest.mark.slow) for c in ("diagonal", "tied"))]
FAST = {("sticks", "full"), ("dirichlet", "tied")}
CASES = [
    pytest.param(weights, covariance, marks=() if (weights, covariance) in FAST else pytest.mark.slow)
    for weights in MODELS
    for covariance in base_measure.COVARIANCES
]


@functools.cache
def problem(weights="sticks", covariance="full", dim=2, truncation=4):
    """A posterior of three clusters and some weights, its prior, and a state from random responsibilities."""
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.normal(at, s, (n, dim)) for at, s, n in ((0, 1, 20), (4, 0.5, 15), (-3, 2, 10))])
    data = dpgmm.Dataset(points, rng.uniform(0.5, 2, len(points)))
    posterior = dpgmm.load_model(MODELS[weights])(data, truncation=truncation, covariance=covariance)
    return posterior, posterior.conjugate, start(posterior, rng.dirichlet(np.full(truncation, 0.3), len(points)))


def now(function, *args):
    """A function compiled afresh, and called: op by op everything here takes ten times as long."""
    return jax.jit(lambda *args: function(*args))(*args)


def start(posterior, responsibilities, prior=None):
    """The state of these responsibilities ``(N, K)``."""
    prior = posterior.conjugate if prior is None else prior
    data = posterior.arrays()
    shares = jnp.asarray(responsibilities) * data.weights[:, None]
    x = data.points - prior.base.mean
    squares = jnp.tensordot(shares.T, conjugate.product(x, x, prior.base), axes=1)
    statistics = Statistics(shares.sum(0), shares.T @ x, squares)
    return now(lambda s: _cavi_passes.from_statistics(s, prior), statistics)


def climbed(state, data, prior, passes):
    """The state after so many passes, and the bound before each."""
    scan = lambda s, data: jax.lax.scan(lambda s, _: cavi.step(s, data, prior), s, length=passes)
    return now(scan, state, data)


def elbo(state, data, prior):
    return now(lambda s, d: cavi.elbo(s, d, prior), state, data)


# The bound


@pytest.mark.parametrize(("weights", "covariance"), CASES)
def test_no_pass_lowers_the_bound(weights, covariance):
    posterior, prior, state = problem(weights, covariance)
    _, bounds = climbed(state, posterior.arrays(), prior, 150)
    assert np.diff(bounds).min() > -1e-10 * abs(bounds[-1])
    assert bounds[-1] - bounds[0] > 1


def test_a_wrong_update_lowers_the_bound(monkeypatch):
    """Control: q(weights) without the points of later components."""
    posterior, prior, state = problem()
    betas = lambda counts, mean: (1 + counts[:-1], mean + 0 * counts[:-1])
    value = elbo(climbed(state, posterior.arrays(), prior, 20)[0], posterior.arrays(), prior)
    monkeypatch.setattr(_cavi_weights, "_betas", betas)
    _, bounds = climbed(state, posterior.arrays(), prior, 20)
    assert np.diff(bounds).min() < -1e-6 or bounds[-1] < value - 1


@functools.cache
def monte_carlo(weights, covariance, draws=2_000):
    """Three passes from a start: the state, and mean and error of ``log p(x, z, theta) - log q`` over draws from q.

    Allocations are summed under q by plain formulas, without the features that the passes are made of.
    """
    posterior, prior, state = problem(weights, covariance)
    data = posterior.arrays()
    state, _ = climbed(state, data, prior, 3)

    def direct(q):
        """``E log w_k + E log N(x_n | mu_k, Sigma_k)``, by the average over precisions of each component."""
        rule = _cavi_weights.WEIGHTS[prior.weights]
        log_w = rule.log_weights(state.statistics.counts, jnp.exp(state.log_mean))
        return _direct(q, log_w, data.points, prior)

    joint = direct(now(lambda s: cavi.components(s, prior), state))
    responsibilities = jax.nn.softmax(joint, axis=1)
    entropy = -jnp.sum(data.weights[:, None] * jax.scipy.special.xlogy(responsibilities, responsibilities))

    def one(key):
        p = cavi.sample(key, state, prior)
        joint = dpgmm.mixture.log_joint_density(*posterior.mixture(p), data.points)
        of_points = jnp.sum(data.weights[:, None] * jnp.where(responsibilities > 0, responsibilities * joint, 0.0))
        return posterior.log_prior(p) + of_points - cavi.log_density(p, state, prior)

    values = jax.jit(jax.vmap(one))(jax.random.split(jax.random.PRNGKey(3), draws)) + entropy
    return state, float(values.mean()), float(values.std() / np.sqrt(draws))


def errors_from_monte_carlo(weights, covariance):
    """How many standard errors the bound is from its estimate."""
    posterior, prior, _ = problem(weights, covariance)
    state, mean, error = monte_carlo(weights, covariance)
    return (float(elbo(state, posterior.arrays(), prior)) - mean) / error


def _direct(q, log_weights, points, prior):
    """Expected log joint density of points and components, from residuals, in numpy."""
    blocks, size, repeats = conjugate.shape_of(prior.base)
    mean, kappa, df, tril = (np.asarray(a) for a in q)
    rows = []
    for k in range(len(mean)):
        t, nu = tril[k % len(tril)], df[k % len(df)]
        psi = t @ np.swapaxes(t, -1, -2)
        residual = (np.asarray(points) - mean[k]).reshape(-1, blocks, size, repeats)
        distance = np.einsum("nbir,bij,nbjr->n", residual, nu * np.linalg.inv(psi), residual)
        of_df = sum(float(jax.scipy.special.digamma((nu - i) / 2)) for i in range(size)) + size * np.log(2)
        log_det = repeats * (blocks * of_df - np.linalg.slogdet(psi)[1].sum())
        dim = mean.shape[1]
        rows.append(float(log_weights[k]) + 0.5 * (log_det - dim * np.log(2 * np.pi) - dim / kappa[k] - distance))
    return np.stack(rows, axis=1)


@pytest.mark.parametrize(
    ("weights", "covariance"),
    [
        ("sticks", "full"),
        ("dirichlet", "diagonal"),
        pytest.param("dirichlet", "tied", marks=pytest.mark.slow),
        pytest.param("sticks", "spherical", marks=pytest.mark.slow),
    ],
)
def test_the_bound_is_its_monte_carlo_estimate(weights, covariance):
    assert abs(errors_from_monte_carlo(weights, covariance)) < 4


def test_a_wrong_bound_is_not(monkeypatch):
    """Control: normalisers of inverse-Wishart distributions that are off."""
    monte_carlo("sticks", "full")
    whole = _cavi_passes.multigammaln
    monkeypatch.setattr(_cavi_passes, "multigammaln", lambda a, d: 0.9 * whole(a, d))
    assert abs(errors_from_monte_carlo("sticks", "full")) > 10


@pytest.mark.parametrize("model", ["stick_breaking", pytest.param("symmetric_dirichlet", marks=pytest.mark.slow)])
def test_below_the_exact_evidence(model):
    p = few_points.posterior(model=model)
    tree = dpgmm.fit(p, "cavi", restarts=3, moves=20, max_steps=200)
    evidence = dpgmm.exact.allocations(p).log_evidence
    error = tree["sample_stats"]["log_weight"].values.std(axis=1) / np.sqrt(1_000)
    bounds = -tree["optimisation"]["loss"].values
    assert (bounds <= evidence).all()
    assert (tree.attrs["elbo"] <= evidence + 4 * error).all()
    # With labels summed out the bound is higher.
    assert (tree.attrs["elbo"] > bounds[:, -1] - 4 * error).all()
    assert evidence - tree.attrs["elbo"].max() < 5
    assert (np.diff(bounds, axis=1) > -1e-9).all()
    assert np.isfinite(dpgmm.calibration.k_hat(tree)).all()
    assert dpgmm.diagnose(tree).verdict in ("restarts agree", "restarts differ")


# Densities


@pytest.mark.parametrize(("weights", "covariance"), [("dirichlet", "diagonal"), ("sticks", "tied")])
def test_log_q_is_scipys(weights, covariance):
    _, prior, state = problem(weights, covariance)
    p = jax.tree.map(np.asarray, now(lambda k: cavi.sample(k, state, prior), jax.random.PRNGKey(0)))
    q, counts, mean = (
        now(lambda s: cavi.components(s, prior), state),
        np.asarray(state.statistics.counts),
        float(np.exp(state.log_mean)),
    )
    trils = p["scale_trils"]
    value, dim = 0.0, 2
    for k in range(4):
        factor = np.diag(trils[k]) if covariance == "diagonal" else trils[k % len(trils)]
        sigma = factor @ factor.T
        value += stats.multivariate_normal.logpdf(p["means"][k], q.mean[k], sigma / q.kappa[k])
        if k >= len(trils):
            continue
        psi = np.asarray(q.scale_tril[k] @ jnp.swapaxes(q.scale_tril[k], -1, -2))
        if covariance == "diagonal":
            for d in range(dim):
                gamma = stats.invgamma(float(q.df[k]) / 2, scale=psi[d, 0, 0] / 2)
                value += gamma.logpdf(sigma[d, d]) + np.log(2 * factor[d, d])
        else:
            value += stats.invwishart(float(q.df[k]), psi[0]).logpdf(sigma)
            value += dim * np.log(2) + np.sum(np.arange(dim, 0, -1) * np.log(np.diag(factor)))
    if weights == "sticks":
        after = counts[::-1].cumsum()[::-1][1:]
        v = 1 / (1 + np.exp(-p["stick_logits"]))
        value += np.sum(stats.beta(1 + counts[:-1], mean + after).logpdf(v) + np.log(v * (1 - v)))
        rate = prior.concentration.rate - np.sum(
            jax.scipy.special.digamma(mean + after) - jax.scipy.special.digamma(1 + counts[:-1] + mean + after)
        )
        value += stats.gamma(prior.concentration.shape + 3, scale=1 / rate).logpdf(p["concentration"])
    else:
        total = np.exp(p["log_masses"]).sum()
        w = np.exp(p["log_masses"]) / total
        value += stats.dirichlet(mean / 4 + counts).logpdf(w / w.sum()) + np.log(w).sum()
        value += stats.gamma(p["concentration"]).logpdf(total) + np.log(total)
        log_a, density = _cavi_weights._grid(jnp.asarray(counts), jnp.asarray(mean), prior)
        value += np.log(np.interp(np.log(p["concentration"]), log_a, density) / p["concentration"])
    np.testing.assert_allclose(
        now(lambda p: cavi.log_density(p, state, prior), p), value, rtol=1e-6
    )  # v near one has few digits of 1 - v.


def test_a_free_concentration_has_the_mean_that_weights_are_made_with():
    """And the density that draws come from integrates to one, has that mean up to its grid, and draws have it."""
    posterior, prior, state = problem("dirichlet", "full")
    state, _ = climbed(state, posterior.arrays(), prior, 30)
    counts, mean = state.statistics.counts, jnp.exp(state.log_mean)
    log_a, density = (np.asarray(x) for x in _cavi_weights._grid(counts, mean, prior))
    np.testing.assert_allclose(np.trapezoid(density, log_a), 1, rtol=1e-10)
    np.testing.assert_allclose(np.trapezoid(density * np.exp(log_a), log_a), mean, rtol=1e-6)
    # q(a) by its definition, on a grid of its own.
    x = np.linspace(-12, 4, 20_001)
    a, tilt = np.exp(x), float(_cavi_weights.WEIGHTS["dirichlet"].tilt(counts, mean))
    lgamma = lambda x: np.asarray(jax.scipy.special.gammaln(x))
    log_q = stats.gamma(prior.concentration.shape, scale=1 / prior.concentration.rate).logpdf(a) + x
    log_q += lgamma(a) - 4 * lgamma(a / 4) + a * tilt
    np.testing.assert_allclose(np.exp(logsumexp(log_q + x) - logsumexp(log_q)), mean, rtol=1e-5)
    draw = lambda key: cavi.sample(key, state, prior)["concentration"]
    draws = np.asarray(now(jax.vmap(draw), jax.random.split(jax.random.PRNGKey(0), 4_000)))
    assert abs(draws.mean() - mean) < 4 * draws.std() / np.sqrt(len(draws))


# Passes


@pytest.mark.quick("methods")
@pytest.mark.parametrize("covariance", FEW)
def test_features_are_direct_evaluation(covariance):
    """One product against residuals, for a component a hundred times narrower than the data and far from their mean."""
    rng = np.random.default_rng(0)
    narrow, wide = rng.normal([30, -20, 10], 0.1, (200, 3)), rng.normal(0, [10, 5, 20], (200, 3))
    data = dpgmm.Dataset(np.concatenate([narrow, wide]) + 1e5)
    posterior = dpgmm.load_model("stick_breaking")(data, truncation=2, covariance=covariance)
    prior = posterior.conjugate
    assert prior is not None
    state = start(posterior, np.repeat(np.eye(2), 200, axis=0))
    q, log_w = now(lambda s: cavi.components(s, prior), state), jnp.log(jnp.array([0.5, 0.5]))

    def product(q, log_w, points):
        return _cavi_passes.coefficients(q, log_w, prior.base) @ _cavi_passes.features(points, prior.base)

    ours = np.asarray(now(product, q, log_w, posterior.arrays().points)).T
    direct = _direct(q, log_w, data.points, prior)
    np.testing.assert_allclose(ours, direct, rtol=1e-10, atol=1e-10 * np.abs(direct).max())
    np.testing.assert_allclose(logsumexp(ours, axis=1), logsumexp(direct, axis=1), rtol=1e-10, atol=1e-10)


def test_weighted_points_are_repeated_points():
    rng = np.random.default_rng(0)
    points, weights = rng.normal(size=(30, 2)), rng.integers(1, 4, 30)
    once, often = dpgmm.Dataset(points, weights), dpgmm.Dataset(np.repeat(points, weights, axis=0))
    posterior = dpgmm.load_model("stick_breaking")(often, truncation=3)
    prior = posterior.conjugate
    assert prior is not None
    state = start(posterior.on(once), rng.dirichlet(np.ones(3), 30), prior)
    (one, value), (other, same) = (climbed(state, posterior.on(d).arrays(), prior, 1) for d in (once, often))
    np.testing.assert_allclose(value, same, rtol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), one, other)


def test_chunks_of_points_change_nothing(monkeypatch):
    posterior, prior, state = problem()
    whole = climbed(state, posterior.arrays(), prior, 1)
    monkeypatch.setattr(passes, "PAIRS", 40)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11),
        whole,
        climbed(state, posterior.arrays(), prior, 1),
    )


# scikit-learn


def open_ended():
    """Sticks as scikit-learn has them: the last one, too, is Beta(1, a), and what it leaves goes to nobody."""
    rule = _cavi_weights.WEIGHTS["sticks"]
    more = lambda counts: jnp.concatenate([counts, jnp.zeros_like(counts[:1])])
    return rule._replace(
        log_weights=lambda counts, mean: rule.log_weights(more(counts), mean)[:-1],
        tilt=lambda counts, mean: rule.tilt(more(counts), mean),
        rest=lambda counts, mean: rule.rest(more(counts), mean),
        normaliser=lambda tilt, size, prior: rule.normaliser(tilt, size + 1, prior),
    )


class FromResponsibilities(BayesianGaussianMixture):
    """scikit-learn's, from given responsibilities."""

    def _initialize_parameters(self, X, *_, **__):
        self._initialize(X, self.responsibilities)


@pytest.mark.parametrize(
    ("weights", "dim"),
    [
        ("sticks", 3),
        ("dirichlet", 1),
        pytest.param("sticks", 1, marks=pytest.mark.slow),
        pytest.param("dirichlet", 3, marks=pytest.mark.slow),
    ],
)
def test_scikit_learns_fixed_point(weights, dim, monkeypatch):
    """Same prior, same start: the same means, covariances and weights, and the same bound at both, to 1e-6 and better."""
    monkeypatch.setitem(_cavi_weights.WEIGHTS, "open sticks", open_ended())
    rng = np.random.default_rng(2)
    size, a = 5, 2.0
    points = np.concatenate([rng.normal(at, s, (n, dim)) for at, s, n in ((0, 1, 60), (4, 0.5, 40), (-3, 2, 30))])
    posterior = dpgmm.load_model(MODELS[weights])(dpgmm.Dataset(points), truncation=size, kappa=0.1)
    assert posterior.conjugate is not None
    name = {"sticks": "open sticks", "dirichlet": "dirichlet"}[weights]
    prior = posterior.conjugate._replace(concentration=a, weights=name)
    base = prior.base
    psi = np.asarray(base.scale_tril[0] @ base.scale_tril[0].T)
    theirs = FromResponsibilities(
        n_components=size,
        tol=1e-10,
        reg_covar=0.0,
        max_iter=20_000,
        weight_concentration_prior_type={"sticks": "dirichlet_process", "dirichlet": "dirichlet_distribution"}[weights],
        weight_concentration_prior=a if weights == "sticks" else a / size,
        mean_precision_prior=float(base.kappa),
        mean_prior=np.asarray(base.mean),
        degrees_of_freedom_prior=float(base.df),
        covariance_prior=psi,
    )
    theirs.responsibilities = rng.dirichlet(np.ones(size), len(points))
    theirs.fit(points)
    ours, _ = climbed(start(posterior, theirs.responsibilities, prior), posterior.arrays(), prior, 5_000)
    q, counts = now(lambda s: cavi.components(s, prior), ours), ours.statistics.counts
    their_counts = np.asarray(
        theirs.weight_concentration_[0] - 1 if weights == "sticks" else theirs.weight_concentration_ - a / size
    )
    # scikit-learn stops where its bound rises by less than 1e-10: far along a plateau, not at its end.
    np.testing.assert_allclose(counts, their_counts, atol=5e-3)
    np.testing.assert_allclose(q.mean, theirs.means_, rtol=1e-4, atol=1e-4)
    their_psi = theirs.covariances_ * theirs.degrees_of_freedom_[:, None, None]
    np.testing.assert_allclose(
        (q.scale_tril @ jnp.swapaxes(q.scale_tril, -1, -2))[:, 0], their_psi, rtol=1e-4, atol=1e-3
    )
    sums = (theirs.means_ - np.asarray(base.mean)) * theirs.mean_precision_[:, None]
    outer = sums[:, :, None] * sums[:, None, :] / theirs.mean_precision_[:, None, None]
    at_theirs = Statistics(jnp.asarray(their_counts), jnp.asarray(sums), jnp.asarray(their_psi - psi + outer)[:, None])
    state = CAVIState(at_theirs, jnp.log(a))
    bounds = [float(elbo(s, posterior.arrays(), prior)) for s in (ours, state)]
    np.testing.assert_allclose(*bounds, rtol=1e-8)
    # Control: another concentration has another bound, which the comparison would see.
    other = float(elbo(state, posterior.arrays(), prior._replace(concentration=2.5)))
    assert abs(other / bounds[0] - 1) > 1e-5


# Moves


def test_one_component_has_all_of_the_weight():
    log_weights = _cavi_weights.WEIGHTS["sticks"].log_weights(jnp.array([7.0]), jnp.array(1.0))
    np.testing.assert_array_equal(log_weights, [0.0])


def test_sticks_are_best_in_order_of_size():
    posterior, prior, state = problem(truncation=6)
    state, _ = climbed(state, posterior.arrays(), prior, 100)
    worst = now(lambda s: _cavi_moves.from_order(s, jnp.argsort(s.statistics.counts), prior), state)
    best = now(lambda s: _cavi_moves.ordered(s, prior), worst)
    assert (np.diff(best.statistics.counts) <= 0).all()
    value, better = (float(elbo(s, posterior.arrays(), prior)) for s in (worst, best))
    assert better > value + 1


@pytest.mark.parametrize("covariance", FEW)
def test_a_move_only_moves_points(covariance):
    """Merges and splits keep the sums over components of counts, points and squares; deletions lose one component's."""
    _, prior, state = problem("sticks", covariance)
    empty = jax.tree.map(lambda leaf: leaf.at[3].set(0.0), state.statistics)
    state = _cavi_passes.from_statistics(empty, prior)
    total = lambda s: jax.tree.map(lambda leaf: np.asarray(leaf.sum(0)), s)
    kinds = [_cavi_moves.merged, _cavi_moves.cut, _cavi_moves.cut_in_scale, _cavi_moves.deleted]

    @jax.jit
    def every(key):
        moved = [kind(key, state, prior) for kind in kinds]
        return moved, [cavi.components(_cavi_passes.from_statistics(m, prior), prior).scale_tril for m in moved]

    for seed in range(5):
        (*kept, gone), factors = every(jax.random.PRNGKey(seed))
        assert all(np.isfinite(f).all() for f in factors)
        assert (gone.counts == 0).sum() == 2
        for moved in kept:
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), total(moved), total(empty)
            )
            assert not np.allclose(moved.counts, empty.counts)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["sticks", "dirichlet"])
def test_neither_cycles_nor_moves_lower_the_bound(weights):
    posterior, prior, state = problem(weights, "full")
    data = posterior.arrays()

    @jax.jit
    def both(climb, key, data):
        climb = _cavi_moves.cycle(climb, data, prior)
        after, taken = _cavi_moves.advance(key, climb, data, prior, 2, np.ones((), bool))
        return after, taken, cavi.elbo(climb.state, data, prior), cavi.elbo(after.state, data, prior)

    climb, takens, values = _cavi_moves.begin(state), 0, []
    for key in jax.random.split(jax.random.PRNGKey(0), 40):
        climb, taken, before, after = both(climb, key, data)
        takens += int(taken)
        values += [before, after]
        assert after >= climb.bound - 1e-9 * abs(after)
    assert np.diff(values).min() > -1e-9 * abs(values[-1])
    assert takens > 0


@pytest.mark.slow
def test_moves_leave_a_bad_fixed_point():
    """Two clusters that share one component: passes stay, moves part them."""
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(-4, 1, (200, 1)), rng.normal(4, 1, (200, 1))])
    posterior = dpgmm.load_model("stick_breaking")(dpgmm.Dataset(points), truncation=6)
    prior, data = posterior.conjugate, posterior.arrays()
    assert prior is not None
    state, bounds = climbed(start(posterior, np.eye(6)[np.zeros(400, int)]), data, prior, 300)
    moving = np.ones((), bool)
    advance = lambda c, key: _cavi_moves.advance(key, c, data, prior, 4, moving)
    tries = jax.jit(lambda c, keys: jax.lax.scan(advance, c, keys))
    climb, taken = tries(
        _cavi_moves.begin(state)._replace(bound=bounds[-1]), jax.random.split(jax.random.PRNGKey(0), 20)
    )
    assert taken.any()
    assert climb.bound > bounds[-1] + 50


# The method


def test_starts_are_draws_of_the_best_guide():
    posterior = few_points.posterior()
    starts = cavi.starts(posterior, jax.random.PRNGKey(0), 7, restarts=3, moves=10)
    assert {k: v.shape for k, v in starts.items()} == {
        "concentration": (7,), "stick_logits": (7, 3), "means": (7, 4, 1), "scale_trils": (7, 4, 1, 1),
    }  # fmt: skip
    joints = now(jax.vmap(posterior.log_joint), starts)
    at_random = jax.vmap(lambda key: posterior.log_joint(posterior.initial(key)))
    dispersed = now(at_random, jax.random.split(jax.random.PRNGKey(1), 7))
    assert joints.mean() > dispersed.max()


def test_refusals_say_what_to_do():
    data = dpgmm.datasets.galaxies()
    learnt = dpgmm.load_model("escobar_west")(data, truncation=3)
    with pytest.raises(
        dpgmm.InputError, match="cavi: model escobar_west learns the mean and kappa of its base measure"
    ):
        dpgmm.fit(learnt, "cavi")
    posterior = problem()[0]
    with pytest.raises(dpgmm.InputError, match="cavi option moves = -1: it must be a whole number, 0 or more"):
        dpgmm.fit(posterior, "cavi", moves=-1)
    with pytest.raises(dpgmm.InputError, match="option relative_tolerance = 0: it must be a positive number"):
        dpgmm.fit(posterior, "cavi", relative_tolerance=0)


def test_a_climb_on_a_sample_ends_where_one_on_all_points_does(monkeypatch):
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal([-4, 0], 1, (900, 2)), rng.normal([4, 1], [0.5, 1], (600, 2))])
    posterior = dpgmm.load_model("stick_breaking")(dpgmm.Dataset(points), truncation=4)
    climbed, stages = cavi._climbed, []
    monkeypatch.setattr(cavi, "_climbed", lambda *of: stages.append(of) or climbed(*of))
    options = {"restarts": 2, "moves": 10, "draws_per_restart": 5}
    whole, staged = (dpgmm.fit(posterior, "cavi", sample_size=size, **options) for size in (None, 300))
    assert [len(of[0].data.points) for of in stages] == [1_500, 300, 1_500]
    assert stages[1][0].data.total_weight == pytest.approx(300)  # Points of the sample count as one each,
    begun = stages[2][5].statistics
    np.testing.assert_allclose(begun.counts.sum(axis=1), 1_500, rtol=1e-6)  # and stand for all afterwards.
    mean, error = np.asarray(begun.sums.sum(axis=1)) / 1_500, points.std(axis=0) / 300**0.5
    assert (np.abs(mean - (points.mean(axis=0) - np.asarray(posterior.conjugate.base.mean))) < 4 * error).all()
    losses = [tree["optimisation"].to_dataset()["loss"].values[:, -1].min() for tree in (whole, staged)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)
    assert staged["optimisation"].sizes["step"] < whole["optimisation"].sizes["step"]
