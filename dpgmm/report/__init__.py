"""Reports: the page of a comparison, the page of a study, and the pictures on them."""

from .page import components, label_section, render, write

__all__ = ["components", "label_section", "render", "write"]
