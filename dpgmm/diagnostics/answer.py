"""Which method's answer to believe, why, and what each of the others gets wrong, in numbers."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from .. import draws
from ..draws import monte_carlo
from .agreement import Agreement, claims, quantities
from .diagnosis import POOR, Diagnosis, is_guide, sorted_components
from .verdicts import FOUND

KINDS = "point", "guide", "sampler"
"""Kinds of draws, by what may be believed of them: the most comes last."""
LIKELY = 0.05
"""Probability from which on a number of clusters is named in the first line."""
NAMED = 4
"""Numbers of clusters that the first line names at most."""
SHOWN = 6
"""Components that are told at most."""
LEAST = 0.01
"""Weight of a component that is told, at least."""


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """The answer to believe, as `believe` chose it.

    `sentence`: the first line, which method and why, and the number of clusters with probabilities; `method` and whether
    it has `earned` belief (None, False where there is nothing to show); `clusters`: columns `clusters`, `probability`,
    `mcse`; `components`: as `diagnostics.sorted_components`, and in words in `of_components`; `others`: what each other
    method gets wrong, by name.
    """

    sentence: str
    method: str | None
    earned: bool
    clusters: pd.DataFrame
    components: pd.DataFrame
    of_components: str
    others: dict[str, str]


def believe(
    trees: Mapping[str, xr.DataTree],
    found: Mapping[str, Diagnosis],
    agreed: Agreement,
    relabelled: Mapping[str, xr.DataTree] | None = None,
) -> Answer:
    """Choose the best method that earned belief, or say that none did.

    A sampler earns it by the verdicts `FOUND`, a variational guide by a k-hat of at most `POOR` between restarts that agree,
    a point estimate never. Samplers come before guides, guides before point estimates; among samplers the smallest ESS
    decides, among guides k-hat. If two samplers have both converged and yet disagree, neither has earned anything. Where
    none has, the same order says what is best so far, and the sentence that it is not to be relied on.

    The number of clusters is that of components that hold a point, `occupied_clusters` of the schema: its probabilities
    are shares of draws. Components are of `relabelled` draws, where there are any, otherwise sorted by weight in every
    draw.
    """
    if not trees:
        return Answer(
            "No method has finished.",
            None,
            earned=False,
            clusters=_no_clusters(),
            components=pd.DataFrame(),
            of_components="",
            others={},
        )
    order = sorted(trees, key=lambda name: standing(trees[name], found[name]), reverse=True)
    best = order[0]
    split = _contradiction(order, trees, found, agreed)
    earned = has_earned(trees[best], found[best]) and split is None
    clusters = number_of_clusters(draws.answer(trees[best]))
    told = (relabelled or {}).get(best)
    answers = draws.answer(trees[best]) if told is None else told
    components = sorted_components(answers, keep_labels=told is not None)
    return Answer(
        _sentence(best, trees[best], found[best], clusters, earned=earned, split=split),
        best,
        earned,
        clusters,
        components,
        in_words(components, trees[best]["posterior"].sizes["dim"]),
        {name: against(name, best, trees, found, agreed) for name in trees if name != best},
    )


def has_earned(tree: xr.DataTree, diagnosis: Diagnosis) -> bool:
    """Whether a method may be believed on its own evidence."""
    if claims(tree):
        return diagnosis.verdict in FOUND
    return is_guide(tree) and diagnosis.k_hat <= POOR and diagnosis.verdict != "restarts differ"


def number_of_clusters(tree: xr.DataTree) -> pd.DataFrame:
    """Posterior of the number of occupied clusters: share of draws, and its Monte Carlo standard error, likeliest first.

    Empty for point estimates, and for draws that do not say.
    """
    stats = tree["sample_stats"].to_dataset() if "sample_stats" in tree.children else {}
    if "occupied_clusters" not in stats or draws.kind(tree) == "point":
        return _no_clusters()
    values = stats["occupied_clusters"].values
    rows = []
    for k in np.unique(values):
        is_k = (values == k).astype(float)
        rows.append((int(k), float(is_k.mean()), monte_carlo.row(is_k, None)["mcse_mean"]))
    return pd.DataFrame(rows, columns=_no_clusters().columns).sort_values("probability", ascending=False, kind="stable")


def in_words(components: pd.DataFrame, dim: int) -> str:
    """The heaviest components: weight, and in one dimension mean and scale."""
    told = [row for row in components.to_dict("records") if row["weight"] >= LEAST][:SHOWN]
    if dim == 1:
        parts = [f"{r['weight']:.2f} at {r['mean']:.4g} (scale {r['scale']:.2g})" for r in told]
    else:
        parts = [f"{r['weight']:.2f}" for r in told]
    return ", ".join(parts)


def against(
    name: str,
    best: str,
    trees: Mapping[str, xr.DataTree],
    found: Mapping[str, Diagnosis],
    agreed: Agreement,
) -> str:
    """What a method gets wrong, measured against the best one."""
    if claims(trees[name]):
        return _of_sampler(name, best, found[name], agreed)
    if is_guide(trees[name]):
        return _of_guide(trees[name], found[name], best, trees[best])
    return _of_point(draws.answer(trees[name]), best, trees[best])


def standing(tree: xr.DataTree, diagnosis: Diagnosis) -> tuple[bool, int, float]:
    """What methods are ordered by: earned or not, kind, and how well determined."""
    kind = KINDS.index(draws.kind(tree))
    quality = (0.0, -diagnosis.k_hat, diagnosis.least_ess)[kind]
    return has_earned(tree, diagnosis), kind, float(np.nan_to_num(quality, nan=-np.inf))


def _contradiction(order, trees, found, agreed: Agreement) -> str | None:
    """The disagreement of two samplers that have both converged, if there is one."""
    earned = [name for name in order if claims(trees[name]) and has_earned(trees[name], found[name])]
    for i, one in enumerate(earned):
        for other in earned[i + 1 :]:
            if apart := agreed.disagreements(one, other):
                return f"{one} and {other} both look converged and disagree on {apart[0]}"
    return None


def _sentence(name: str, tree, diagnosis: Diagnosis, clusters: pd.DataFrame, *, earned: bool, split: str | None) -> str:
    number = _of_clusters(clusters)
    if earned:
        why = f"k-hat {diagnosis.k_hat:.2f}" if is_guide(tree) else f"smallest ESS {diagnosis.least_ess:,.0f}"
        return f"Believe {name} ({diagnosis.verdict}, {why}): {number}."
    if split is not None:
        return f"Believe none of the methods yet: {split}. {name}: {number}."
    if draws.kind(tree) == "point":
        return f"No posterior to believe: {name} is a point estimate, and says nothing of the number of clusters."
    return f"No method has earned belief yet; the best so far is {name} ({reason(tree, diagnosis)}): {number}."


def reason(tree: xr.DataTree, diagnosis: Diagnosis) -> str:
    """The verdict, of a guide with its k-hat."""
    return diagnosis.verdict + (f", k-hat {diagnosis.k_hat:.2f}" if is_guide(tree) else "")


def _of_clusters(clusters: pd.DataFrame) -> str:
    """3 clusters with probability 0.52, 4 with 0.30."""
    rows = [(int(k), float(p)) for k, p in zip(clusters["clusters"], clusters["probability"], strict=True)]
    likely = [(k, p) for i, (k, p) in enumerate(rows[:NAMED]) if i == 0 or p >= LIKELY]
    if not likely:
        return "its draws do not say the number of clusters"
    (first, p), *rest = likely
    head = f"{first} cluster{'s' if first != 1 else ''} with probability {_probability(p)}"
    return ", ".join([head, *(f"{k} with {_probability(p)}" for k, p in rest)])


def _probability(p: float) -> str:
    return "above 0.99" if p > 0.995 else f"{p:.2f}"


def _of_sampler(name: str, best: str, diagnosis: Diagnosis, agreed: Agreement) -> str:
    apart, compared = agreed.disagreements(name, best), agreed.of_pair(name, best)
    usable = [c for c in compared if not c.short]
    if apart:
        values = f"{apart[0]}, {apart[0].first} against {apart[0].second}"
        more = f"; {len(apart)} of {len(usable)} numbers differ" if len(apart) > 1 else ""
        return f"{diagnosis.verdict}; differs from {best} on {values}{more}"
    if not usable:
        return f"{diagnosis.verdict}; too few effective draws to be compared with {best}"
    alike = f"agrees with {best} within Monte Carlo error on " + (
        "everything"
        if len(usable) == len(compared)
        else f"{len(usable)} of {len(compared)} numbers, the rest being unsure"
    )
    return f"{diagnosis.verdict}; {alike}"


def _of_guide(tree: xr.DataTree, diagnosis: Diagnosis, best: str, reference: xr.DataTree) -> str:
    quality = f"k-hat {diagnosis.k_hat:.2f}: " + ("not a posterior" if not diagnosis.k_hat <= POOR else "a fair guide")
    quality = f"{diagnosis.verdict}; {quality}" if diagnosis.verdict == "restarts differ" else quality
    if not claims(reference):
        return quality
    one, other = quantities(draws.answer(tree)), quantities(reference)
    # Of a co-clustering that hardly ever happens the sd is a matter of a few draws.
    shared = [q for q in one if q in other and not q.startswith("co-clustering") and other[q].std() > 0]
    if not shared:
        return quality
    ratios = [float(one[q].std() / other[q].std()) for q in shared]
    shifts = [float(abs(one[q].mean() - other[q].mean()) / other[q].std()) for q in shared]
    sds = f"its sds are {min(ratios):.2f} to {max(ratios):.2f} times those of {best} (median {np.median(ratios):.2f})"
    means = f"means are off by up to {max(shifts):.1f} of these sds ({shared[int(np.argmax(shifts))]})"
    return f"{quality}; {sds}; {means}{_clusters_of(one, other, best)}"


def _clusters_of(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], best: str) -> str:
    name = "expected_clusters"
    if name not in one or name not in other:
        return ""
    return f"; {one[name].mean():.2f} clusters on average where {best} has {other[name].mean():.2f}"


def _of_point(tree: xr.DataTree, best: str, reference: xr.DataTree) -> str:
    stats = tree["sample_stats"].to_dataset() if "sample_stats" in tree.children else {}
    if "active_components" not in stats:
        return "a point estimate: no uncertainty"
    number = int(stats["active_components"].values.ravel()[0])
    hold = f"its {number} component{'s' if number != 1 else ''} that hold a point in expectation"
    text = f"{hold} are those of one mode of a density: no estimate of the number of clusters, and no uncertainty"
    others = reference["sample_stats"].to_dataset() if "sample_stats" in reference.children else {}
    if draws.kind(reference) == "point" or "active_components" not in others:
        return text
    counts = others["active_components"].values
    share = f"{best} has {counts.mean():.1f} on average, and {number} with probability {np.mean(counts == number):.2f}"
    gain = float(stats["total_log_likelihood"].values.ravel()[0] - others["total_log_likelihood"].values.mean())
    side = "above" if gain > 0 else "below"
    return f"{text}; {share}; its log likelihood is {abs(gain):.1f} nats {side} that of an average draw"


def _no_clusters() -> pd.DataFrame:
    return pd.DataFrame({"clusters": np.zeros(0, int), "probability": np.zeros(0), "mcse": np.zeros(0)})
