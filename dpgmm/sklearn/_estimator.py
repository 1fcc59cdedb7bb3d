"""`DPGaussianMixture`: fit, predict, score and sample, with the arguments and attributes of scikit-learn's mixtures."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import xarray as xr
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .. import diagnostics, draws
from ..data import Dataset
from ..diagnostics.verdicts import FOUND
from ..draws import allocations, prediction
from ..errors import InputError
from ..methods import find
from ..methods.fitting import fit
from ..model.loading import load_model
from ..relabelling import relabel

CONVERGED = *FOUND, "restarts agree"
"""Verdicts under which `converged_` is true."""
RELABELLED_BY = "ecr_iterative_1"
"""How the components of a sampler's draws are given one labelling; those of a guide have one."""


class DPGaussianMixture(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator):
    """A Dirichlet-process Gaussian mixture fitted by any method of this package.

    Parameters are those of `dpgmm.fit`: `n_components` is the truncation K, `prior` and `options` go to the model and to
    the method. `warm_start`: a new fit to the same data competes with the last one, and the higher `lower_bound_` is
    kept. Everything is computed in float64, whatever JAX is set to. Rows that are equal count once, with the sum of their
    weights, where the method takes weighted points: neither their order nor repeated rows change the answer.

    Attributes:
        `draws_`: what was fitted, in the schema (docs/schema.md): what else this package computes takes it.
        `weights_`, `means_`, `covariances_`, `precisions_`: ``(K,)``, ``(K, D)``, ``(K, D, D)``: posterior means over the
            draws of `draws_` and the inverse of the mean covariances, components in order of their weight. The draws of a
            sampler are relabelled first (ECR, iterated); a guide or a mode has labels of its own.
        `converged_`: what the verdict on the draws says (docs/verdicts.md); `verdict_` is the verdict.
        `n_iter_`: steps of the optimiser, or draws of each chain.
        `lower_bound_`: the bound of a guide, the largest log joint density of the draws otherwise, nats.

    Examples:
        >>> import numpy as np
        >>> from dpgmm.sklearn import DPGaussianMixture
        >>> x = np.concatenate([np.linspace(-6, -5, 20), np.linspace(5, 6, 20)])[:, None]
        >>> estimator = DPGaussianMixture(8, random_state=0).fit(x)
        >>> len(set(estimator.predict(x)))
        2
    """

    n_features_in_: int

    def __init__(
        self,
        n_components: int = 20,
        *,
        method: Any = "cavi",
        model: str = "stick_breaking",
        covariance_type: str = "full",
        prior: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        warm_start: bool = False,
        random_state: Any = None,
    ):
        self.n_components = n_components
        self.method = method
        self.model = model
        self.covariance_type = covariance_type
        self.prior = prior
        self.options = options
        self.warm_start = warm_start
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "DPGaussianMixture":
        """Fit to rows X ``(N, D)``, of weights `sample_weight` ``(N,)``; y is ignored. Raises `InputError`, a ValueError."""
        X = np.asarray(validate_data(self, X, dtype=np.float64, ensure_min_samples=2))
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        method, seed = find(self.method), int(check_random_state(self.random_state).randint(2**31))
        rows = _distinct(X, weights) if not method.allocates else _repeated(X, weights)
        with jax.enable_x64(True):
            options = {"truncation": self.n_components, "covariance": self.covariance_type} | dict(self.prior or {})
            posterior = load_model(self.model)(Dataset(*rows, name="X"), **options)
            tree = fit(posterior, method, seed=seed, **dict(self.options or {}))
            if not (self.warm_start and self._is_better(tree)):
                self._take(tree)
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """`fit`, then `predict` of the same rows."""
        return self.fit(X, y, sample_weight).predict(X)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability ``(N, K)`` that a row came from each component of `weights_`: its mean over the draws."""
        X = self._checked(X)
        total = np.zeros((len(X), len(self.weights_)))
        with jax.enable_x64(True):
            for part in allocations.chunks(len(self._weights), len(X), len(self.weights_)):
                total += np.asarray(allocations.probabilities(*self._draws(part), X)).sum(axis=0)
        return total / total.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable component of every row, ``(N,)``."""
        return self.predict_proba(X).argmax(axis=1)

    def transform(self, X: Any) -> np.ndarray:
        """`predict_proba`, as features."""
        return self.predict_proba(X)

    def score_samples(self, X: Any) -> np.ndarray:
        """Log posterior predictive density of every row, ``(N,)`` nats: the logarithm of the mean density over draws."""
        X = self._checked(X)
        with jax.enable_x64(True):
            density = prediction.log_density(self._shown, X)
        return logsumexp(density, axis=(0, 1)) - np.log(density.shape[0] * density.shape[1])

    # scikit-learn's mixin, which does nothing, has no annotation: `None` is inferred.
    def score(self, X: Any, y: Any = None) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Mean of `score_samples`."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """`n_samples` rows from the posterior predictive distribution, and the components that they came from."""
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"n_samples is {n_samples}; give 1 or more")
        rng = check_random_state(self.random_state)
        drawn = rng.randint(len(self._weights), size=n_samples)
        cumulative = self._weights[drawn].cumsum(axis=1)
        labels = (cumulative < rng.uniform(size=(n_samples, 1)) * cumulative[:, -1:]).sum(axis=1)
        factors = np.linalg.cholesky(self._covariances[drawn, labels])
        noise = rng.normal(size=(n_samples, self.n_features_in_))
        return self._means[drawn, labels] + np.einsum("nde,ne->nd", factors, noise), labels

    @property
    def verdict_(self) -> str:
        """The verdict on the draws, found when it is first asked for."""
        check_is_fitted(self)
        if not hasattr(self, "_verdict"):
            with jax.enable_x64(True):
                self._verdict = diagnostics.diagnose(self.draws_).verdict
        return self._verdict

    @property
    def converged_(self) -> bool:
        """Whether `verdict_` is one of `CONVERGED`."""
        return self.verdict_ in CONVERGED

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, dtype=np.float64, reset=False))

    def _is_better(self, tree: xr.DataTree) -> bool:
        """Whether the last fit was to the same data, and its answer is the better one."""
        if not hasattr(self, "draws_"):
            return False
        same = self.draws_["observed_data"].to_dataset().equals(tree["observed_data"].to_dataset())
        return bool(same and self.lower_bound_ >= _lower_bound(tree))

    def _take(self, tree: xr.DataTree) -> None:
        """The attributes, from draws."""
        shown = draws.answer(tree)
        if draws.kind(shown) == "sampler" and shown["posterior"].sizes["component"] > 1:
            shown = relabel(shown, RELABELLED_BY).draws
        posterior = shown["posterior"].to_dataset()
        flat = lambda a: a.reshape(-1, *a.shape[2:])
        arrays = posterior["weights"].values, posterior["means"].values, draws.covariances(posterior)
        weights, means, covariances = map(flat, arrays)
        order = np.argsort(-weights.mean(axis=0), kind="stable")
        self.__dict__.pop("_verdict", None)
        self._shown = shown
        self._weights, self._means, self._covariances = weights[:, order], means[:, order], covariances[:, order]
        self.draws_, self.lower_bound_ = tree, _lower_bound(tree)
        self.weights_, self.means_, self.covariances_ = (
            a.mean(axis=0) for a in (self._weights, self._means, self._covariances)
        )
        self.precisions_ = np.linalg.inv(self.covariances_)
        self.n_iter_ = _length(tree)

    def _draws(self, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._weights[part], self._means[part], self._covariances[part]

    @property
    def _n_features_out(self) -> int:
        """Number of columns of `transform`."""
        return len(self.weights_)


def _distinct(X: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of positive weight, sorted, and the sums of their weights."""
    kept = weights > 0
    rows, index = np.unique(X[kept], axis=0, return_inverse=True)
    return rows, np.bincount(index.ravel(), weights[kept])


def _repeated(X: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows as often as their weights say, for methods that allocate points. Raises `InputError` for shares of points."""
    if (weights != np.floor(weights)).any():
        raise InputError(
            "sample_weight: this method allocates whole points; give whole weights, or choose cavi, map or nuts"
        )
    rows = np.repeat(X, weights.astype(int), axis=0)
    return rows, np.ones(len(rows))


def _lower_bound(tree: xr.DataTree) -> float:
    if "elbo" in tree.attrs:
        return float(np.nanmax(np.atleast_1d(tree.attrs["elbo"])))
    return float(draws.log_joint_of(tree).max())


def _length(tree: xr.DataTree) -> int:
    """Steps of the optimiser, or draws of each chain."""
    return int(
        tree["optimisation"].sizes["step"] if "optimisation" in tree.children else tree["posterior"].sizes["draw"]
    )
