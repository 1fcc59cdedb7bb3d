"""`dpgmm compare` of several models: the ordinary run of each in a folder of its own, and above them one comparison."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from .. import draws, methods
from ..data import Dataset
from ..diagnostics import answer, choice, elpd
from ..diagnostics.choice import Evidence
from ..errors import InputError
from ..report import models_page, run_folder, terminal
from . import comparing
from ._folder import begun, claimed, free, requested
from .comparing import Plan, Request, again, read
from .document import Document


class Outcome(NamedTuple):
    """What the comparison keeps of a model's run: the rest is in its folder."""

    evidence: dict[str, Evidence]
    told: Document


def compare(request: Request, models: list[str], out: Path | None, *, overwrite: bool) -> Document:
    """A comparison of several models from its beginning; of one, the ordinary run."""
    if len(models) == 1:
        return comparing.compare(request, out, overwrite=overwrite)
    plans = _plans(request, _called(models))
    folder = run_folder.made(out, next(iter(plans.values())).posterior.data.name)
    with claimed(folder):
        asked_for = {folder: dataclasses.asdict(request.placed())}
        asked_for[folder]["models"] = {name: plan.request.placed().model for name, plan in plans.items()}
        asked_for |= {folder / name: dataclasses.asdict(plan.request.placed()) for name, plan in plans.items()}
        for place in asked_for:
            free(place, overwrite=overwrite)
        for place, what in asked_for.items():
            begun(run_folder.made(place, ""), what, overwrite=overwrite)
        return _run(plans, folder)


def resume(folder: Path) -> Document:
    """A comparison that was cut off; of several models, every model's run goes on where it was."""
    found = requested(folder)
    if (models := found.pop("models", None)) is None:
        return comparing.resume(folder)
    request = again(folder, found)
    with claimed(folder):
        return _run(_plans(request, models), folder)


def _called(models: list[str]) -> dict[str, str]:
    """Models by the names of their folders. Raises `InputError` where two have one name."""
    called: dict[str, str] = {}
    for model in models:
        name = Path(model).stem if model.endswith(".py") else model
        if name in called:
            told = f"{model} is given twice" if called[name] == model else f"{called[name]} and {model} have one name"
            raise InputError(f"--model: {told}; give every model once, under a name of its own")
        called[name] = model
    return called


def _plans(request: Request, models: dict[str, str]) -> dict[str, Plan]:
    """A plan for every model, of the same points, rows held out, seed and methods; what is wrong is found here."""
    points = read(request)
    by_model = _settings(request.settings, list(models))
    plans = {name: _plan(request, model, by_model[name], *points) for name, model in models.items()}
    first, *others = plans.values()
    everywhere = [name for name in first.names if all(name in plan.names for plan in others)]
    if request.methods is None:
        some = {name for plan in plans.values() for name in plan.names if name not in everywhere}
        if some:
            print(f"Not run, as not every model takes them: {', '.join(sorted(some))}.", file=sys.stderr)
        for plan in plans.values():
            plan.only(everywhere)
    if request.holdout is None and all(methods.find(name).kind == "point" for name in everywhere):
        raise InputError(
            f"--methods {','.join(everywhere)}: a point estimate has no leave-one-out density to compare models by;"
            " give a sampler or a guide too, or --holdout 0.1"
        )
    return plans


def _plan(request: Request, model: str, settings: list[str], points: Dataset, held: Dataset | None) -> Plan:
    return Plan(dataclasses.replace(request, model=model, settings=settings or None), points, held, named=True)


def _settings(settings: list[str] | None, models: list[str]) -> dict[str, list[str]]:
    """What of --set is each model's: NAME=VALUE every one's, MODEL.NAME=VALUE that of one."""
    own: dict[str, list[str]] = {name: [] for name in models}
    for setting in settings or []:
        left, equals, value = setting.partition("=")
        model, dot, option = left.rpartition(".")
        if dot and model not in own:
            raise InputError(f"--set {setting}: {model} does not run; the models are {', '.join(models)}")
        for name in [model] if dot else models:
            own[name].append(f"{option}{equals}{value}")
    return own


def _run(plans: dict[str, Plan], folder: Path) -> Document:
    """Every model's run in turn; then the comparison, printed before what any of them says for itself."""
    outcomes = {}
    for number, (name, plan) in enumerate(plans.items(), 1):
        print(f"Model {number} of {len(plans)}: {name}.", file=sys.stderr)
        outcomes[name] = _outcome(name, plan, folder)
    held = next(iter(plans.values())).held
    with terminal.console.status("comparison of models"):
        tables = {
            name: table for name in _methods(outcomes) if (table := _table(name, outcomes, folder, held)) is not None
        }
    made = choice.choose(tables, {name: of.evidence for name, of in outcomes.items()})
    rows = _rows(tables, outcomes, made.method)
    answers = {name: of.told["answer"]["sentence"] for name, of in outcomes.items()}
    data = next(iter(plans.values())).posterior.data
    path = models_page.leave(folder, data, 0 if held is None else held.size, made, rows, answers)
    models_page.tell(made, rows, answers, path)
    choice_told = made._asdict() | {"notes": list(made.notes)}
    told: dict[str, Any] = {"choice": choice_told, "comparison": rows}
    told |= {"models": {name: of.told for name, of in outcomes.items()}}
    return told | {"folder": str(folder), "report": str(path)}


def _outcome(name: str, plan: Plan, whole: Path) -> Outcome:
    """A model's ordinary run, and what it says of its methods."""
    folder = run_folder.made(whole / name, name)
    with claimed(folder):
        try:
            left = plan.run(folder, whole)
        except InputError as error:
            raise InputError(f"model {name}: {error}") from error
    with terminal.silent():
        told = run_folder.tell(left)
    return Outcome({method: _evidence(left, method) for method in left.trees}, told)


def _evidence(left: run_folder.Left, method: str) -> Evidence:
    tree, diagnosis = left.trees[method], left.found[method]
    earned = answer.has_earned(tree, diagnosis)
    contradicted = earned and not left.answer.earned
    reason = "converged samplers disagree" if contradicted else answer.reason(tree, diagnosis)
    return Evidence(answer.standing(tree, diagnosis), earned and not contradicted, reason)


def _methods(outcomes: dict[str, Outcome]) -> list[str]:
    """Methods that came to an end under two models or more."""
    names = [name for of in outcomes.values() for name in of.evidence]
    return [name for name in dict.fromkeys(names) if names.count(name) > 1]


def _table(method: str, outcomes: dict[str, Outcome], folder: Path, held: Dataset | None) -> pd.DataFrame | None:
    """Models by one method's predictions: left out one by one, and of rows held out. None where there are neither."""
    trees = {name: draws.load(folder / name / f"{method}.nc") for name, of in outcomes.items() if method in of.evidence}
    by_loo = None if methods.find(method).kind == "point" else elpd.compare(trees)
    if held is None:
        return by_loo
    by_rows = elpd.compare_held_out(trees, held)
    return by_rows if by_loo is None else by_loo.join(by_rows)


def _rows(tables: dict[str, pd.DataFrame], outcomes: dict[str, Outcome], first: str | None) -> pd.DataFrame:
    """All tables in one, the method first by which the models are judged; weights to six decimals."""
    parts = []
    for method in sorted(tables, key=lambda name: name != first):
        part = tables[method].rename_axis("model").reset_index()
        part.insert(0, "method", method)
        part.insert(2, "verdict", [outcomes[model].evidence[method].reason for model in part["model"]])
        parts.append(part)
    return pd.concat(parts, ignore_index=True).round({"weight": 6}) if parts else pd.DataFrame()
