"""R*: can a classifier tell from which chain a draw came? (Lambert & Vehtari 2022, Bayesian Analysis 17, 353-379.)"""

import numpy as np

from ..draws.thinning import evenly

DRAWS = 2_000
"""Draws at most that the classifier sees."""
LEAST = 20
"""Draws a chain below which there is nothing to learn from."""


def r_star(features: np.ndarray, ess: float, seed: int = 0) -> tuple[float, float]:
    """R* and its standard error: held-out accuracy of a classifier of the chain, times the number of chains.

    ``features (chain, draw, F)`` are label-invariant. Draws are thinned to about `ess`, their effective number over all
    chains: the classifier would otherwise recognise a draw by its neighbours, and call any slow chain another
    distribution. 1 where the chains cannot be told apart. NaN where fewer than `LEAST` draws a chain remain. Gradient
    boosted trees of scikit-learn, 70 % of the draws to learn from.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import train_test_split
    from threadpoolctl import threadpool_limits

    num_chains, length = features.shape[:2]
    kept = int(min(length, np.nan_to_num(ess) / num_chains, DRAWS / num_chains))
    if kept < LEAST:
        return float("nan"), float("nan")
    chosen = features[:, evenly(length, kept)].reshape(num_chains * kept, -1)
    chain = np.repeat(np.arange(num_chains), kept)
    parts = train_test_split(chosen, chain, test_size=0.3, stratify=chain, random_state=seed)
    learn, judge, chain_of_learn, chain_of_judge = parts
    model = HistGradientBoostingClassifier(max_iter=50, max_depth=3, random_state=seed)
    with threadpool_limits(1):  # So few draws are sooner learnt from than shared out to threads.
        right = model.fit(learn, chain_of_learn).predict(judge) == chain_of_judge
    return num_chains * float(right.mean()), num_chains * float(right.std() / np.sqrt(len(right)))
