"""How sure the draws are of each observation's place in a partition."""

import numpy as np

from ..errors import InputError
from .similarity import canonical, labels_of


def allocation_uncertainty(similarity: np.ndarray, partition: np.ndarray) -> np.ndarray:
    """``u_i = 1 - mean of p_ij over the other members j of the cluster of i``, ``(n,)``, between 0 and 1.

    An observation that is alone: ``u_i = max_{j != i} p_ij``, a lower bound of the probability that it is not alone.
    `similarity` is p ``(n, n)``, `partition` ``(n,)``. Zero where every draw agrees with the estimate about i's company.
    What each observation adds to an expected loss is `losses.contributions`. Raises `InputError` for unequal sizes.
    """
    partition = canonical(labels_of(partition, "partition", 1))
    if similarity.shape != (len(partition), len(partition)):
        raise InputError(
            f"the similarity matrix is {similarity.shape} and the partition has {len(partition)}; match them"
        )
    others = (partition[:, None] == partition) & ~np.eye(len(partition), dtype=bool)
    members = others.sum(axis=1)
    within = 1 - (similarity * others).sum(axis=1) / np.maximum(members, 1)
    nearest = np.where(np.eye(len(partition), dtype=bool), 0.0, similarity).max(axis=1)
    return np.clip(np.where(members > 0, within, nearest), 0.0, 1.0)
