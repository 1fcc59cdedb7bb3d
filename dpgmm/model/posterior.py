"""Posterior: one model bound to one data set. A model states its prior twice; the likelihood is the same for all."""

import dataclasses
import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from jaxtyping import Float

from ..data import Dataset
from ..densities import distributions, gaussian, mixture
from ..densities.concentration import Concentration
from ..densities.gaussian import BaseMeasure
from ..densities.transforms import Transform
from ..errors import InputError, above, at_least
from .programs import Programs, context
from .recipes import Recipe

Parameters = dict[str, Array]
_REPEATED: "weakref.WeakValueDictionary[Hashable, Array]" = weakref.WeakValueDictionary()


class Arrays(NamedTuple):
    """``points (N, D)`` and ``weights (N,)``: a data set inside a compiled program, an argument of it."""

    points: Float[Array, "N D"]
    weights: Float[Array, " N"]


class Mixture(NamedTuple):
    """A mixture as the densities want it: ``log_weights (K,)``, ``means (K, D)``, Cholesky factors `scale_trils`.

    Those are ``(K, D, D)``, lower triangular; ``(1, D, D)``, one that all components share; ``(K, D)`` standard deviations;
    or ``(K, 1)``, one for all dimensions.

    Examples:
        >>> mixture = dpgmm.Mixture(np.log([0.3, 0.7]), means=np.array([[0.0], [5.0]]), scale_trils=np.ones((2, 1)))
        >>> np.exp(mixture.log_weights).round(2).tolist()
        [0.3, 0.7]
    """

    log_weights: Float[Array, " K"]
    means: Float[Array, "K D"]
    scale_trils: Float[Array, "..."]


class Components(NamedTuple):
    """A mixture as people want it: ``weights (K,)``, ``means (K, D)``, ``covariances (K, D, D)``.

    Examples:
        >>> found = dpgmm.Components(np.array([0.3, 0.7]), np.array([[0.0], [5.0]]), np.ones((2, 1, 1)))
        >>> round(float(found.weights @ found.means[:, 0]), 2)  # the mean of the mixture
        3.5
    """

    weights: Float[Array, " K"]
    means: Float[Array, "K D"]
    covariances: Float[Array, "..."]


class Hyperprior(NamedTuple):
    """Flat prior of the base measure's mean, and ``kappa ~ Gamma(shape, rate)``; parameters `base_mean` and `kappa`."""

    shape: float
    rate: float


class Conjugate(NamedTuple):
    """The prior again, as Gibbs samplers and exact answers want it: normal-inverse-Wishart, and a rule for weights.

    `weights` is ``"sticks"``, the truncated Dirichlet process, or ``"dirichlet"``, ``Dirichlet(a/K, .., a/K)``. `base` holds
    starting values of its mean and kappa where there is a `hyperprior`. `covariance` is a name in
    `dpgmm.base_measure.COVARIANCES`.
    """

    base: BaseMeasure
    concentration: Concentration
    weights: str
    hyperprior: Hyperprior | None = None
    covariance: str = "full"


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior:
    """One model bound to one data set.

    A model file gives `log_prior(parameters) -> ()` in plain JAX, the same prior as `prior_program() -> Mixture` in
    NumPyro, `mixture(parameters) -> Mixture`, one `Transform` per site, in an order in which each may use the sites
    before it, and `initial(key) -> parameters`, a dispersed start. `parameters` is a dict of arrays keyed by site name.
    Everything else follows here, once. `conjugate` is there for methods that need a conjugate prior, where it is one.
    `recipe`, set by `load_model`, is how it was made: what has one can be pickled, and is made again where it arrives.

    Examples:
        >>> posterior.name, posterior.data.points.shape
        ('stick_breaking', (11, 1))
        >>> jax.eval_shape(posterior.initial, jax.random.PRNGKey(0))["means"].shape  # of three components
        (3, 1)
    """

    name: str
    data: Dataset
    options: dict[str, Any]
    log_prior: Callable[[Parameters], Float[Array, ""]]
    mixture: Callable[[Parameters], Mixture]
    prior_program: Callable[[], Mixture]
    transforms: dict[str, Transform]
    initial: Callable[[Array], Parameters]
    conjugate: Conjugate | None = None
    programs: Programs = dataclasses.field(default_factory=Programs, repr=False)
    recipe: Recipe | None = dataclasses.field(default=None, repr=False)

    def __reduce__(self) -> tuple:
        """Raises `InputError` where there is no recipe, or more than the data has been changed since."""
        if self.recipe is None or not self.recipe.fits(self):
            how = "was made by hand" if self.recipe is None else "was changed after it was made"
            raise InputError(
                f"posterior {self.name} {how}, so that it cannot be sent to another process; state it in a model file"
                " and make it by load_model(path)(data)"
            )
        return self.recipe.reduced(self)

    def log_likelihood(self, parameters: Parameters) -> Float[Array, ""]:
        """``sum_n omega_n log sum_k w_k N(x_n | mu_k, Sigma_k)``, nats."""
        return mixture.log_likelihood(*self.mixture(parameters), *self.arrays())

    def log_joint(self, parameters: Parameters) -> Float[Array, ""]:
        """Normalised log prior plus log likelihood, nats, a density of the constrained parameters."""
        return self.log_prior(parameters) + self.log_likelihood(parameters)

    def program(self) -> None:
        """The NumPyro program of this posterior, to be handed over as it is: ``numpyro.infer.NUTS(posterior.program)``."""
        points, weights = self.arrays()
        numpyro.sample("points", distributions.GaussianMixture(*self.prior_program(), weights), obs=points)

    def constrain(self, unconstrained: Parameters) -> tuple[Parameters, Float[Array, ""]]:
        """Parameters and ``log |d parameters / d unconstrained|``, from coordinates scaled to the data."""
        parameters, log_jacobian = {}, jnp.zeros(())
        for site, transform in self.transforms.items():
            parameters[site], of_site = transform.constrain(unconstrained[site], parameters)
            log_jacobian += of_site
        return parameters, log_jacobian

    def unconstrain(self, parameters: Parameters) -> Parameters:
        """Inverse of `constrain`."""
        return {site: t.unconstrain(parameters[site], parameters) for site, t in self.transforms.items()}

    def log_density(self, unconstrained: Parameters) -> Float[Array, ""]:
        """Log joint density of the unconstrained coordinates, Jacobian included: what a sampler walks on."""
        parameters, log_jacobian = self.constrain(unconstrained)
        return self.log_joint(parameters) + log_jacobian

    def components(self, parameters: Parameters) -> Components:
        """Weights, means and covariances of one set of parameters; `jax.vmap` it for draws."""
        log_weights, means, scale_trils = self.mixture(parameters)
        covariances = _covariances(scale_trils, means)
        if covariances.ndim == means.ndim:
            dim = means.shape[-1]
            covariances = jnp.broadcast_to(covariances, means.shape)[..., None] * jnp.eye(dim)
        return Components(jnp.exp(log_weights), means, jnp.broadcast_to(covariances, (*means.shape, means.shape[-1])))

    def smallest_components(self, parameters: Parameters) -> Components:
        """The same with covariances in the form of `mixture`'s factors, which is the smallest of their type."""
        log_weights, means, scale_trils = self.mixture(parameters)
        return Components(jnp.exp(log_weights), means, _covariances(scale_trils, means))

    def on(self, data: Dataset | Arrays) -> "Posterior":
        """The same prior, hyperparameters untouched, with the likelihood of other data: a compressed set, say."""
        return dataclasses.replace(self, data=data)  # pyright: ignore[reportArgumentType]  # Arrays while tracing

    def arrays(self) -> Arrays:
        """The data as arrays of the default floating type, to be handed to a compiled program: see `compile`.

        On a CPU the points of a mapped file stay where they are.
        """
        dtype, weights = jax.dtypes.canonicalize_dtype(float), self.data.weights
        is_one_for_all = isinstance(weights, np.ndarray) and weights.strides == (0,)
        weights = _repeated(len(weights), weights[0], dtype) if is_one_for_all else jnp.asarray(weights, dtype)
        return Arrays(jnp.asarray(self.data.points, dtype), weights)

    def compile(self, name: Hashable, function: Callable, *args: Any) -> tuple[Callable, float]:
        """`function` compiled for arguments like `args`, and the seconds that took: none the second time.

        Programs are kept with the prior, for all data sets: data must be among `args`, and `name` must tell whatever
        else `function` closes over, but for the model's own functions. Another prior, which differs in the arrays that its
        functions close over, is traced and not compiled.
        """
        return self.programs.compile((name, self._functions()), function, *args)

    def keep(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returned the first time that it was asked for: for what a kept program needs besides."""
        return self.programs.keep((name, self._functions()), make)

    def _functions(self) -> Hashable:
        """What a program may close over: the model's functions, one by one."""
        functions = self.log_prior, self.mixture, self.initial, self.prior_program, tuple(self.transforms.items())
        return *functions, _Same(self.conjugate)


def _repeated(size: int, weight: float, dtype: Any) -> Float[Array, " N"]:
    """So many weights that are all the same, once for all who hold them: beside a mapped file they take most memory."""
    key = size, float(weight), dtype, context()
    with jax.ensure_compile_time_eval():
        held = _REPEATED.get(key)
        if held is None:
            held = _REPEATED[key] = jnp.full(size, weight, dtype)
    return held


class _Same:
    """A key that is equal to that of the same object only, for what cannot be hashed; it keeps the object alive."""

    def __init__(self, it: Any):
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.it is other.it

    def __hash__(self) -> int:
        return id(self.it)


def _covariances(scale_trils: Float[Array, "*form"], means: Float[Array, "K D"]) -> Float[Array, "*form"]:
    """``L L^T``, in the form of L."""
    if gaussian.is_diagonal(scale_trils, means):
        return scale_trils**2
    return scale_trils @ jnp.swapaxes(scale_trils, -1, -2)


def check_options(truncation: int | None, **positive: float) -> None:
    """Raise `InputError` unless a truncation that is given is at least 1 and every other option a positive finite number."""
    if truncation is not None:
        at_least("model", 1, truncation=truncation)
    above(0, **positive)
