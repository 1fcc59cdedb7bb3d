"""Inference methods: one file each, all with ``run(posterior, key, **options) -> DataTree``, and the registry of them."""

from collections.abc import Callable

import xarray as xr

from . import blocked_gibbs, gibbs, map, nuts, svi

REGISTRY: dict[str, Callable[..., xr.DataTree]] = {
    "map": map.run,
    "svi": svi.run,
    "nuts": nuts.run,
    "gibbs": gibbs.run,
    "blocked_gibbs": blocked_gibbs.run,
}

ALLOCATE = {"gibbs", "blocked_gibbs"}
"""Methods that allocate every point: they need the data as they are, uncompressed and without weights."""
