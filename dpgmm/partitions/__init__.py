"""Answers that need no labels: similarity, expected losses, point estimates and credible balls of partitions."""

from ._credible_ball import METRICS, CredibleBall, credible_ball
from ._partition import Partition, partition
from .losses import LOSSES, Loss, contributions, distances, expected_loss, losses_at_similarity, unequal_costs, vi
from .search import PointEstimate, Run, point_estimate
from .similarity import canonical, num_clusters, similarity_matrix
from .uncertainty import allocation_uncertainty

__all__ = [
    "LOSSES",
    "METRICS",
    "CredibleBall",
    "Loss",
    "Partition",
    "PointEstimate",
    "Run",
    "allocation_uncertainty",
    "canonical",
    "contributions",
    "credible_ball",
    "distances",
    "expected_loss",
    "losses_at_similarity",
    "num_clusters",
    "partition",
    "point_estimate",
    "similarity_matrix",
    "unequal_costs",
    "vi",
]
