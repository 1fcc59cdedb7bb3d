"""Weights and labels of draws from elsewhere: shares that sum to one and whole numbers from nought, or a line on why not."""

import jax.numpy as jnp
import numpy as np

from ..densities import sticks
from ..errors import InputError
from ._check import OFF


def real(array: np.ndarray, name: str) -> np.ndarray:
    """The same as floats, or an `InputError`."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: {array.dtype}, not numbers")
    return np.asarray(array, float)


def weights(
    array: np.ndarray, role: str, name: str, num_points: float | None, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``(chain, draw, K)`` that sum to one, and which components are absent from a draw; `notes` say what was done.

    `role`: ``"weights"``, ``"log_weights"`` or ``"stick_logits"``. Logarithms are recognised among weights by what they
    sum to, counts by theirs, which is the number of points in every draw. Raises `InputError` for other weights that do
    not sum to one: logits may be positive.
    """
    array = real(array, name)
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(
            f"{name}: shape {array.shape}; weights are (chain, draw, component): give order= or component axes"
        )
    if role != "weights":
        notes.append(f"{name} are {role.replace('_', ' ')}, turned into weights")
    if role == "stick_logits":
        array, role = np.asarray(sticks.log_weights(jnp.asarray(array)), float), "log_weights"
    absent = np.isnan(array)
    if absent.any():
        notes.append(f"{name}: components that are NaN are absent, of weight 0")
    if role == "log_weights" or _are_logs(array, absent, name, notes):
        return _exponentiated(np.where(absent, -np.inf, array), name), absent
    padded = array == -1
    others = np.where(padded | absent, 0.0, array)
    if padded.any() and (others >= 0).all() and others.any(axis=-1).all():
        notes.append(f"{name}: components that are -1 are absent, of weight 0")
        absent = absent | padded
    return _shares(np.where(absent, 0.0, array), name, num_points, notes), absent


def _are_logs(array: np.ndarray, absent: np.ndarray, name: str, notes: list[str]) -> bool:
    known = np.where(absent, -np.inf, array)
    if (known > 0).any() or not (known < 0).any() or not np.allclose(np.exp(known).sum(axis=-1), 1, atol=OFF):
        return False
    notes.append(f"{name} are log weights: their exponentials sum to one")
    return True


def _exponentiated(logs: np.ndarray, name: str) -> np.ndarray:
    largest = logs.max(axis=-1, keepdims=True)
    if not np.isfinite(largest).all():
        raise InputError(
            f"{name}: log weights of {_place(~np.isfinite(largest[..., 0]))} are not finite; remove that draw"
        )
    shares = np.exp(logs - largest)
    return shares / shares.sum(axis=-1, keepdims=True)


def _shares(array: np.ndarray, name: str, num_points: float | None, notes: list[str]) -> np.ndarray:
    if (array < 0).any():
        raise InputError(
            f"{name}: negative weights, down to {array.min():.4g}; if they are log weights or logits, give"
            f" log_weights={name!r}"
        )
    total = array.sum(axis=-1)
    if not (total > 0).all():
        raise InputError(f"{name}: all weights of {_place(~(total > 0))} are zero or missing; leave that draw out")
    if (np.abs(total - 1) > OFF).any():
        of_all = total[0, 0] if num_points is None else num_points
        if not ((array == np.floor(array)).all() and np.allclose(total, of_all)):
            raise InputError(
                f"{name}: weights of a draw sum to {total.min():.4g} to {total.max():.4g}, not to one; if they are logits,"
                f" give log_weights={name!r}, else divide them by their sums"
            )
        notes.append(f"{name} are counts of {of_all:g} points: divided by their sums")
    return array / total[..., None]


def _place(wrong: np.ndarray) -> str:
    chain, draw = np.argwhere(wrong)[0]
    return f"chain {chain}, draw {draw}"


def allocations(
    array: np.ndarray, name: str, weights: np.ndarray | None, first: int | None, notes: list[str]
) -> np.ndarray | None:
    """Labels ``(chain, draw, obs)`` from nought, or None where points lack one and components can tell.

    NaN and -1 are no label: without components such a point is a cluster of its own. Labels that are beyond the
    components, or of no components, are names of clusters: counted anew, or, where a draw's weights are the shares of its
    labels in ascending order, by their rank. `first`: the number of the first component, or None to find it out.
    """
    array = real(array, name)
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(f"{name}: shape {array.shape}; allocations are (chain, draw, observation): give order=")
    missing = np.isnan(array) | (array == -1)
    odd = ~missing & ~(np.isfinite(array) & (array == np.floor(array)))
    if odd.any():
        raise InputError(f"{name}: labels that are not whole numbers, such as {array[odd][0]:.4g}")
    if missing.all():
        raise InputError(f"{name}: no labels but NaN and -1; name the labels")
    if missing.any() and weights is not None:
        notes.append(f"{name}: {missing.sum()} of {missing.size} labels are NaN or -1; labels were left out")
        return None
    if weights is None:
        return _counted(array, missing, name, notes)
    return _from_nought(array.astype(np.int64), name, weights, first, notes)


def _counted(array: np.ndarray, missing: np.ndarray, name: str, notes: list[str]) -> np.ndarray:
    """Labels of no components, counted anew; those that are missing differ from all others of their draw."""
    known, labels = np.unique(np.where(missing, array[~missing].min(), array), return_inverse=True)
    if missing.any():
        notes.append(f"{name}: points whose label is NaN or -1 are each a cluster of their own")
    if (known != np.arange(len(known))).any():
        notes.append(f"{name}: labels {known[0]:g} to {known[-1]:g} are called 0 to {len(known) - 1}")
    alone = len(known) - 1 + np.cumsum(missing, axis=-1)
    return np.where(missing, alone, labels.reshape(array.shape)).astype(np.int64)


def _from_nought(labels: np.ndarray, name: str, weights: np.ndarray, first: int | None, notes: list[str]) -> np.ndarray:
    size = weights.shape[-1]
    if first is None:
        first = 1 if labels.min() >= 1 and labels.max() == size else 0
    if labels.min() >= first and labels.max() < first + size:
        notes += [f"{name} count from {first}"] if first else []
        return labels - first
    ranks = np.apply_along_axis(lambda row: np.unique(row, return_inverse=True)[1], -1, labels)
    if ranks.max() < size and np.allclose(shares(ranks, size), weights, atol=OFF):
        notes.append(f"{name}: labels are names, and weights in ascending order of those of a draw")
        return ranks
    raise InputError(
        f"{name}: labels {labels.min()} to {labels.max()} of {size} components; expected {first} to {first + size - 1}:"
        " give first_label=, 0 or 1"
    )


def shares(labels: np.ndarray, size: int) -> np.ndarray:
    """Shares of the points that each of `size` labels has, ``(chain, draw, size)``."""
    flat = labels.reshape(-1, labels.shape[-1])
    counts = np.zeros((len(flat), size))
    np.add.at(counts, (np.arange(len(flat))[:, None], flat), 1.0)
    return (counts / labels.shape[-1]).reshape(*labels.shape[:2], size)
