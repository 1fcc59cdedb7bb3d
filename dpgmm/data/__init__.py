"""Data: sets of weighted points, read from files or known by name, and compressed with a certificate."""

from .dataset import Dataset
from .reading import read

__all__ = ["Dataset", "read"]
