"""Inference methods: one file each, all with ``run(posterior, key, **options) -> DataTree``, and the registry of them."""

from collections.abc import Callable

import xarray as xr

from . import gibbs, map, nuts, svi

REGISTRY: dict[str, Callable[..., xr.DataTree]] = {
    "map": map.run,
    "svi": svi.run,
    "nuts": nuts.run,
    "gibbs": gibbs.run,
}

ALLOCATE = {"gibbs"}
"""Methods that allocate every point: they need the data as they are, uncompressed and without weights."""
