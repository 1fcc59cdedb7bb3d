"""Covariances from whichever form people have: scales, variances, covariances, precisions, Cholesky factors."""

from collections.abc import Callable

import numpy as np

from ..errors import InputError

NUMBERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "covariances": lambda v: v,
    "variances": lambda v: v,
    "scales": np.square,
    "scale_trils": np.square,
    "precisions": np.reciprocal,
}
"""Variances of what is a number for each dimension, or for all."""
MATRICES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "covariances": lambda v: v,
    "scales": lambda v: v @ np.swapaxes(v, -1, -2),
    "scale_trils": lambda v: v @ np.swapaxes(v, -1, -2),
    "precisions": np.linalg.inv,
}
"""Covariances of matrices; those of scales are Cholesky factors."""
CLOSE = 1e-3
"""How far a matrix may be from symmetric or triangular, relative to its largest entry: that of float32 rounds."""


def covariances(values: np.ndarray, role: str, name: str) -> np.ndarray:
    """Variances, or covariances where these are matrices, of what is `arranged`, in the form that `role` says.

    Raises `InputError`, with what `name` may be instead, for what cannot be of that form.
    """
    if values.ndim == 4:
        if (values <= 0).any():
            logs = "; if they are logarithms, give their exponentials" if (values < 0).any() else ""
            raise InputError(f"{name}: {role} that are not positive, down to {values.min():.4g}{logs}")
        return NUMBERS[role](values)
    if role in ("scales", "scale_trils"):
        _check_triangular(values, role, name)
    else:
        _check_symmetric(values, role, name)
    try:
        found = MATRICES[role](values)
    except np.linalg.LinAlgError as error:
        raise InputError(f"{name}: {role} that have no inverse; remove or refit the broken chain") from error
    if not are_positive_definite(found):
        raise InputError(f"{name}: {role} that are not positive definite; name them rightly, or refit the broken chain")
    return found


def arranged(values: np.ndarray, name: str, role: str, shape: tuple[int, ...]) -> np.ndarray:
    """`values` as ``(chain, draw, K or 1, D or 1)``, or matrices ``(chain, draw, K or 1, D, D)``, with axes put in.

    `shape`: that of the means, ``(chain, draw, K, D)``. What lacks chain and draw holds for all draws, what lacks an axis of
    K for all components; packed triangles are unpacked, row by row. Raises `InputError` for other shapes.
    """
    chains, draws, size, dim = shape
    if values.ndim < 2 or values.shape[:2] != (chains, draws):
        values = np.broadcast_to(values, (chains, draws, *values.shape))
    core, packed = values.shape[2:], dim * (dim + 1) // 2
    if role in ("scale_trils", "scales") and dim > 1 and core in ((packed,), (size, packed), (1, packed)):
        values, core = _unpacked(values, dim), (*core[:-1], dim, dim)
    leading = [(), (1,), (size,)]
    if role in MATRICES and dim > 1 and core in [(*of, dim, dim) for of in leading]:
        return values if len(core) == 3 else values[:, :, None]
    if dim == 1 and core in ((size, 1, 1), (1, 1, 1)):
        return values[..., 0]
    if core in [(*of, d) for of in leading[1:] for d in (dim, 1)]:
        return values
    if core == ():
        return values[..., None, None]
    if core in leading:
        return values[..., None]
    if core == (dim,):
        return values[:, :, None]
    raise InputError(
        f"{name}: shape {values.shape}; {role} of {size} components in {dim} dimensions are a number, {dim} numbers or"
        f" a {dim} x {dim} matrix each, or one for all"
    )


def _unpacked(packed: np.ndarray, dim: int) -> np.ndarray:
    full = np.zeros((*packed.shape[:-1], dim, dim))
    full[(..., *np.tril_indices(dim))] = packed
    return full


def are_symmetric(values: np.ndarray) -> bool:
    """Whether all matrices ``(..., D, D)`` are, up to rounding."""
    return not _differ(values, np.swapaxes(values, -1, -2))


def are_positive_definite(values: np.ndarray) -> bool:
    """Whether all symmetric matrices ``(..., D, D)`` are."""
    try:
        for of_chain in values:  # One at a time: factors need as much memory as what they are of.
            np.linalg.cholesky(of_chain)
    except np.linalg.LinAlgError:
        return False
    return True


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    largest = np.abs(one).max(axis=(-2, -1), keepdims=True)
    return bool((np.abs(one - other) > CLOSE * largest).any())


def _check_triangular(values: np.ndarray, role: str, name: str) -> None:
    if not _differ(values, np.tril(values)):
        return
    if are_symmetric(values):
        raise InputError(
            f"{name}: {role} that are symmetric, not lower triangular; give covariances={name!r} if they are"
        )
    upper = not _differ(values, np.triu(values))
    remedy = "transpose them" if upper else "give lower Cholesky factors"
    raise InputError(f"{name}: {role} with entries above the diagonal; {remedy}")


def _check_symmetric(values: np.ndarray, role: str, name: str) -> None:
    if are_symmetric(values):
        return
    if not _differ(values, np.tril(values)):
        remedy = f"give scale_trils={name!r}" if role == "covariances" else "give them times their transpose"
        raise InputError(f"{name}: {role} that are lower triangular; if they are Cholesky factors, {remedy}")
    raise InputError(f"{name}: {role} that are not symmetric; name them rightly")
