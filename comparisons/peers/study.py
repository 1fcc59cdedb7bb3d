"""Is the same work done faster elsewhere? Ours beside other libraries, taking turns.

    dpgmm study peers

Four works: one pass of expectation and maximisation; value and gradient of a mixture's log likelihood; a variational fit
to its end; NUTS draws of a small posterior. Every library runs in a process of its own, which is asked for one round after
the other, so that all see the same noise; the first round, which compiles, is told apart. Medians, and ratios to ours.
Libraries that are not installed are left out, and named. Writes ``peers.html`` and ``peers.json``.
"""

import importlib.util
import json
import select
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from dpgmm import Dataset, InputError, Posterior, datasets, fit, load_model
from dpgmm.densities import mixture
from dpgmm.methods import _cavi_passes, cavi
from dpgmm.report import plots, study
from dpgmm.report.study import Picture, Section

QUESTION = "The same work on the same data: how long does it take here, and how long elsewhere?"
OURS = "dpgmm"
NEEDS = {"gmmx": "gmmx", "scikit-learn": "sklearn"}
"""Modules of libraries that need not be there."""
PATIENCE = 120.0
"""Seconds for a round, unless its work says more: XLA's batched LAPACK may stop a program for good."""
SINGLE = ("gmmx",)
"""Libraries that take single precision alone."""


class Work(NamedTuple):
    """`what` is done, on how many points of which dimension, with how many components; by library, what makes a round of it.

    A maker takes the points, the number of components, and returns a function of nothing that does the work once and returns
    a number, which rounds of all libraries must have in common where `same`. A library that has not answered after so many
    seconds of `patience` is given up.
    """

    what: str
    size: int
    dim: int
    num_components: int
    makers: dict[str, Callable[[np.ndarray, int], Callable[[], float]]]
    rounds: int
    same: bool = False
    patience: float = PATIENCE


# Rounds.


def our_pass(points: np.ndarray, num_components: int) -> Callable[[], float]:
    """`_cavi_passes.step`: responsibilities, statistics, weights, and the bound."""
    posterior = _posterior(points, num_components)
    prior, data = cavi.checked(posterior), posterior.arrays()
    state = cavi.init(random.PRNGKey(0), data, prior, num_components)
    return _stepping(jax.jit(lambda state, data: _cavi_passes.step(state, data, prior)), state, data)


def sklearn_pass(points: np.ndarray, num_components: int) -> Callable[[], float]:
    """An E-step, an M-step and the bound of scikit-learn's variational mixture."""
    from sklearn.mixture import BayesianGaussianMixture

    fitted = BayesianGaussianMixture(n_components=num_components, init_params="random_from_data", max_iter=1, tol=1e9)
    with warnings.catch_warnings():  # One pass does not converge.
        warnings.simplefilter("ignore")
        fitted.fit(points)
    steps: Any = fitted

    def once() -> float:
        log_density, log_r = steps._e_step(points)
        steps._m_step(points, log_r)
        return float(steps._compute_lower_bound(log_r, log_density))

    return once


def gmmx_pass(points: np.ndarray, num_components: int) -> Callable[[], float]:
    """An E-step and an M-step of gmmx's EM."""
    import gmmx  # pyright: ignore[reportMissingImports]  # not among the extras

    points = points.astype(np.float32)
    rows = np.random.default_rng(0).choice(len(points), num_components, replace=False)
    one = np.cov(points.T).reshape(points.shape[1], -1).astype(np.float32)
    start = gmmx.GaussianMixtureModelJax.from_squeezed(
        means=points[rows],
        covariances=np.repeat(one[None], num_components, axis=0),
        weights=np.full(num_components, 1 / num_components, np.float32),
    )
    fitter = gmmx.EMFitter()

    def step(model, x):
        value, log_r = fitter.e_step(x, model)
        return fitter.m_step(x, model, log_r), value

    return _stepping(jax.jit(step), start, jnp.asarray(points))


def our_gradient(points: np.ndarray, num_components: int) -> Callable[[], float]:
    """`dpgmm.mixture.log_likelihood` and its gradient."""
    return _gradient(lambda c, x: mixture.log_likelihood(c[0], c[1], c[2], x), points, num_components)


def autodiff_gradient(points: np.ndarray, num_components: int) -> Callable[[], float]:
    """The same, written down as the article does, residuals solved by the factors, and left to automatic differentiation."""

    def log_likelihood(components, x):
        log_weights, means, trils = components
        solve = lambda mean, tril: jax.scipy.linalg.solve_triangular(tril, (x - mean).T, lower=True)
        z = jax.vmap(solve)(means, trils)
        log_det = jnp.log(jnp.diagonal(trils, axis1=1, axis2=2)).sum(axis=1)
        log_p = -0.5 * (z**2).sum(axis=1) - (log_det + 0.5 * x.shape[1] * jnp.log(2 * jnp.pi))[:, None]
        return jax.nn.logsumexp(log_weights[:, None] + log_p, axis=0).sum()

    return _gradient(log_likelihood, points, num_components)


def numpyro_gradient(points: np.ndarray, num_components: int) -> Callable[[], float]:
    """The same by NumPyro's `MixtureSameFamily`."""
    import numpyro.distributions as dist

    def log_likelihood(components, x):
        log_weights, means, trils = components
        normals = dist.MultivariateNormal(means, scale_tril=trils)
        return dist.MixtureSameFamily(dist.Categorical(logits=log_weights), normals).log_prob(x).sum()

    return _gradient(log_likelihood, points, num_components)


def our_fit(points: np.ndarray, num_components: int) -> Callable[[], float]:
    """`cavi`, one restart, to its end, moves, compression and its certificate included; the bound."""
    posterior = _posterior(points, num_components)

    def once() -> float:
        tree = fit(posterior, "cavi", restarts=1, draws_per_restart=1)
        return -float(tree["optimisation"].to_dataset()["loss"].values[0, -1])

    return once


def sklearn_fit(points: np.ndarray, num_components: int) -> Callable[[], float]:
    """scikit-learn's variational mixture, one start at random points, to its end: 0.001 nats a pass."""
    from sklearn.mixture import BayesianGaussianMixture

    def once() -> float:
        fitted = BayesianGaussianMixture(
            n_components=num_components, init_params="random_from_data", max_iter=100_000, random_state=0
        ).fit(points)
        return float(fitted.n_iter_)

    return once


def our_nuts(points: np.ndarray, num_components: int) -> Callable[[], float]:
    """500 warm-up transitions and 500 draws of one chain of `nuts`, without moves."""
    posterior = _posterior(points, num_components)

    def once() -> float:
        tree = fit(posterior, "nuts", chains=1, warmup=500, draws_per_chain=500, moves="none")
        return float(tree["sample_stats"].to_dataset()["log_joint"].mean())

    return once


def numpyro_nuts(points: np.ndarray, num_components: int) -> Callable[[], float]:
    """As many of NumPyro's NUTS on our program."""
    from numpyro.infer import MCMC, NUTS

    posterior = _posterior(points, num_components)
    sampler = MCMC(NUTS(posterior.program), num_warmup=500, num_samples=500, progress_bar=False)

    def once() -> float:
        sampler.run(random.PRNGKey(0), extra_fields=("potential_energy",))
        return -float(np.mean(sampler.get_extra_fields()["potential_energy"]))

    return once


def _posterior(points: np.ndarray, num_components: int) -> Posterior:
    return load_model("stick_breaking")(Dataset(points), truncation=num_components)


def _stepping(step: Callable[..., Any], state: Any, data: Any) -> Callable[[], float]:
    """A round: from where the last one ended."""

    def once() -> float:
        nonlocal state
        state, value = step(state, data)
        return float(value)

    return once


def _gradient(log_likelihood: Callable[..., Any], points: np.ndarray, num_components: int) -> Callable[[], float]:
    """A round: value and gradient at the same components for all."""
    rng, dim = np.random.default_rng(1), points.shape[1]
    means = points[rng.choice(len(points), num_components)]
    trils = np.eye(dim) * rng.uniform(0.5, 2, (num_components, 1, 1)) + np.tril(
        0.1 * rng.normal(size=(num_components, dim, dim)), -1
    )
    components = tuple(map(jnp.asarray, (np.log(rng.dirichlet(np.ones(num_components))), means, trils)))
    both, x = jax.jit(jax.value_and_grad(log_likelihood)), jnp.asarray(points)
    return lambda: float(jax.block_until_ready(both(components, x))[0])


PASS = {OURS: our_pass, "scikit-learn": sklearn_pass, "gmmx": gmmx_pass}
GRADIENT = {OURS: our_gradient, "automatic differentiation": autodiff_gradient, "NumPyro": numpyro_gradient}
FIT = {OURS: our_fit, "scikit-learn": sklearn_fit}
SAMPLE = {OURS: our_nuts, "NumPyro": numpyro_nuts}
WORKS = {
    "pass, 2-D": Work("a pass of EM", 100_000, 2, 50, PASS, 7),
    "pass, 16-D": Work("a pass of EM", 100_000, 16, 50, PASS, 5),
    "gradient, 1-D": Work("value and gradient", 19_000, 1, 50, GRADIENT, 15, same=True),
    "gradient, 2-D": Work("value and gradient", 100_000, 2, 50, GRADIENT, 7, same=True),
    "gradient, 16-D": Work("value and gradient", 100_000, 16, 50, GRADIENT, 3, same=True),
    "fit, 1-D": Work("a variational fit", 19_000, 1, 50, FIT, 1, patience=600.0),
    "NUTS, 1-D": Work("500 + 500 draws of NUTS", 200, 1, 10, SAMPLE, 3),
}
QUICK = {
    "gradient, 2-D": WORKS["gradient, 2-D"]._replace(size=2_000, num_components=5, rounds=3),
    "pass, 2-D": WORKS["pass, 2-D"]._replace(size=2_000, num_components=5, rounds=3),
}


def points_of(work: Work) -> np.ndarray:
    """Points ``(N, D)``: four Gaussians, in one dimension those of the article where there are as many."""
    if work.dim == 1 and work.size == (four := datasets.four_gaussians()).size:
        return four.points
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 4, (4, work.dim))
    return centres[rng.choice(4, work.size)] + rng.normal(size=(work.size, work.dim))


# The study.


def run(out: Path, *, quick: bool = False) -> dict[str, Any]:
    """Ask every library for round after round; print the table, write the page. `quick`: few points, two works."""
    works = QUICK if quick else WORKS
    missing = [library for library, module in NEEDS.items() if importlib.util.find_spec(module) is None]
    found = {}
    with study.bar("peers", len(works)) as next_fit:
        for name, work in works.items():
            next_fit(name)
            found[name] = measured(name, [of for of in work.makers if of not in missing], quick=quick)
    numbers = {"machine": study.machine(), "missing": missing, "works": found}
    rows = [row for name, by in found.items() for row in _rows(name, works[name], by)]
    notes = [
        "First: the first round, which compiles, beyond the median of the others. Ratio: of a library's median to ours; they"
        " took turns.",
        f"In double precision, but for {', '.join(SINGLE)}, which takes single precision alone.",
        *([f"Not installed, and left out: {', '.join(missing)}."] if missing else []),
    ]
    section = Section("Seconds of one round", rows, notes, [_picture(found)])
    study.leave(out, "peers", "The same work, here and elsewhere", QUESTION, numbers, conclusions(found), [section])
    return numbers


def measured(name: str, libraries: list[str], *, quick: bool) -> dict[str, dict[str, Any]]:
    """Of every library seconds of the first round, `first`, of the others, `seconds`, and what the last came to, `value`.

    No seconds of one that lost the work's patience.
    """
    work = (QUICK if quick else WORKS)[name]
    children = {library: _child(name, library, quick=quick) for library in libraries}
    answers: dict[str, list[dict[str, float] | None]] = {library: [] for library in libraries}
    try:
        for _ in range(1 + work.rounds):
            for library in libraries:
                if None not in answers[library]:
                    answers[library].append(_ask(children[library], work.patience))
    finally:
        for child in children.values():
            child.kill()
            child.communicate()
    return {library: _record(found) for library, found in answers.items()}


def _record(found: list[dict[str, float] | None]) -> dict[str, Any]:
    rounds = [one for one in found if one is not None]
    if len(rounds) < len(found):
        return {"first": None, "seconds": [], "value": None}
    return {"first": rounds[0]["seconds"], "seconds": [r["seconds"] for r in rounds[1:]], "value": rounds[-1]["value"]}


def conclusions(found: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """A sentence a work: how many times as long the others take."""
    sentences = []
    for name, every in found.items():
        by = {library: of for library, of in every.items() if of["seconds"]}
        silent = [library for library in every if library not in by]
        ours = median(by[OURS]["seconds"])
        values = [of["value"] for library, of in by.items() if library not in SINGLE]
        apart = WORKS[name].same and not np.allclose(values, values[0], rtol=1e-9)
        others = [f"{library} {median(of['seconds']) / ours:.3g}" for library, of in by.items() if library != OURS]
        sentences.append(
            f"{name}: {ours:.3g} s here; times as long: {', '.join(others) or 'nobody else is there'}."
            + (f" No answer in {WORKS[name].patience:g} s: {', '.join(silent)}." if silent else "")
            + (" Their results DIFFER, and times say nothing." if apart else "")
        )
    return sentences


def _rows(name: str, work: Work, by: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    ours = median(by[OURS]["seconds"])
    return [
        {
            "work": f"{work.what}, N = {work.size:,}, D = {work.dim}, K = {work.num_components}",
            "library": library,
            "median": median(of["seconds"]),
            "fastest": min(of["seconds"]),
            "first": max(0.0, of["first"] - median(of["seconds"])),
            "ratio": median(of["seconds"]) / ours,
        }
        for library, of in by.items()
        if of["seconds"]
    ]


def _picture(found: dict[str, dict[str, dict[str, Any]]]) -> Picture:
    """Ratios on a log axis, a row a work."""
    canvas, [[axis]] = plots.figure(height=1 + 0.5 * len(found))
    libraries = list(dict.fromkeys(library for by in found.values() for library in by if library != OURS))
    for i, library in enumerate(libraries):
        places = [(j, by) for j, by in enumerate(found.values()) if by.get(library, {}).get("seconds")]
        ratios = [median(by[library]["seconds"]) / median(by[OURS]["seconds"]) for _, by in places]
        axis.plot(ratios, [j for j, _ in places], "osD^v"[i % 5], label=library)
    axis.axvline(1, color="#444444", lw=1)
    axis.set(xscale="log", xlabel="times as long as here", yticks=range(len(found)), yticklabels=list(found))
    axis.invert_yaxis()
    axis.legend(frameon=False)
    return Picture(canvas, "Seconds of a round elsewhere over ours, log axis; the line is where both are as fast.")


# A process a library.


def _child(name: str, library: str, *, quick: bool) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).resolve()), name, library, *(["quick"] if quick else [])]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(child: "subprocess.Popen[str]", patience: float) -> dict[str, float] | None:
    """One round of a child; None where it does not answer."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("round\n")
    child.stdin.flush()
    if not select.select([child.stdout], [], [], patience)[0]:
        return None
    line = child.stdout.readline()
    if not line:
        raise InputError(f"{child.args}: ended with exit code {child.wait()}; what it said stands above")
    return json.loads(line)


def child(name: str, library: str, *, quick: bool) -> None:
    """Do the work once for every line on standard input, and write seconds and value of each."""
    work = (QUICK if quick else WORKS)[name]
    once = work.makers[library](points_of(work), work.num_components)
    for _ in sys.stdin:
        begun = time.perf_counter()
        value = once()
        print(json.dumps({"seconds": time.perf_counter() - begun, "value": value}), flush=True)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", sys.argv[2] not in SINGLE)
    child(sys.argv[1], sys.argv[2], quick="quick" in sys.argv[3:])
