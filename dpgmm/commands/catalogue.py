"""What there is by name, without importing it."""

import json

from rich.console import Console

from ..model import places

METHODS = ["map", "svi", "nuts", "gibbs", "blocked_gibbs", "cavi"]
DATA_SETS = ["four_gaussians", "galaxies", "faithful", "thyroid"]
ECR = ["ecr", "ecr_iterative_1", "ecr_iterative_2"]
RELABELLING = ["stephens", *ECR, "pra", "aic", "data_based", "sjw", "transport", "user"]
LOSSES = ["vi", "vi_lb", "binder", "binder_pairs", "omari", "omari_approx", "nvi", "id", "nid"]


def found() -> dict[str, list[str]]:
    """All names, by what they are of. Those above are the registries' own, which a test compares."""
    return {
        "models": places.names("models"),
        "methods": [*METHODS, *(name for name in places.entry_points() if name not in METHODS)],
        "methods of other libraries": places.peers(),
        "data sets": DATA_SETS,
        "relabelling methods": RELABELLING,
        "losses": LOSSES,
        "studies": places.names("comparisons"),
    }


def show(*, as_json: bool) -> None:
    """Print all names, or one JSON document of them."""
    if as_json:
        print(json.dumps(found()))
        return
    console = Console(soft_wrap=True)
    for what, names in found().items():
        console.print(f"[bold]{what}[/]: {', '.join(names)}", highlight=False)
