"""Relabelling of mixture draws: one function a method, on arrays that know no labels, and `relabel` on top.

``permutation[..., k]`` is the ORIGINAL component that becomes component k: ``new = old[permutation]`` and
``new_allocations = argsort(permutation)[allocations]``.
"""

from . import assignment, online
from ._data_based import data_based
from ._ecr import ecr, ecr_iterative_1, ecr_iterative_2
from ._pra import pra
from ._sjw import sjw
from ._stephens import stephens
from ._transport import transport
from ._user import user
from .assignment import Alignment
from .labelled import METHODS, Relabelling, agreement, relabel
from .ordering import aic
from .probabilities import Gaussians

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
