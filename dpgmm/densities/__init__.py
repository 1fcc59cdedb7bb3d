"""Densities of the model, as functions of arrays: sticks, Gaussians, mixtures, their priors and coordinates."""
