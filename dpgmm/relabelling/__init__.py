"""Relabelling of mixture draws: one function a method, on arrays that know no labels, and `relabel` on top.

``permutation[..., k]`` is the ORIGINAL component that becomes component k: ``new = old[permutation]`` and
``new_allocations = argsort(permutation)[allocations]``.
"""

from . import assignment, online
from .assignment import Alignment
from .data_based import data_based
from .ecr import ecr, ecr_iterative_1, ecr_iterative_2
from .labelled import METHODS, Relabelling, agreement, relabel
from .ordering import aic
from .pra import pra
from .probabilities import Gaussians
from .sjw import sjw
from .stephens import stephens
from .transport import transport
from .user import user

__all__ = [
    "METHODS",
    "Alignment",
    "Gaussians",
    "Relabelling",
    "agreement",
    "aic",
    "assignment",
    "data_based",
    "ecr",
    "ecr_iterative_1",
    "ecr_iterative_2",
    "online",
    "pra",
    "relabel",
    "sjw",
    "stephens",
    "transport",
    "user",
]
