"""What to say of the chains of a sampler, in words, and on which evidence."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from ..draws.monte_carlo import r_hat_of_halves
from ..labels.switching import Visits

CONVERGED = 1.01
"""R-hat that every invariant must stay below (rank-normalised split R-hat, Vehtari et al. 2021)."""
THRESHOLD = 1.05
"""R-hat from which on a quantity counts as not mixed: more draws of the same kind would not help."""
ESS_PER_CHAIN = 100
"""Effective draws a chain, of bulk and tail, that every invariant must exceed (Vehtari et al. 2021, section 4)."""
SHORT = 20
"""Draws a chain below which a chain's halves cannot be compared."""
REPEATED = 0.5
"""Share of steps without any change from which on a chain whose effective draws are few counts as stuck."""
STUCK = 10
"""Effective draws a chain below which they are that few."""
CHANGES = 10
"""Changes of the large components' labels, in every chain, from which on a chain counts as changing them freely."""
FOUND = "converged", "converged up to labels"
"""Verdicts under which draws may be believed."""


class Labels(NamedTuple):
    """What is known of labels.

    `exchangeable`: whether the prior is the same under every order, None where nothing says so; `moved`: the method draws
    labels from their posterior, by its own rule; `accepted`: share of steps with an accepted label move, the least of all
    chains, NaN where there are no such moves; `visits`: where the large components have been.
    """

    exchangeable: bool | None
    moved: bool
    accepted: float
    visits: Visits


def chains_verdict(
    table: pd.DataFrame, invariant: dict[str, np.ndarray], chains: dict[str, float], labels: Labels
) -> tuple[str, str]:
    """Verdict on a sampler's chains and the evidence beside R-hat, the first of these that holds:

    - duplicated chains: two chains share states, so that no comparison of them means anything;
    - not converged: a chain is stuck (it mostly stands still, and effective draws are few: repeated states alone are no
      failure of a Metropolis sampler); chains in different modes; chains drift: an R-hat is `THRESHOLD` or more;
    - labels restricted: the prior is not the same for all labellings, and chains do not change them, so that each draws
      from a part of the posterior and invariants are biased too (`restricted`);
    - not converged: chains can be told apart, by R*;
    - nearly: draw more, where an R-hat is `CONVERGED` or more, or an ESS at most `ESS_PER_CHAIN` a chain (`shortfall`);
    - converged up to labels: labels are not mixed, which leaves invariants alone;
    - converged.

    All invariants must pass, dozens of them. R-hat of chains without fault is about ``1 + m / 2S`` on average for S
    effective draws in m half chains (the between-chain variance is a chi-square with m - 1 degrees of freedom), 1.01 at
    100 a chain, so that "nearly" is said of good chains as well until the worst of the invariants has two or three times
    as many: a false alarm costs some draws, a false assurance the answer. Chains that have all missed the same mode pass
    whatever is asked of them: only another method finds that out (`dpgmm.agreement`).
    """
    inner, raw = rows_of_kind(table, "invariant"), rows_of_kind(table, "raw")
    ess = least_ess(inner)
    common = chains.get("largest share of states in common with another chain", 0.0)
    if common > 0:
        return "duplicated chains", f"; two chains share {common:.0%} of their states or more"
    num_chains = len(next(iter(invariant.values())))
    r_hats, mixed = inner["r_hat"].to_numpy(float), bool(np.nanmax(raw["r_hat"].to_numpy(float)) < THRESHOLD)
    worst, still = np.nanmax(r_hats), chains.get("largest share of steps without any change", 0.0)
    if still > REPEATED and (worst >= THRESHOLD or ess < STUCK * num_chains):
        return "not converged: a chain is stuck", f"; a chain does not move in {still:.0%} of its steps"
    if worst >= THRESHOLD:
        verdict, within = _apart(
            [str(name) for name, r in zip(inner.index, r_hats, strict=True) if r >= THRESHOLD], invariant
        )
        return verdict, within + (_of_labels(labels, mixed=mixed) if restricted(labels, mixed=mixed) else "")
    if restricted(labels, mixed=mixed):
        return "labels restricted: invariants are biased", _of_labels(labels, mixed=mixed)
    if chains and chains["R*"] - 4 * chains["R*, standard error"] > 1:
        told = f"; yet R* {chains['R*']:.2f} (standard error {chains['R*, standard error']:.2f}) tells the chains apart"
        return "not converged: chains can be told apart", told
    times, why = shortfall(inner, num_chains)
    if times > 1:
        return "nearly: draw more", f"; about {_rounded(times)} times as many draws are needed, for {why}"
    return ("converged", "") if mixed else ("converged up to labels", _of_labels(labels, mixed=mixed))


def restricted(labels: Labels, *, mixed: bool) -> bool:
    """Whether chains draw from a part of the labelled posterior that is not like the others.

    Under exchangeable labels every part is. Elsewhere, as under stick-breaking, chains must change labels: by rule; by
    moves, accepted in every chain, if raw weights then agree between chains (`mixed`); or visibly, the large components
    having changed places `CHANGES` times or more in every chain.
    """
    if labels.exchangeable is None or labels.exchangeable or labels.moved:
        return False
    return not (labels.visits.changes.min() >= CHANGES or (mixed and labels.accepted > 0))


def shortfall(inner: pd.DataFrame, num_chains: int) -> tuple[float, str]:
    """How many times as many draws would make every invariant pass, and the quantity that needs the most.

    Effective draws grow in proportion to draws. ``R-hat^2 - 1`` is the variance between chains over that within: it falls
    in proportion to 1 / draws once chains are longer than they remember. At most 1 where all pass.
    """
    wanted, moving = ESS_PER_CHAIN * num_chains, moving_rows(inner)
    r_hats = inner["r_hat"].to_numpy(float)
    lacking = {
        "bulk ESS": (moving.index, wanted / moving["ess_bulk"].to_numpy(float)),
        "tail ESS": (moving.index, wanted / moving["ess_tail"].to_numpy(float)),
        "R-hat": (inner.index, np.nan_to_num((r_hats**2 - 1) / (CONVERGED**2 - 1), nan=0.0)),
    }
    worst = {what: (times.max(), names[times.argmax()]) for what, (names, times) in lacking.items() if len(times)}
    what = max(worst, key=lambda name: worst[name][0])
    return float(worst[what][0]), f"{what} of {worst[what][1]}"


def least_ess(inner: pd.DataFrame) -> float:
    """Smallest ESS of bulk and tail of any quantity that moves; infinite where none does."""
    return float(moving_rows(inner)[["ess_bulk", "ess_tail"]].to_numpy().min(initial=np.inf))


def moving_rows(inner: pd.DataFrame) -> pd.DataFrame:
    """Rows of quantities that are not constant, an ESS that is no number counting as one draw."""
    return pd.DataFrame(inner[inner["sd"] > 0]).fillna({"ess_bulk": 1.0, "ess_tail": 1.0})


def rows_of_kind(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Rows of a kind: invariant or raw."""
    return pd.DataFrame(table[table["kind"] == kind])


def duplicated(features: np.ndarray) -> float:
    """Largest share of its states that a chain has in common with another, ``(chain, draw, F)`` to a number; 0 if none.

    States are compared bit by bit, whatever their order: copies, shifted copies and common beginnings are found. One
    common state may be a common start; two different ones are no accident, as the states are of real numbers.
    """
    states = [np.array([row.tobytes() for row in np.ascontiguousarray(chain)]) for chain in features]
    shares = [0.0]
    for i, one in enumerate(states):
        for other in states[:i]:
            common = np.isin(one, other)
            shares.append(float(common.mean()) if len(np.unique(one[common])) > 1 else 0.0)
    return max(shares)


def _apart(names: list[str], invariant: dict[str, np.ndarray]) -> tuple[str, str]:
    """Where R-hat of these is too large: whether chains drift, or rest in different modes."""
    if len(next(iter(invariant.values()))[0]) < SHORT:
        return "not converged", f"; with fewer than {SHORT} draws a chain there is no telling why"
    moving = [chain for name in names for chain in invariant[name] if np.isfinite(chain).all() and np.ptp(chain) > 0]
    drift = max(map(r_hat_of_halves, moving), default=1.0)
    within = f"; worst split R-hat within a chain {drift:.3f}"
    return ("chains in different modes" if drift < 2 * THRESHOLD - 1 else "not converged: chains drift"), within


def _of_labels(labels: Labels, *, mixed: bool) -> str:
    """What is known of labels, as evidence."""
    if labels.exchangeable:
        return "; labels are exchangeable, so that each chain may keep its own"
    changes = f"the large components change labels {labels.visits.changes.min()} times in a chain"
    if labels.exchangeable is None:
        return (
            "; this holds if the prior's labels are exchangeable, which the draws do not say: under sticks it does not"
        )
    if not restricted(labels, mixed=mixed):
        return "; labels are not exchangeable, but " + ("drawn anew" if labels.moved else changes + " or more")
    accepted = "" if np.isnan(labels.accepted) else f", and {labels.accepted:.0%} of steps have an accepted label move"
    return f"; labels are not exchangeable, and {changes}{accepted}: what does not depend on labels is biased as well"


def _rounded(times: float) -> str:
    return f"{times:.1f}" if times < 3 else f"{np.ceil(times):.0f}"
