"""Conformal credible sets of partitions, a p-value for any partition, and modes, from a kernel density of draws (CBI)."""

import dataclasses

import numpy as np

from ..errors import InputError, above, at_least
from ._credible_ball import METRICS
from .losses import Loss, pairwise, resolve, same_size
from .similarity import Draws, draws_of

KERNEL = 0.5
"""Rate gamma of the kernel ``exp(-gamma d)``, in the inverse units of the loss: the authors' choice for vi in bits."""


@dataclasses.dataclass(frozen=True, eq=False)
class Conformal:
    """How typical of the draws a partition is, and the credible set that follows.

    The draws are two halves by chance: a density is made of the first, M calibration draws are told by the second.
    training, calibration: distinct draws of each half, ``(., n)``, and how often each occurs, ``training_counts``,
    ``calibration_counts``. scores: of the distinct calibration draws. separations: the loss from each to the nearest one of
    higher score, from the highest to the farthest. parents: which one that is, of the highest itself.
    """

    training: np.ndarray
    training_counts: np.ndarray
    calibration: np.ndarray
    calibration_counts: np.ndarray
    scores: np.ndarray
    separations: np.ndarray
    parents: np.ndarray
    kernel: float
    loss: Loss

    @property
    def partition(self) -> np.ndarray:
        """The calibration draw of highest score, ``(n,)``: the mode of the kernel density, a point estimate."""
        return self.calibration[np.argmax(self.scores)]

    def score(self, partition: np.ndarray) -> float:
        """``mean over training draws of exp(-gamma d(partition, z_t))``, in (0, 1]."""
        partition = same_size(Draws(self.training), partition)
        return float(_density(partition[None], self.training, self.training_counts, self.kernel, self.loss)[0])

    def p_value(self, partition: np.ndarray) -> float:
        """``(1 + #{calibration draws of score <= that of the partition}) / (1 + M)``.

        For one more draw of the posterior, exchangeable with the M, it is below alpha with probability alpha at most.
        """
        counted = self.calibration_counts[self.scores <= self.score(partition) * (1 + 1e-12)].sum()
        return float((1 + counted) / (1 + self.calibration_counts.sum()))

    def contains(self, partition: np.ndarray, level: float = 0.95) -> bool:
        """Whether the credible set of that level has the partition: where its p-value is ``1 - level`` or more.

        The set holds one more draw with probability `level` or more, whatever the posterior is.
        """
        if not 0 < level < 1:
            raise InputError(f"level is {level!r}; give a number between 0 and 1")
        return self.p_value(partition) >= 1 - level - 1e-12

    def modes(self, num: int = 2) -> tuple[np.ndarray, np.ndarray]:
        """Modes ``(num, n)``, by score times separation, and the share of calibration draws of each, ``(num,)``.

        A draw belongs to the mode that is reached by going to the nearest draw of higher score again and again (density
        peaks). Fewer modes where there are fewer distinct draws.
        """
        at_least("modes", 1, num=num)
        order = np.argsort(-self.scores, kind="stable")
        importance = self.scores * self.separations
        importance[order[0]] = np.inf  # the highest leads nowhere
        peaks = np.argsort(-importance, kind="stable")[:num]
        of = np.full(len(self.scores), -1)
        of[peaks] = np.arange(len(peaks))
        for k in order:
            if of[k] < 0:
                of[k] = of[self.parents[k]]
        weights = np.bincount(of, self.calibration_counts, len(peaks))
        return self.calibration[peaks], weights / weights.sum()


def conformal(
    allocations: np.ndarray | Draws,
    loss: str | Loss = "vi",
    *,
    kernel: float = KERNEL,
    training: float = 0.5,
    seed: int = 0,
) -> Conformal:
    """Split conformal inference on partitions, from draws ``(T, n)``: scores, p-values, credible sets and modes.

    A random share `training` of the draws makes the density, ``s(c) = mean_t exp(-kernel d(c, z_t))``, with d a metric; the
    others are calibrated on. The set ``{c : p(c) >= alpha}`` holds a new draw with probability ``1 - alpha`` or more: in
    finite samples for independent draws, about so for those of a Markov chain; thin them where they depend strongly. It
    need not be a ball: where the posterior has several modes it is around each, and what lies between is outside.

    Source: Bariletto, Ho & Rinaldo 2025, Conformalized Bayesian Inference, with Applications to Random Partition Models,
    arXiv 2511.05746; score, p-value and separation as their cbi_partitions documents them; modes by Rodriguez & Laio 2014.
    Identical draws count as one in separations, which would be zero. Raises `InputError` for a loss that is no metric,
    fewer than two draws and options out of range.
    """
    draws, loss = draws_of(allocations), resolve(loss)
    num_draws = len(draws.labels)
    if loss.name not in METRICS:
        raise InputError(f"{loss.name} is no metric; choose one of {', '.join(METRICS)}")
    above(0, kernel=kernel)
    if not 0 < training < 1:
        raise InputError(f"training is {training!r}; give a share between 0 and 1")
    if num_draws < 2:
        raise InputError("one draw cannot be split into two halves; give two draws or more")
    at_least("conformal", 0, seed=seed)
    order = np.random.default_rng(seed).permutation(num_draws)
    cut = min(max(round(training * num_draws), 1), num_draws - 1)
    (first, first_counts), (second, second_counts) = (
        np.unique(draws.labels[some], axis=0, return_counts=True) for some in (order[:cut], order[cut:])
    )
    scores = _density(second, first, first_counts, kernel, loss)
    separations, parents = _peaks(scores, pairwise(second, second, loss))
    return Conformal(first, first_counts, second, second_counts, scores, separations, parents, float(kernel), loss)


def _density(partitions: np.ndarray, of: np.ndarray, counts: np.ndarray, kernel: float, loss: Loss) -> np.ndarray:
    """Kernel density of each partition, ``(P,)``."""
    return np.exp(-kernel * pairwise(partitions, of, loss)) @ counts / counts.sum()


def _peaks(scores: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loss to the nearest of higher score, ``(P,)``, and which that is; of equal ones the first counts as higher."""
    order = np.argsort(-scores, kind="stable")
    separations, parents = np.empty(len(scores)), np.empty(len(scores), int)
    separations[order[0]], parents[order[0]] = distance[order[0]].max(), order[0]
    for place in range(1, len(order)):
        k, higher = order[place], order[:place]
        parents[k] = higher[distance[k, higher].argmin()]
        separations[k] = distance[k, parents[k]]
    return separations, parents
