"""Tables of the study of inference methods, from its numbers: rows of words by column."""

from typing import Any

MARKS, BELIEF, COST = "what may be believed", "the numbers behind it", "what it costs"
EXACT = "Eight galaxies, distance to the exact answer"


def of(numbers: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows of every table by its title: beliefs and costs of every data set, and distances to exact answers."""
    tables = {}
    for name, of_data in numbers["data"].items():
        marks = [
            {"method": who, "mark": m["mark"], "calibration": m["calibration"]} for who, m in of_data["methods"].items()
        ]
        tables |= {f"{name}: {MARKS}": marks, f"{name}: {BELIEF}": _belief(of_data), f"{name}: {COST}": _cost(of_data)}
    return tables | {EXACT: _exact(numbers["exact"])}


def _cost(of_data: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table of costs: held-out density against seconds, one row a method and budget."""
    reference = of_data["reference"]
    rows = [
        {
            "method": who,
            "seconds": f"{seconds:.3g}",
            "compiling": f"{m['compile seconds']:.2g}" if budget == 0 and m["compile seconds"] > 0 else "",
            "held out, nats a point": str(m["held out"][budget]),
            "above long Gibbs": str(m["above reference"][budget]),
        }
        for who, m in of_data["methods"].items()
        for budget, seconds in enumerate(m["seconds"])
    ]
    of_reference = {
        "seconds": f"{reference['seconds'].value:.3g}",
        "held out, nats a point": str(reference["held out"]),
    }
    return [*rows, dict.fromkeys(rows[0], "") | {"method": "long Gibbs"} | of_reference]


def _belief(of_data: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the numbers behind the marks, at the largest budget, one a method."""
    return [
        {
            "method": who,
            **{q: "none" if m["mark"].startswith("point") else str(r) for q, r in m["sd ratios"].items()},
            "similarity": str(m["similarity"]),
            "k-hat": str(m["k-hat"] or ""),
        }
        for who, m in of_data["methods"].items()
    ]


def _exact(eight: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "method": name,
            "number of clusters, total variation": str(d["total variation"]),
            "similarity, mean absolute difference": str(d["similarity"]),
            "seconds": f"{d['seconds']:.2g}",
        }
        for model, of_model in eight.items()
        for name, d in of_model.items()
    ]
