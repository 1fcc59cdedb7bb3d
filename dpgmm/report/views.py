"""Views of draws in one and two dimensions: which coordinates and which plane to look at, and Gaussians seen in them.

Of ``x ~ N(mu, Sigma)`` the projection ``W (x - c)`` is ``N(W (mu - c), W Sigma W^T)``: a mixture keeps its weights, and
what is drawn is exact. Nothing here knows of pictures.
"""

import json
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
import xarray as xr

from ..draws import best_chain
from ..draws.components import Components
from ..draws.thinning import evenly

MOST = 6
"""Coordinates that pair plots show, at most."""
PROMINENT = 0.01
"""Weight from which on a component has a say in what to look at."""
TIE = 1e-6
"""Share of between-component variance below which directions separate alike."""


class View(NamedTuple):
    """What to look at, the same for all methods of a comparison.

    - `names` (D): of the coordinates. `shown`: those in pair plots. `separation` (D,): `separation` of each.
    - `centre` (D,), `plane` (2, D): a point x is drawn at ``plane @ (x - centre)``; (1, D) where D = 1.
    - `axes`: what the coordinates in the plane are, in words.
    """

    names: tuple[str, ...]
    shown: tuple[int, ...]
    separation: np.ndarray
    centre: np.ndarray
    plane: np.ndarray
    axes: tuple[str, ...]

    @property
    def dim(self) -> int:
        """Dimension D of the data."""
        return len(self.names)

    @property
    def projected(self) -> bool:
        """Whether the plane is a projection: for D <= 2 it shows the data themselves."""
        return self.dim > 2

    def points(self, points: np.ndarray) -> np.ndarray:
        """Points ``(..., D)`` in the plane, ``(..., 2)``."""
        return (points - self.centre) @ self.plane.T

    def mixtures(self, mixtures: Components) -> Components:
        """The mixtures in the plane."""
        return project(mixtures._replace(means=mixtures.means - self.centre), self.plane)


def view(trees: Sequence[xr.DataTree]) -> View:
    """The view of draws of the same data: the coordinates and the plane in which their components lie furthest apart.

    D <= 2: the coordinates themselves. D > 2: `discriminants` of the components of one draw of each of `trees`, all with
    the same say. Of more than `MOST` coordinates, those of the largest `separation` are shown, largest first.
    """
    names, points = coordinate_names(trees[0]), trees[0]["observed_data"].to_dataset()["points"].values
    dim = len(names)
    between, within = scatter([one_draw(tree, PROMINENT) for tree in trees])
    share = separation(between, within)
    shown = tuple(range(dim)) if dim <= MOST else tuple(np.argsort(-share, kind="stable")[:MOST].tolist())
    if dim <= 2:
        return View(names, shown, share, np.zeros(dim), np.eye(dim), names)
    plane, loadings = discriminants(between, within)
    axes = tuple(_formula(row, coordinate_names(trees[0], 10)) for row in loadings)
    return View(names, shown, share, points.mean(axis=0), plane, axes)


def coordinate_names(draws: xr.DataTree, most: int = 16) -> tuple[str, ...]:
    """Names of the D coordinates, of at most so many characters, in which a dollar sign begins no formula.

    The data's columns, where draws record them, else x0, x1, ... (x where D = 1).
    """
    dim = draws["posterior"].sizes["dim"]
    columns = json.loads(draws.attrs.get("columns", "[]"))
    if len(columns) == dim:
        return tuple(_short(name, most) for name in columns)
    return ("x",) if dim == 1 else tuple(f"x{d}" for d in range(dim))


def one_draw(draws: xr.DataTree, least: float = 1e-3) -> Components:
    """Components of the last draw of the best chain but those of less weight (where all are, the heaviest)."""
    chain = best_chain(draws) if "sample_stats" in draws.children else 0
    found = Components.of(draws["posterior"].to_dataset().isel(chain=chain, draw=-1))
    return found.take(np.flatnonzero(found.weights >= min(least, found.weights.max()))).full()


def some_draws(draws: xr.DataTree, count: int) -> Components:
    """At most `count` draws, evenly spaced over all chains, chains one after the other: leading axis (T,)."""
    posterior = draws["posterior"].to_dataset()
    chains, length = posterior.sizes["chain"], posterior.sizes["draw"]
    chosen = posterior.isel(draw=evenly(length, max(1, count // chains)))
    return Components.of(chosen).flatten().full()


def project(mixtures: Components, matrix: np.ndarray) -> Components:
    """Components of ``W x``, for ``matrix`` W of shape ``(E, D)``: means ``W mu``, covariances ``W Sigma W^T``."""
    return Components(mixtures.weights, mixtures.means @ matrix.T, matrix @ mixtures.covariances @ matrix.T)


def coordinates(mixtures: Components, dims: Sequence[int]) -> Components:
    """The marginal mixtures of some coordinates: `project` by rows of the identity, without the products."""
    dims = list(dims)
    covariances = mixtures.covariances[..., dims, :][..., dims]
    return Components(mixtures.weights, mixtures.means[..., dims], covariances)


def density(mixtures: Components, points: np.ndarray) -> np.ndarray:
    """Density of T mixtures in E dimensions at points ``(G, E)``, to ``(T, G)``, one mixture at a time."""
    return np.stack([_density(*one, points) for one in zip(*mixtures, strict=True)])


def _density(weights: np.ndarray, means: np.ndarray, covariances: np.ndarray, points: np.ndarray) -> np.ndarray:
    lower = np.linalg.cholesky(covariances)
    z = np.linalg.solve(lower, np.swapaxes(points - means[:, None, :], 1, 2))
    scale = np.prod(np.diagonal(lower, axis1=1, axis2=2), axis=1) * (2 * np.pi) ** (means.shape[1] / 2)
    return (weights / scale) @ np.exp(-0.5 * (z**2).sum(axis=1))


def ellipse(mean: np.ndarray, covariance: np.ndarray, distance: float = 2.0, count: int = 120) -> np.ndarray:
    """Points ``(2, count)`` at Mahalanobis `distance` of the mean of a Gaussian in two dimensions."""
    turn = np.linspace(0, 2 * np.pi, count)
    return mean[:, None] + distance * np.linalg.cholesky(covariance) @ np.stack([np.cos(turn), np.sin(turn)])


def levels(values: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Values of a density on an even grid above which lie the `shares` of its mass there: bounds of HPD regions.

    (Hyndman 1996, The American Statistician 50, 120-126.) In the order of `shares`.
    """
    ordered = -np.sort(-values, axis=None)
    mass = np.cumsum(ordered) / ordered.sum()
    return ordered[np.minimum(np.searchsorted(mass, shares), len(mass) - 1)]


def scatter(mixtures: Sequence[Components]) -> tuple[np.ndarray, np.ndarray]:
    """Covariance ``(D, D)`` between and within components, mean over single mixtures; their weights are normalised."""
    between, within = [], []
    for weights, means, covariances in mixtures:
        share = weights / weights.sum()
        apart = means - share @ means
        between.append((share[:, None] * apart).T @ apart)
        within.append(np.tensordot(share, covariances, axes=1))
    return np.mean(between, axis=0), np.mean(within, axis=0)


def separation(between: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Share of each coordinate's variance that lies between components, ``B_dd / (B_dd + W_dd)``, ``(D,)``."""
    return np.diag(between) / np.diag(between + within)


def discriminants(between: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two linear discriminants, ``(2, D)``, and their loadings on standardised coordinates, of length one.

    Directions a that maximise ``a^T B a / a^T (B + W) a``, uncorrelated (Rao 1948). Of those that separate alike, as all
    but the first where there are two components, that along which the standardised coordinates vary most comes first.
    """
    scale = np.sqrt(np.diag(between + within))
    standard = between / np.outer(scale, scale)
    total = (between + within) / np.outer(scale, scale) + 1e-10 * np.eye(len(scale))
    tied = standard + TIE / len(scale) * total @ total
    vectors = scipy.linalg.eigh(tied, total)[1][:, :-3:-1].T
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    loadings = vectors * np.sign(largest) / np.linalg.norm(vectors, axis=1, keepdims=True)
    return loadings / scale, loadings


def _formula(loadings: np.ndarray, names: Sequence[str], terms: int = 3, least: float = 0.1, width: int = 36) -> str:
    """A direction as the sum of its largest terms, such as ``0.93 TSH + 0.31 T4 − 0.2 T3``, broken between terms."""
    order = np.argsort(-np.abs(loadings), kind="stable")
    kept = [d for i, d in enumerate(order[:terms]) if i == 0 or abs(loadings[d]) >= least]
    signed = [f"{'−' if loadings[d] < 0 else '+'} {abs(loadings[d]):.2g} {names[d]}" for d in kept]
    signed += ["+ …"] * bool((np.abs(loadings) >= least).sum() > len(kept))
    # Spaces within a term are those that do not break.
    whole = [term.removeprefix("+ ") if i == 0 else term for i, term in enumerate(signed)]
    return textwrap.fill(" ".join(term.replace(" ", "\u00a0") for term in whole), width, break_long_words=False)


def _short(name: str, most: int) -> str:
    name = name if len(name) <= most else name[: most - 1] + "…"
    return name.replace("$", r"\$")
