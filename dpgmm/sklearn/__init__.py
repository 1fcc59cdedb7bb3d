"""An estimator for scikit-learn: the answer of any of our methods in pipelines and searches."""

from ._estimator import DPGaussianMixture

__all__ = ["DPGaussianMixture"]
