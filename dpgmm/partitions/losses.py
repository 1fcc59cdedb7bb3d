"""Losses between partitions, and what a partition is expected to lose under draws.

Every loss here is made of three sums over the contingency table of an estimate and a draw, with clusters of sizes m_k and
n_j and overlaps n_kj: ``A = sum_k f(m_k)``, ``B = sum_j f(n_j)``, ``S = sum_kj f(n_kj)``, where f(m) is m log2(m) (entropy)
or m (m - 1) / 2 (pairs). A - S is what the estimate joins and the draw separates, B - S the reverse, and

    loss = (alpha (A - S) + beta (B - S)) / scale.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np

from ..errors import InputError
from .similarity import CELLS, DistinctClusters, Draws, canonical, draws_of, labels_of


@dataclasses.dataclass(frozen=True)
class Loss:
    """One loss: `name`, `units`; `kernel` is the f of the sums, `weights` are alpha and beta, `scale(A, B, S, n)`.

    `weights` None: the larger of the two excesses, ``max(A, B) - S``.

    `expectation` says how it is taken over draws: "draws" averages the loss of every draw; "joint", for losses linear in S,
    may average S first; "all" puts averages of B and S into the formula (exact for losses linear in both, otherwise the
    approximation that the name says); "bound" is the lower bound of the variation of information.
    """

    name: str
    units: str
    kernel: Literal["entropy", "pairs"]
    weights: tuple[float, float] | None
    scale: Callable
    expectation: Literal["draws", "joint", "all", "bound"] = "draws"

    def table(self, size: int) -> np.ndarray:
        """``f(m)`` for m = 0 ... size."""
        m = np.arange(size + 1.0)
        return m * np.log2(np.maximum(m, 1)) if self.kernel == "entropy" else m * (m - 1) / 2

    def value(self, a, b, s, size: int):
        """The loss from the sums A, B and S of `size` observations, which broadcast.

        A scale of zero means that both partitions are the same trivial one. The smallest other scale of a loss that
        can have zero is 1/2 (n = 2, omARI), so a floor below that changes nothing else.
        """
        if self.weights is None:
            excess = np.maximum(a, b) - s
        else:
            alpha, beta = self.weights
            excess = alpha * a + beta * b - (alpha + beta) * s
        return excess / np.maximum(self.scale(a, b, s, size), 0.25)


def _information(size: int) -> float:
    return size * np.log2(max(size, 1))


def _to_observations(a, b, s, size):
    return size


def _to_ordered_pairs(a, b, s, size):
    return size**2 / 2


def _to_one(a, b, s, size):
    return 1.0


def _to_joint_entropy(a, b, s, size):
    return _information(size) - s


def _to_larger_entropy(a, b, s, size):
    return _information(size) - np.minimum(a, b)


def _beyond_chance(a, b, s, size):
    return (a + b) / 2 - a * b / max(size * (size - 1) / 2, 1)


_BITS, _SHARE = "bits", "share, 0 to 1"
_ALL = (
    Loss("vi", _BITS, "entropy", (1, 1), _to_observations, "all"),
    Loss("vi_lb", _BITS, "entropy", (1, 1), _to_observations, "bound"),
    Loss("binder", "sum over pairs i < j, times 2 / n^2", "pairs", (1, 1), _to_ordered_pairs, "all"),
    Loss("binder_pairs", "pairs i < j", "pairs", (1, 1), _to_one, "all"),
    Loss("omari", "1 - adjusted Rand index", "pairs", (0.5, 0.5), _beyond_chance),
    Loss("omari_approx", "1 - adjusted Rand index", "pairs", (0.5, 0.5), _beyond_chance, "all"),
    Loss("nvi", _SHARE, "entropy", (1, 1), _to_joint_entropy),
    Loss("id", _BITS, "entropy", None, _to_observations, "joint"),
    Loss("nid", _SHARE, "entropy", None, _to_larger_entropy),
)
LOSSES: dict[str, Loss] = {loss.name: loss for loss in _ALL}
"""Every loss by name. H are entropies in bits, I the mutual information; expected losses are posterior means over draws.

| name | between two partitions | source |
| vi | variation of information, 2 H(joint) - H(estimate) - H(draw), bits | Meila 2007; Wade & Ghahramani 2018 |
| vi_lb | vi; its expectation is Jensen's lower bound, from the similarity matrix (`VI.lb` in R) | Wade & Ghahramani 2018 |
| binder | pairs on which the two disagree, times 2 / n^2 (R's mcclust.ext and salso) | Binder 1978 |
| binder_pairs | pairs i < j on which the two disagree (R's mcclust) | Binder 1978 |
| omari | 1 - adjusted Rand index, expectation of the index of every draw | Hubert & Arabie 1985; Fritsch & Ickstadt 2009 |
| omari_approx | omari; its expectation is 1 - PEAR: the formula at the similarity matrix | Fritsch & Ickstadt 2009 |
| nvi | vi / H(joint) | Vinh, Epps & Bailey 2010 |
| id | max(H(estimate), H(draw)) - I, bits | Vinh, Epps & Bailey 2010 |
| nid | 1 - I / max(H(estimate), H(draw)) | Vinh, Epps & Bailey 2010 |
"""


FROM_SIMILARITY = ("vi_lb", "omari_approx")
"""Losses whose expectation is no mean over draws but a formula at the similarity matrix."""


def resolve(loss: str | Loss) -> Loss:
    """The loss of that name. Raises `InputError` for an unknown one."""
    if isinstance(loss, Loss):
        return loss
    if loss not in LOSSES:
        raise InputError(f"no loss {loss!r}; choose one of {', '.join(LOSSES)}")
    return LOSSES[loss]


def unequal_costs(loss: str, a: float, b: float) -> Loss:
    """The loss "vi", "binder" or "binder_pairs" with cost `a` of separating what the draw joins, `b` of the reverse.

    binder: ``a`` times the pairs together in the draw and apart in the estimate plus ``b`` times the reverse, in the
    units of the equal loss. vi: ``a H(estimate | draw) + b H(draw | estimate)``. ``a = b = 1`` is the plain loss; R's
    salso takes a in (0, 2) and b = 2 - a. Source: Binder 1978; Dahl, Johnson & Mueller 2022, section 2.

    Raises `InputError` for another loss, and for costs that are not positive and finite.
    """
    if loss not in ("vi", "binder", "binder_pairs"):
        raise InputError(f"unequal costs are for vi, binder and binder_pairs, not {loss!r}")
    if not (0 < a < np.inf and 0 < b < np.inf):
        raise InputError(f"costs are a = {a}, b = {b}; give positive, finite numbers")
    return dataclasses.replace(LOSSES[loss], name=f"{loss}(a={a:g}, b={b:g})", weights=(b, a))


def distances(allocations: np.ndarray | Draws, partition: np.ndarray, loss: str | Loss = "vi") -> np.ndarray:
    """Loss of `partition` ``(n,)`` against every draw of `allocations` ``(T, n)``: ``(T,)``, in the loss's units.

    Streams over draws. Raises `InputError` for labels that are not whole numbers or of another number of observations.
    """
    draws, loss = draws_of(allocations), resolve(loss)
    partition = same_size(draws, partition)
    parts = [_distances(labels, partition, loss) for labels in draws.chunks(max(1, CELLS // (8 * draws.size)))]
    return np.concatenate(parts)


def vi(allocations: np.ndarray, partition: np.ndarray) -> np.ndarray:
    """Variation of information in bits between every draw ``(T, n)``, or one ``(n,)``, and one partition ``(n,)``."""
    found = distances(np.atleast_2d(allocations), partition, "vi")
    return found if np.ndim(allocations) == 2 else found[0]


def expected_loss(allocations: np.ndarray | Draws, partition: np.ndarray, loss: str | Loss = "vi") -> float:
    """Posterior expected loss of `partition` ``(n,)`` under the draws ``(T, n)``, as `LOSSES` defines the expectation.

    Raises `InputError` as `distances` does.
    """
    draws, loss = draws_of(allocations), resolve(loss)
    partition = same_size(draws, partition)
    if loss.name in FROM_SIMILARITY:
        return float(losses_at_similarity(draws.similarity, partition[None], loss)[0])
    return float(distances(draws, partition, loss).mean())


def losses_at_similarity(similarity: np.ndarray, partitions: np.ndarray, loss: str | Loss) -> np.ndarray:
    """The loss's formula at the similarity matrix p ``(n, n)`` for partitions ``(P, n)``: ``(P,)``.

    Pairs: B and S are their expectations, ``sum_{i<j} p_ij`` over all pairs and over pairs in one cluster; the expected
    loss itself for binder, 1 - PEAR for omari. Entropy: ``B = sum_i log2 sum_j p_ij`` and ``S`` the same with j in the
    cluster of i, both at least their expectations (Jensen). For vi that is

        (1/n) sum_i [log2 sum_j 1[c_i = c_j] + log2 sum_j p_ij - 2 log2 sum_j p_ij 1[c_i = c_j]],

    the criterion of Wade & Ghahramani 2018, section 3.1, `VI.lb` in R.
    """
    loss = resolve(loss)
    found = DistinctClusters(partitions)
    sizes = found.members.sum(axis=1)
    step = max(1, CELLS // found.size)
    s = [_at_similarity(found.members[k : k + step], similarity, loss) for k in range(0, len(sizes), step)]
    b = _at_similarity(np.ones((1, found.size), bool), similarity, loss)[0]
    return loss.value(found.draws @ loss.table(found.size)[sizes], b, found.draws @ np.concatenate(s), found.size)


def contributions(allocations: np.ndarray | Draws, partition: np.ndarray, loss: str | Loss = "vi") -> np.ndarray:
    """What each observation adds to the expected loss, ``(n,)``: parts of `expected_loss`, which they sum to.

    The sums A, B and S are sums over observations too, of log2 of the size of the observation's cluster (entropy) or of
    half the other members (pairs), so that ``mean_t (alpha (A_i - S_i) + beta (B_i - S_i)) / scale`` adds up exactly.
    For binder it is half the expected number of others on which the estimate is wrong about i, in the loss's units.

    Raises `InputError` as `distances` does, and for the losses that are no mean over draws (vi_lb, omari_approx).
    """
    draws, loss = draws_of(allocations), resolve(loss)
    if loss.name in FROM_SIMILARITY:
        raise InputError(f"{loss.name} is no mean over draws; ask for the contributions to vi or omari")
    partition, size = same_size(draws, partition), draws.size
    share = lambda counts: np.log2(np.maximum(counts, 1)) if loss.kernel == "entropy" else (counts - 1) / 2
    total = np.zeros(size)
    for labels in draws.chunks(max(1, CELLS // (8 * size))):
        table = _contingency(labels, partition)
        a, b, s = _sums(table, loss.table(size))
        larger = (a >= b)[:, None]
        alpha, beta = loss.weights or (larger, ~larger)
        rows = np.arange(len(labels))[:, None]
        of_a, of_b = share(table.sum(2)[:, partition]), share(table.sum(1)[rows, labels])
        of_s = share(table[rows, partition, labels])
        scale = np.broadcast_to(np.maximum(loss.scale(a, b, s, size), 0.25), b.shape)[:, None]
        total += ((alpha * (of_a - of_s) + beta * (of_b - of_s)) / scale).sum(axis=0)
    return total / len(draws.labels)


def expected_losses(clusters: DistinctClusters, partitions: np.ndarray, loss: Loss) -> np.ndarray:
    """`expected_loss` of many partitions ``(P, n)`` at once, ``(P,)``, for losses that are means over draws.

    Every distinct cluster of the partitions meets every distinct cluster of the draws once, however many share it.
    """
    table, size = loss.table(clusters.size), clusters.size
    found = DistinctClusters(partitions)
    a = found.draws @ table[found.members.sum(axis=1)]
    b = clusters.draws @ table[clusters.members.sum(axis=1)]
    s = found.draws @ _overlaps(found, clusters, table, average=loss.expectation != "draws")
    if loss.expectation == "all":
        return loss.value(a, b.mean(), s, size)
    if loss.expectation == "joint":
        s = s[:, None]
    step = max(1, CELLS // len(b))
    chunks = (slice(start, start + step) for start in range(0, len(a), step))
    return np.concatenate([loss.value(a[c, None], b, s[c], size).mean(axis=1) for c in chunks])


def pairwise(one: np.ndarray | Draws, other: np.ndarray | Draws, loss: str | Loss = "vi") -> np.ndarray:
    """Loss between every partition of `one` ``(P, n)`` and every one of `other` ``(T, n)``: ``(P, T)``.

    The same numbers as `distances`, one partition at a time; here distinct clusters meet once. Raises `InputError` for
    labels that are not whole numbers, another number of observations, and losses that are no function of two partitions.
    """
    one, other, loss = draws_of(one), draws_of(other), resolve(loss)
    if loss.name in FROM_SIMILARITY:
        raise InputError(f"{loss.name} is no loss between two partitions; take vi or omari")
    if one.size != other.size:
        raise InputError(f"partitions of {one.size} and of {other.size} observations; give the same ones")
    draws, table = DistinctClusters(other), loss.table(one.size)
    b = draws.draws @ table[draws.members.sum(axis=1)]
    found, step = [], max(1, CELLS // max(len(draws.members), len(b)))
    for labels in one.chunks(step):
        part = DistinctClusters(Draws(labels))
        a = part.draws @ table[part.members.sum(axis=1)]
        s = part.draws @ _overlaps(part, draws, table, average=False)
        found.append(loss.value(a[:, None], b, s, one.size))
    return np.maximum(np.concatenate(found), 0.0)


def same_size(draws: Draws, partition: np.ndarray) -> np.ndarray:
    """`partition` in canonical form. Raises `InputError` where it has not as many observations as the draws."""
    partition = labels_of(partition, "partition", 1)
    if draws.size != len(partition):
        raise InputError(
            f"the partition has {len(partition)} observations and the draws have {draws.size}; give the same ones"
        )
    return canonical(partition)


def _overlaps(one: DistinctClusters, other: DistinctClusters, table: np.ndarray, *, average: bool) -> np.ndarray:
    """``sum_j f(|cluster u and cluster j of draw t|)`` of every cluster of `one` and draw of `other`: ``(U, T)``.

    Averaged over the draws, ``(U,)``, where `average`.
    """
    members = other.members.T.astype(np.float32)
    step = max(1, CELLS // members.shape[1])
    found = []
    for start in range(0, len(one.members), step):
        shared = one.members[start : start + step].astype(np.float32) @ members
        values = table.take(shared.astype(np.intp))
        found.append(values @ other.weights if average else (other.draws @ values.T).T)
    return np.concatenate(found)


def _contingency(labels: np.ndarray, partition: np.ndarray) -> np.ndarray:
    """Overlaps ``n_tkj`` of the partition's cluster k and the draw's cluster j, ``(T, K, J)``."""
    shape = len(labels), int(partition.max()) + 1, int(labels.max()) + 1
    cells = (np.arange(shape[0])[:, None] * shape[1] + partition) * shape[2] + labels
    return np.bincount(cells.ravel(), minlength=int(np.prod(shape))).reshape(shape)


def _sums(contingency: np.ndarray, table: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    a = float(table[contingency[0].sum(axis=1)].sum())
    return a, table[contingency.sum(axis=1)].sum(axis=1), table[contingency].sum(axis=(1, 2))


def _distances(labels: np.ndarray, partition: np.ndarray, loss: Loss) -> np.ndarray:
    size = len(partition)
    # Rounding leaves some -1e-16 where the two are the same partition.
    return np.maximum(loss.value(*_sums(_contingency(labels, partition), loss.table(size)), size), 0.0)


def _at_similarity(members: np.ndarray, similarity: np.ndarray, loss: Loss) -> np.ndarray:
    """Every cluster's part of the sum S, ``(U,)``."""
    sums = members.astype(np.float64) @ similarity
    if loss.kernel == "pairs":
        return ((sums * members).sum(axis=1) - members.sum(axis=1)) / 2
    return np.log2(np.where(members, sums, 1)).sum(axis=1)
