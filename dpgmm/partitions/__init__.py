"""Answers that need no labels: similarity, expected losses, point estimates and credible sets of partitions."""

from ._conformal import Conformal, conformal
from ._credible_ball import METRICS, CredibleBall, credible_ball
from ._particles import Particles, particles
from ._partition import Partition, partition
from ._predict import NONE, Assignment, Prediction, assign, predict
from ._subpartition import OUT, SubPartition, holds, subpartition
from .labelled import Cbi, Chips, Wasabi, cbi, chips, wasabi
from .losses import (
    LOSSES,
    Loss,
    contributions,
    distances,
    expected_loss,
    losses_at_similarity,
    pairwise,
    unequal_costs,
    vi,
)
from .search import PointEstimate, Run, point_estimate
from .similarity import canonical, num_clusters, similarity_matrix
from .uncertainty import allocation_uncertainty

__all__ = [
    "LOSSES",
    "METRICS",
    "NONE",
    "OUT",
    "Assignment",
    "Cbi",
    "Chips",
    "Conformal",
    "CredibleBall",
    "Loss",
    "Particles",
    "Partition",
    "PointEstimate",
    "Prediction",
    "Run",
    "SubPartition",
    "Wasabi",
    "allocation_uncertainty",
    "assign",
    "canonical",
    "cbi",
    "chips",
    "conformal",
    "contributions",
    "credible_ball",
    "distances",
    "expected_loss",
    "holds",
    "losses_at_similarity",
    "num_clusters",
    "pairwise",
    "particles",
    "partition",
    "point_estimate",
    "predict",
    "similarity_matrix",
    "subpartition",
    "unequal_costs",
    "vi",
    "wasabi",
]
