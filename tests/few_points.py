"""Two data sets of so few points that everything about them can be enumerated, under a prior that leaves much open."""

import numpy as np

import dpgmm
from dpgmm import Dataset, load_model

GALAXIES = dpgmm.datasets.galaxies().points[[0, 5, 8, 20, 40, 60, 75, 80]]
PLANE = np.array([[0.3, 1.0], [-1.0, 0.2], [2.5, -1.0], [2.2, -0.7], [-0.8, 0.0], [6.0, 5.0]])


def posterior(points=GALAXIES, model="stick_breaking", truncation=4, **priors):
    return load_model(model)(Dataset(points), truncation=truncation, **{"shape": 2.0, "rate": 2.0} | priors)


def distance(of_batch, wanted):
    """Total variation between the mean over independent batches ``(B, k)`` and `wanted`, in units of the largest by chance.

    Chance: 20,000 normal deviations of the mean, with the batches' own covariance.
    """
    found = 0.5 * np.abs(of_batch.mean(axis=0) - wanted).sum()
    covariance = np.cov(of_batch.T) / len(of_batch)
    chance = np.random.default_rng(0).multivariate_normal(0 * wanted, covariance, 20_000, method="eigh")
    return found / (0.5 * np.abs(chance).sum(axis=1).max())


def in_errors(of_batch, wanted):
    """Largest deviation of the mean over independent batches ``(B, ...)`` from `wanted`, in its own standard errors."""
    error = of_batch.std(axis=0, ddof=1) / np.sqrt(len(of_batch))
    return np.max(np.abs(of_batch.mean(axis=0) - wanted) / np.maximum(error, 1e-6))
