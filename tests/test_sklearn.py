"""The estimator: scikit-learn's own checks, its numbers against the draws' own, and its place in pipelines and searches."""

import pickle
from typing import Any
from unittest import SkipTest

import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from dpgmm import InputError
from dpgmm.sklearn import DPGaussianMixture

SHORT = {"restarts": 1, "moves": 0, "draws_per_restart": 20, "max_steps": 60}
RATE = {"rate": 4.0}


def two_groups(seed=0, size=30):
    return np.random.default_rng(seed).normal([[-6.0, 0.0], [6.0, 1.0]], 1.0, (size, 2, 2)).reshape(-1, 2)


def estimator(**given):
    """Under a prior that does not depend on the number of rows, so that programs are shared."""
    usual = {"n_components": 3, "options": SHORT, "prior": RATE, "random_state": 0}
    return DPGaussianMixture(**usual | given)


@pytest.fixture(scope="module")
def fitted():
    return estimator().fit(two_groups())


@pytest.mark.quick("sklearn")
def test_two_groups_are_two_clusters(fitted):
    x = two_groups()
    labels = fitted.predict(x)
    assert len(set(labels[::2])) == len(set(labels[1::2])) == 1
    assert labels[0] != labels[1]
    assert fitted.weights_[:2].sum() > 0.95
    assert (np.diff(fitted.weights_) <= 0).all()
    np.testing.assert_array_equal(np.sort(np.round(fitted.means_[:2, 0] / 6)), [-1, 1])
    assert fitted.draws_["observed_data"].sizes == {"obs": 60, "dim": 2}


def test_the_numbers_are_those_of_the_draws(fitted):
    """Density and membership, one draw and one component at a time, by scipy."""
    x = two_groups(1, 3)
    shown = fitted.draws_["posterior"].to_dataset()
    weights, means, covariances = (shown[n].values for n in ("weights", "means", "covariances"))
    joint = np.array(
        [
            [w * multivariate_normal.pdf(x, m, c) for w, m, c in zip(*draw, strict=True)]
            for draw in zip(weights[0], means[0], covariances[0], strict=True)
        ]
    )
    np.testing.assert_allclose(fitted.score_samples(x), np.log(joint.sum(axis=1).mean(axis=0)), rtol=1e-10)
    order = np.argsort(-weights[0].mean(axis=0), kind="stable")
    share = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0).T[:, order]
    np.testing.assert_allclose(fitted.predict_proba(x), share, atol=1e-12)
    np.testing.assert_array_equal(fitted.predict(x), share.argmax(axis=1))
    assert fitted.score(x) == pytest.approx(fitted.score_samples(x).mean(), rel=1e-14)
    np.testing.assert_allclose(
        fitted.precisions_ @ fitted.covariances_, np.broadcast_to(np.eye(2), (3, 2, 2)), atol=1e-9
    )


def test_samples_have_the_moments_of_the_predictive(fitted):
    size = 20_000
    x, labels = fitted.sample(size)
    error = x.std(axis=0) / size**0.5
    assert (np.abs(x.mean(axis=0) - fitted.weights_ @ fitted.means_) < 5 * error + 0.02).all()
    shares = np.bincount(labels, minlength=3) / size
    np.testing.assert_allclose(shares, fitted.weights_, atol=5 * 0.5 / size**0.5)


def test_weights_stand_for_repeated_rows_in_any_order():
    """Sixty rows of ninety count, as many as elsewhere: of one shape is one program."""
    x, rng = two_groups(size=45), np.random.default_rng(0)
    weights = rng.permutation(np.repeat([0, 1, 2], 30))
    repeated = rng.permutation(np.repeat(x, weights, axis=0))
    one, other = estimator().fit(x, sample_weight=weights), estimator().fit(repeated)
    np.testing.assert_array_equal(one.means_, other.means_)
    with pytest.raises(ValueError, match="at least one non-zero"):
        estimator().fit(x, sample_weight=np.zeros(len(x)))
    with pytest.raises(InputError, match="whole points"):
        estimator(method="gibbs", options={}).fit(x, sample_weight=np.full(len(x), 0.5))


def test_the_outer_setting_of_precision_is_left_alone(fitted):
    with jax.enable_x64(False):
        assert estimator().fit(two_groups()).means_.dtype == np.float64
        assert jax.numpy.zeros(1).dtype == np.float32
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.predict_proba(two_groups()), fitted.predict_proba(two_groups()))


def test_a_warm_start_keeps_the_better_answer(fitted):
    """The second of these seeds finds a better answer than the first, the third a worse one than the second."""
    x = two_groups()
    warm = estimator(warm_start=True)
    bounds = [warm.set_params(random_state=seed).fit(x).lower_bound_ for seed in range(3)]
    alone = [fitted.lower_bound_, *(estimator(random_state=seed).fit(x).lower_bound_ for seed in (1, 2))]
    assert alone[0] < alone[1] > alone[2]
    np.testing.assert_array_equal(bounds, np.maximum.accumulate(alone))
    warm.fit(two_groups(1))
    assert warm.lower_bound_ != max(bounds)


def test_in_a_pipeline_and_a_search():
    """Of a prior: one split, all rows on either side of it, so that every fit runs the program that is there."""
    x, scales = two_groups(), [RATE | {"component_scale": scale} for scale in (20.0, 0.3)]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), estimator()).set_output(transform="pandas"),
        {"dpgaussianmixture__prior": scales},
        cv=[(np.arange(60), np.arange(60))],
    )
    search.fit(x)
    assert search.best_params_ == {"dpgaussianmixture__prior": scales[1]}
    frame = search.best_estimator_.transform(x)
    assert list(frame.columns) == [f"dpgaussianmixture{k}" for k in range(3)]


@pytest.mark.slow
def test_a_sampler_and_a_mode_are_estimators_too():
    x = two_groups()
    sampled = estimator(method="gibbs", options={"chains": 2, "warmup": 100, "draws_per_chain": 200}).fit(x)
    assert len(set(sampled.predict(x)[::2])) == 1
    assert sampled.n_iter_ == 200
    mode = estimator(method="map", options={"restarts": 2, "steps": 500}).fit(x)
    assert mode.verdict_ == "point estimate"
    assert not mode.converged_


@pytest.mark.slow
def test_scikit_learns_own_checks():
    failed, skipped = {}, []
    checks: Any = estimator_checks_generator(DPGaussianMixture(4, options=SHORT | {"draws_per_restart": 50}))
    for one, check in checks:
        try:
            check(one)
        except SkipTest:  # As check_estimator does: what it needs is not there.
            skipped.append(check.func.__name__)
        except Exception as error:  # All of them are to be told at once.
            failed[check.func.__name__] = error
    assert failed == {}
    assert set(skipped) <= {"check_array_api_input"}  # It asks for SCIPY_ARRAY_API in the environment.
