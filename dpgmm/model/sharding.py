"""Points dealt out over several devices: GPUs, or the virtual devices of a CPU."""

import contextlib
from collections.abc import Iterator

import jax
from jax.sharding import AxisType, Mesh

from ..densities.passes import POINTS
from ..errors import InputError


@contextlib.contextmanager
def devices(count: int | None = None) -> Iterator[Mesh]:
    """Within this, passes over the points are shared by `count` devices, all there are by default, of all processes.

    ``with dpgmm.devices(8): dpgmm.fit(posterior, "nuts")``. Every device holds all points and does its share of the
    chunks of a pass; what they find is added up in the order of the chunks, and random numbers belong to chunks. Log
    densities and gradients are those of one device to the last bit, draws for a seed to rounding, which trajectories grow.
    One chunk, `dpgmm.densities.passes.PAIRS` point-component pairs, stays on one device. A CPU has one device unless JAX is
    told otherwise before it starts: ``jax.config.update("jax_num_cpu_devices", 8)``; for several processes there is
    `jax.distributed`. Yields the mesh. Raises `InputError` where there are not so many devices.

    Examples:
        >>> with dpgmm.devices(1) as mesh:
        ...     mesh.shape["points"]
        1
    """
    there = jax.device_count()
    count = there if count is None else count
    if not 1 <= count <= there:
        raise InputError(f"devices: there are {there}, not {count}; a CPU has as many as jax_num_cpu_devices says")
    mesh = jax.make_mesh((count,), (POINTS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    with jax.set_mesh(mesh):
        yield mesh
