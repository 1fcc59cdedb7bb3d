"""Inference methods: one file each, with one `Method` that says what it is, and the registry of them."""

from ._method import Kind, Method, Target
from .registry import REGISTRY, check, colour, find, known, names, peers, suited

__all__ = ["REGISTRY", "Kind", "Method", "Target", "check", "colour", "find", "known", "names", "peers", "suited"]
