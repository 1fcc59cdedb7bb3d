"""Which prior serves data as people have them, when they say nothing about it?"""

import itertools
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.special import gammaln, logsumexp, multigammaln  # pyright: ignore[reportAttributeAccessIssue]

from dpgmm.data import Dataset
from dpgmm.densities import base_measure, concentration, conjugate, sticks
from dpgmm.densities.base_measure import COVARIANCES, is_tied, is_triangular
from dpgmm.densities.concentration import Concentration
from dpgmm.densities.gaussian import BaseMeasure
from dpgmm.methods import many
from dpgmm.report import plots, study
from dpgmm.report.study import Picture, Section

QUESTION = (
    "Data of one Gaussian should come out as one cluster, and separated Gaussians as what they are, whatever the number of "
    "points, of columns and the type of covariance. Which base measure gives the true number of clusters most often? Four "
    "kinds of data, ten data sets each; the concentration is Gamma(1, log N) and integrated out."
)
SIZES, DIMS, REPEATS = (20, 100, 1_000), (1, 2, 5, 10, 20), 10
APART = 4.0
"""Standard deviations between components."""
WIDER = 10.0
"""Scale of the wide component."""
NEIGHBOURS = 100
"""Points, at most, that are put alone in turn; they stand for all."""
SAMPLED, SWEEPS, SAMPLED_SIZE = 2, 40, 20
"""Data sets of a cell that are sampled as well, sweeps of the sampler, and the number of points where it is."""
RIGHT = 0.5
"""A prior gets a cell right where the mean probability of the true number is above this."""
OURS = "ours"


class Labelled(NamedTuple):
    """Points ``(N, D)`` and their true components ``(N,)``."""

    points: Float[np.ndarray, "N D"]
    labels: Int[np.ndarray, " N"]


KINDS = {"one": 1, "two": 2, "three": 3, "wide": 3}
"""True number of components of every kind; wide: two of unit scale and one of `WIDER` times that."""


def simulated(kind: str, size: int, dim: int, seed: int) -> Labelled:
    """Components of equal size, `APART` standard deviations from each other (the wide one: of its own), turned at random."""
    rng = np.random.default_rng([seed, size, dim, list(KINDS).index(kind)])
    labels = np.arange(size) % KINDS[kind]
    corners = APART * np.array([[0, 0], [1, 0], [0.5, WIDER if kind == "wide" else np.sqrt(0.75)]])
    if dim == 1:
        corners = APART * np.array([[0], [1], [1 + WIDER if kind == "wide" else 2]])
    axes = np.linalg.qr(rng.normal(size=(dim, dim)))[0][: corners.shape[1]]
    scales = np.array([1, 1, WIDER if kind == "wide" else 1])[labels, None]
    return Labelled(rng.normal(size=(size, dim)) * scales + (corners @ axes)[labels], labels)


def _scaled(scale: Callable[[int], float | None], df: Callable[[int], float | None], kappa: float | None):
    """A prior of `base_measure.scaled_to`: component scale by D, df by d, kappa."""

    def make(data: Dataset, covariance: str) -> BaseMeasure:
        size = data.dim if is_triangular(covariance) else 1
        return base_measure.scaled_to(data, scale(data.dim), df(size), kappa, covariance)

    return make


def _empirical(data: Dataset, covariance: str) -> BaseMeasure:
    """scikit-learn's: kappa 1, df D, Psi the empirical covariance (with its 1e-6 on the diagonal)."""
    matrix = np.cov(data.points.T).reshape(data.dim, data.dim) + 1e-6 * np.eye(data.dim)
    variances = np.diag(matrix) if covariance == "diagonal" else np.diag(matrix).mean(keepdims=True)
    tril = np.linalg.cholesky(matrix)[None] if is_triangular(covariance) else np.sqrt(variances)[:, None, None]
    return BaseMeasure(data.mean, 1.0, float(data.dim), tril)  # pyright: ignore[reportArgumentType]


def _volume(components: float) -> Callable[[int], float]:
    return lambda dim: components ** (-1 / dim)


PRIORS: dict[str, Callable[[Dataset, str], BaseMeasure]] = {
    OURS: _scaled(lambda _: None, lambda _: None, None),
    "before": _scaled(lambda _: 0.25, lambda d: d + 3, 1 / 16),
    "scikit-learn": _empirical,
    "Escobar & West": _scaled(lambda _: 0.22, lambda d: d + 3, 0.01),
    "mclust, G = 2": _scaled(_volume(2), lambda d: d + 2, 0.01),
    "mclust, G = 4": _scaled(_volume(4), lambda d: d + 2, 0.01),
    "mclust, G = 10": _scaled(_volume(10), lambda d: d + 2, 0.01),
    "ours, kappa 1/16": _scaled(_volume(4), lambda d: 2 * d + 2, 1 / 16),
    "ours, df d + 3": _scaled(_volume(4), lambda d: d + 3, None),
}
"""Base measures by name. mclust: Fraley & Raftery's (2007) kappa .01, df d + 2, Psi = variances / G^(2/D), per column."""


class Evidence:
    """Log evidence of partitions of points under a base measure, in numpy: `conjugate` once more, by determinants."""

    def __init__(self, points: np.ndarray, base: BaseMeasure, *, tied: bool):
        self.mean, self.kappa, self.df, tril = (np.asarray(leaf, float) for leaf in base)
        self.tied, self.shape = tied, conjugate.shape_of(base)
        self.x = points - self.mean
        blocks = self.x.reshape(len(points), *self.shape)
        self.products = blocks @ np.swapaxes(blocks, -1, -2)
        self.prior = tril @ np.swapaxes(tril, -1, -2)
        _, size, repeats = self.shape
        self.of_gammas = multigammaln(0.5 * (self.df + repeats * np.arange(len(points) + 1)), size)

    def statistics(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counts, sums and sums of products of the clusters 0, 1, .., none of them empty."""
        order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels)
        first = np.cumsum(counts) - counts
        return counts, np.add.reduceat(self.x[order], first), np.add.reduceat(self.products[order], first)

    def scatter(self, counts: np.ndarray, sums: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """`conjugate.scatter`."""
        blocks = sums.reshape(len(sums), *self.shape)
        return squares - blocks @ np.swapaxes(blocks, -1, -2) / (self.kappa + counts)[:, None, None, None]

    def of_means(self, counts: np.ndarray) -> np.ndarray:
        """What a cluster's mean brings."""
        return 0.5 * self.x.shape[1] * (np.log(self.kappa / (self.kappa + counts)) - counts * np.log(np.pi))

    def of_covariance(self, counts: np.ndarray, scatter: np.ndarray) -> np.ndarray:
        """What a covariance of points with this scatter brings."""
        more = self.df + self.shape[2] * counts
        gain = self.of_gammas[counts] - self.of_gammas[0]
        return self.shape[0] * gain + 0.5 * (self.df * _log_det(self.prior) - more * _log_det(self.prior + scatter))

    def of(self, labels: Integer[np.ndarray, " N"]) -> float:
        """Log evidence of one partition, nats."""
        counts, sums, squares = self.statistics(labels)
        scatter = self.scatter(counts, sums, squares)
        if self.tied:
            counts_of_all, scatter = np.array([counts.sum()]), scatter.sum(0, keepdims=True)
            return float(self.of_covariance(counts_of_all, scatter).sum() + self.of_means(counts).sum())
        return float(self.of_covariance(counts, scatter).sum() + self.of_means(counts).sum())

    def with_one_alone(
        self, labels: Integer[np.ndarray, " N"], points: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Log evidence of the partition with each of these points, not alone yet, a cluster of its own."""
        counts, sums, squares = self.statistics(labels)
        cluster, one = labels[points], np.ones(len(points), int)
        left = counts[cluster] - 1, sums[cluster] - self.x[points], squares[cluster] - self.products[points]
        before, after = self.scatter(counts, sums, squares), self.scatter(*left)
        alone = self.scatter(one, self.x[points], self.products[points])
        means = self.of_means(counts).sum() - self.of_means(counts)[cluster]
        means = means + self.of_means(left[0]) + self.of_means(one)
        if self.tied:
            total = before.sum(0)[None] - before[cluster] + after + alone
            return means + self.of_covariance(np.full(len(points), len(labels)), total)
        each = self.of_covariance(counts, before)
        others = each.sum() - each[cluster]
        return means + others + self.of_covariance(left[0], after) + self.of_covariance(one, alone)


def _log_det(matrices: Float[np.ndarray, "*batch B d d"]) -> Float[np.ndarray, "*batch"] | np.floating:
    """Log determinants of blocks ``(..., B, d, d)``, summed over them."""
    if matrices.shape[-1] == 1:
        return np.log(matrices[..., 0, 0]).sum(axis=-1)
    return np.linalg.slogdet(matrices)[1].sum(axis=-1)


def candidates(data: Labelled) -> list[np.ndarray]:
    """Partitions that a posterior may prefer: the truth, its merges and halves, Ward's tree cut anywhere, all alone."""
    points, labels = data
    size, number = len(labels), labels.max() + 1
    tree = linkage((points - points.mean(0)) / points.std(0), "ward")
    cuts = {*range(1, 9), 10, 16, 32, *(size * i // 60 for i in (6, 12, 15, 20, 30, 40, 48)), size - 2, size - 1}
    found = [labels, np.arange(size), *(np.array(merged)[labels] for merged in _merges(number))]
    found += [fcluster(tree, cut, "maxclust") - 1 for cut in sorted(cuts) if 1 <= cut <= size]
    for cluster in range(number):
        own = points[labels == cluster] - points[labels == cluster].mean(0)
        along = own @ np.linalg.svd(own, full_matrices=False)[2][0]
        halved = labels.copy()
        halved[np.flatnonzero(labels == cluster)[along > np.median(along)]] = number
        found.append(halved)
    return list({part.tobytes(): part for part in map(_by_appearance, found)}.values())


def _merges(number: int) -> list[tuple[int, ...]]:
    """All partitions of the numbers below `number`, labels by first appearance."""
    labels = itertools.product(range(number), repeat=number)
    return [z for z in labels if all(z[i] <= max(z[:i], default=-1) + 1 for i in range(number))]


def _by_appearance(labels: Integer[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def log_prior_of_number(size: int) -> np.ndarray:
    """``log E_a[a^k Gamma(a) / Gamma(a + N)]`` at entry k, the default prior of a integrated out."""
    a, log_weights = concentration.nodes(Concentration(1.0, sticks.default_rate(size)), size)
    k = np.arange(size + 2)[:, None]
    return np.asarray(logsumexp(log_weights + k * np.log(a) + gammaln(a) - gammaln(a + size), axis=1))


def probability_of_number(evidence: Evidence, partitions: list[np.ndarray], log_number: np.ndarray) -> np.ndarray:
    """Posterior probabilities of k clusters at entry k, among the candidates and those with one point taken out of a few.

    Points are taken out of the first candidate, the truth, and of one cluster. Exact but for the partitions left out.
    """
    size = len(partitions[0])
    logs, numbers = [], []
    for labels in partitions:
        counts = np.bincount(labels)
        logs.append([log_number[len(counts)] + gammaln(counts).sum() + evidence.of(labels)])
        numbers.append([len(counts)])
    some = np.unique(np.linspace(0, size - 1, min(size, NEIGHBOURS)).astype(int))
    for labels in {z.tobytes(): z for z in (partitions[0], np.zeros(size, int))}.values():
        counts = np.bincount(labels)
        points = some[counts[labels[some]] > 1]
        if len(points):
            own = counts[labels[points]]
            prior = log_number[len(counts) + 1] + gammaln(counts).sum() - gammaln(own) + gammaln(own - 1)
            logs.append(prior + evidence.with_one_alone(labels, points) + np.log(size / len(some)))
            numbers.append(np.full(len(points), len(counts) + 1))
    joint = np.concatenate(logs)
    return np.bincount(np.concatenate(numbers), np.exp(joint - logsumexp(joint)), size + 2)


def sampled(evidence: Evidence, start: np.ndarray, log_number: np.ndarray, sweeps: int, seed: int) -> np.ndarray:
    """Number of clusters after each sweep but the first fifth of a collapsed Gibbs sampler (Neal 2000, algorithm 3).

    The concentration is integrated out. From the truth: a posterior that puts its mass elsewhere drifts away.
    """
    rng, labels, found = np.random.default_rng(seed), start.copy(), []
    size, rows = len(start), np.arange(len(start))
    for _ in range(sweeps):
        for i in rng.permutation(size):
            others = rows != i
            labels[others] = _by_appearance(labels[others])
            kept = labels[others]
            number = kept.max() + 1
            order = np.argsort(kept, kind="stable")
            counts = np.append(np.bincount(kept), 0)
            first = (np.cumsum(counts) - counts)[:-1]
            pad = lambda sums: np.concatenate([sums, np.zeros_like(sums[:1])])
            sums = pad(np.add.reduceat(evidence.x[others][order], first))
            squares = pad(np.add.reduceat(evidence.products[others][order], first))
            before = evidence.scatter(counts, sums, squares)
            after = evidence.scatter(counts + 1, sums + evidence.x[i], squares + evidence.products[i])
            log_joint = evidence.of_means(counts + 1) - evidence.of_means(counts)
            if evidence.tied:
                total = before.sum(0)[None] - before + after
                log_joint += evidence.of_covariance(np.full(number + 1, size), total)
            else:
                log_joint += evidence.of_covariance(counts + 1, after) - evidence.of_covariance(counts, before)
            log_joint += np.append(np.log(counts[:-1]) + log_number[number], log_number[number + 1])
            labels[i] = np.argmax(log_joint + rng.gumbel(size=number + 1))
        found.append(len(np.unique(labels)))
    return np.array(found[sweeps // 5 :])


def run(out: Path, *, executor: Executor | None = None, quick: bool = False) -> dict[str, Any]:
    """Evaluate, sample, draw; print the tables. `quick`: 20 points in 1 and 5 dimensions, two data sets."""
    sizes, dims, repeats = ((20,), (1, 5), 2) if quick else (SIZES, DIMS, REPEATS)
    rows = []
    with study.bar("defaults", len(sizes) * len(dims) * len(KINDS)) as next_cell:
        next_cell("")
        lengths = (1, 10) if quick else (SAMPLED, SWEEPS)
        tasks = [(*place, repeats, *lengths) for place in itertools.product(sizes, dims, KINDS)]
        called = lambda task: f"{task[0]} points, {task[1]} columns, {task[2]}"
        progress = lambda done, total: next_cell(f"{done} of {total} kinds of data")
        for found in many.each(many.OfStudy.at(__file__, "cells"), tasks, executor, called=called, progress=progress):
            rows += found
    numbers = {"repeats": repeats, "priors": list(PRIORS), "cells": rows}
    title = "A prior for those who give none"
    study.leave(out, "defaults", title, QUESTION, numbers, conclusions(numbers), _sections(numbers))
    return numbers


def cells(size: int, dim: int, kind: str, repeats: int, to_sample: int, sweeps: int) -> list[dict[str, Any]]:
    """Mean probability of the true number, by prior, of one cell for each type of covariance."""
    log_number, truth = log_prior_of_number(size), KINDS[kind]
    types = COVARIANCES if dim > 1 else ("full", "tied")  # One column: the others are the same.
    exact: dict[str, dict[str, list]] = {c: {name: [] for name in PRIORS} for c in types}
    drawn: dict[str, dict[str, list]] = {c: {name: [] for name in PRIORS} for c in types}
    for seed in range(repeats):
        data = simulated(kind, size, dim, seed)
        given, partitions = Dataset(data.points), candidates(data)
        for covariance, (name, make) in itertools.product(types, PRIORS.items()):
            evidence = Evidence(data.points, make(given, covariance), tied=is_tied(covariance))
            exact[covariance][name].append(probability_of_number(evidence, partitions, log_number)[truth])
            if size == SAMPLED_SIZE and seed < to_sample:
                visited = sampled(evidence, data.labels, log_number, sweeps, seed)
                drawn[covariance][name].append(np.mean(visited == truth))
    mean = lambda of: {name: float(np.mean(values)) for name, values in of.items()} if any(of.values()) else None
    place = {"N": size, "D": dim, "kind": kind}
    return [place | {"covariance": c, "exact": mean(exact[c]), "sampled": mean(drawn[c])} for c in types]


def believed(row: dict[str, Any]) -> dict[str, float]:
    """Probability of the true number by prior: the sampler's where there is one, for it leaves no partition out."""
    return row["sampled"] or row["exact"]


def tally(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By prior: cells that it gets right, of those that any prior does, in all and by kind."""
    within = [row for row in rows if max(believed(row).values()) > RIGHT]
    right = lambda name, kind: sum(believed(row)[name] > RIGHT for row in within if kind in (None, row["kind"]))
    of = lambda kind: sum(row["kind"] == kind for row in within)
    return {
        name: {"prior": name, "right": f"{right(name, None)} of {len(within)}"}
        | {kind: f"{right(name, kind)} of {of(kind)}" for kind in KINDS}
        | {"mean probability": float(np.mean([believed(row)[name] for row in within]))}
        for name in next(iter(rows))["exact"]
    }


def _place(row: dict[str, Any]) -> str:
    return f"{row['N']} x {row['D']} {row['kind']} {row['covariance']}"


def conclusions(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say."""
    rows, counted = numbers["cells"], tally(numbers["cells"])
    none_right = [row for row in rows if max(believed(row).values()) <= RIGHT]
    lost = [row for row in rows if max(believed(row).values()) > RIGHT >= believed(row)[OURS]]
    one = [row for row in lost if row["kind"] == "one"]
    listed = lambda cells: "; ".join(map(_place, cells)) or "none"
    sampled_rows = [row for row in rows if row["sampled"]]
    above = [row["exact"][OURS] - row["sampled"][OURS] for row in sampled_rows]
    return [
        f"Our default gets {counted[OURS]['right']} cells right that any of these priors gets right, the former default "
        f"{counted['before']['right']}, scikit-learn's {counted['scikit-learn']['right']}, the best of mclust's "
        f"{max((counted[n]['right'] for n in PRIORS if 'mclust' in n), key=lambda s: int(s.split()[0]))}. Right means: the "
        f"true number has more than {RIGHT:.0%} of the probability, on average over data sets.",
        f"One Gaussian, got right by some prior and not by ours: {listed(one)}.",
        f"All cells that some prior gets right and ours does not ({len(lost)}): {listed(lost)}.",
        f"Cells that no prior of the grid gets right ({len(none_right)} of {len(rows)}): {listed(none_right)}.",
        f"At {SAMPLED_SIZE} points the sampler gives the true number {np.mean(above):.2f} less probability than exact "
        "evidence over candidates does, on average, under our default: the many partitions that are each as good as "
        "nothing. For more points only the evidence is at hand: read its numbers as the most that can be hoped for.",
    ]


def _sections(numbers: dict[str, Any]) -> list[Section]:
    rows = numbers["cells"]
    notes = (
        "Probability of the true number of clusters, mean over data sets. All partitions compete in truth; here "
        "the true one, its merges and halves, cuts of Ward's tree, one point alone in turn, every point alone. At "
        f"{SAMPLED_SIZE} points: {SWEEPS} sweeps of collapsed Gibbs from the truth, for fewer data sets; those count.",
        "one: N(0, I). two, three: unit components, four standard deviations apart, turned at random. wide: two unit "
        "components four apart and one of ten times their scale, four of its own standard deviations away. mclust: Fraley "
        "& Raftery (2007), kappa .01, df d + 2, Psi = variances / G^(2/D). Escobar & West: component scale .22, df d + 3, "
        "kappa .01, as their prior of the galaxies is in units of those. ours: 4^(-1/D), 2 (d + 1), .01.",
    )
    table = [_shown(row) for row in rows]
    caption = "Mean probability of the true number by prior and number of columns, over kinds and types of covariance."
    return [
        Section("By prior, of cells that any prior gets right", list(tally(rows).values())),
        Section("Every cell", table, notes, [Picture(_picture(rows), caption)]),
    ]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    place = {name: row[name] for name in ("N", "D", "kind", "covariance")}
    return (
        place | {"by": "sampler" if row["sampled"] else "evidence"} | {n: f"{p:.2f}" for n, p in believed(row).items()}
    )


def _picture(rows: list[dict[str, Any]]):
    """One panel for each number of points."""
    sizes, dims = sorted({row["N"] for row in rows}), sorted({row["D"] for row in rows})
    canvas, axes = plots.figure(1, len(sizes), height=3.4)
    for axis, size in zip(axes[0], sizes, strict=True):
        for name in (OURS, "before", "scikit-learn", "mclust, G = 2"):
            mean = [np.mean([believed(r)[name] for r in rows if (r["N"], r["D"]) == (size, d)]) for d in dims]
            axis.plot(range(len(dims)), mean, "o-" if name == OURS else "s--", ms=4, label=name)
        axis.set(title=f"{size} points", xlabel="columns", ylim=(0, 1))
        axis.set_xticks(range(len(dims)), [str(d) for d in dims])
    axes[0][0].set_ylabel("probability of the true number")
    axes[0][0].legend(frameon=False, fontsize=8)
    return canvas
