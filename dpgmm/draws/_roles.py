"""What variables of draws are for, by the names that people give them."""

from collections.abc import Iterable, Mapping

from ..errors import InputError

NAMES = {
    "weights": ("weights", "w", "pi", "theta", "weight", "mixing", "mixture_weights"),
    "log_weights": ("log_weights", "log_w", "log_pi", "log_theta", "logits", "log_masses"),
    "stick_logits": ("stick_logits",),
    "means": ("means", "mu", "mean", "loc", "locs", "centers", "centres"),
    "scales": ("scales", "sigma", "sd", "sds", "std", "scale", "sigmas"),
    "variances": ("variances", "sigma2", "sigma_sq", "var", "variance"),
    "covariances": ("covariances", "Sigma", "cov", "covariance"),
    "precisions": ("precisions", "tau", "Lambda", "prec", "precision"),
    "scale_trils": ("scale_trils", "scale_tril", "L", "chol", "L_Sigma", "scale_tril_packed"),
    "allocations": ("allocations", "z", "labels", "allocation", "assignments", "c"),
    "concentration": ("concentration", "alpha"),
}
"""Names that are taken for a role where none is given, the first that there is."""
MIXING = "weights", "log_weights", "stick_logits"
FORMS = "scales", "variances", "covariances", "precisions", "scale_trils"


def chosen(told: Mapping[str, str], there: Iterable[str], notes: list[str]) -> dict[str, str]:
    """The variable of every role among those that are `there`: as told, else guessed, which is noted.

    Raises `InputError` for roles and variables that there are not, and for two ways to say the same thing.
    """
    there = list(there)
    unknown = next((role for role in told if role not in NAMES), None)
    if unknown is not None:
        raise InputError(f"from_draws: no role {unknown!r}; there are {', '.join(NAMES)}")
    for role, name in told.items():
        if name not in there:
            raise InputError(f"{role} = {name!r}: no such variable among the draws: {', '.join(there) or 'none'}")
    for group in (MIXING, FORMS):
        given = [role for role in group if role in told]
        if len(given) > 1:
            raise InputError(f"{', '.join(given)}: give one of them, they say the same thing")
    found = dict(told)
    for role, usual in NAMES.items():
        rivals = next((group for group in (MIXING, FORMS) if role in group), (role,))
        name = next((n for n in usual if n in there and n not in found.values()), None)
        if name is not None and not any(rival in found for rival in rivals):
            found[role] = name
            notes += [f"{name} was taken for {role}"] if name != role else []
    return found
