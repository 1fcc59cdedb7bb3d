"""`dpgmm compare` and `dpgmm fit`: runs that leave a folder or a file, and that go on where they were cut off."""

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

import xarray as xr

from .. import diagnostics, draws, methods
from ..data import Dataset, datasets
from ..data.holdout import hold_out
from ..errors import InputError, TimeIsOver
from ..methods import budgets
from ..model.posterior import Posterior
from ..report import run_folder, terminal
from . import asked
from ._folder import BLOCKS, begun, claimed, requested
from .document import Document


@dataclasses.dataclass(frozen=True)
class Request:
    """What a comparison was asked for: all that it is to be run again from."""

    data: str
    model: str = "stick_breaking"
    methods: str | None = None
    truncation: int | None = None
    settings: list[str] | None = None
    columns: str | None = None
    weights: str | None = None
    drop_missing: bool = False
    missing: list[str] | None = None
    chains: int | None = None
    warmup: int | None = None
    draws: int | None = None
    restarts: int | None = None
    option: list[str] | None = None
    seed: int = 0
    compression: bool = True
    holdout: float | None = None
    time_budget: str | None = None
    quick: bool = False

    def placed(self) -> "Request":
        """The same with data, model and methods by whole paths, so that it means the same from anywhere."""
        place = lambda name: str(Path(name).resolve()) if Path(name).is_file() else name
        data = self.data if self.data in datasets.REGISTRY else place(self.data)
        several = None if self.methods is None else ",".join(place(m.strip()) for m in self.methods.split(","))
        return dataclasses.replace(self, data=data, model=place(self.model), methods=several)


def compare(request: Request, out: Path | None, *, overwrite: bool) -> Document:
    """A comparison from its beginning."""
    plan = Plan(request, *read(request))
    folder = run_folder.made(out, plan.posterior.data.name)
    with claimed(folder):
        begun(folder, dataclasses.asdict(request.placed()), overwrite=overwrite)
        return run_folder.tell(plan.run(folder))


def resume(folder: Path) -> Document:
    """A comparison that was cut off: methods that finished are read, the next goes on from its blocks."""
    request = again(folder, requested(folder))
    with claimed(folder):
        return run_folder.tell(Plan(request, *read(request)).run(folder))


def again(folder: Path, found: dict[str, Any]) -> Request:
    """The request that a run's folder keeps. Raises `InputError` where its data cannot be read a second time."""
    request = Request(**found)
    if request.data == "-":
        raise InputError(f"{folder}: its data came from standard input; run it again, from a file")
    return request


def read(request: Request) -> tuple[Dataset, Dataset | None]:
    """The points to fit, and those held out, if any are to be."""
    points = _points(request)
    return (points, None) if request.holdout is None else hold_out(points, request.holdout, request.seed)


class Plan:
    """Posterior, methods and their options; found wrong before anything is written."""

    def __init__(self, request: Request, points: Dataset, held: Dataset | None, *, named: bool = False):
        self.request, self.held = request, held
        self.budget = asked.seconds(request.time_budget)
        self.posterior = asked.posterior(request.model, points, request.truncation, request.settings, named=named)
        wanted = request.methods
        self.names = methods.suited(self.posterior) if wanted is None else asked.method_names(wanted)
        for name in self.names:
            methods.check(name, self.posterior)
        self.options = _options(request, self.names)

    def only(self, names: list[str]) -> None:
        """Run these of its methods alone."""
        self.request = dataclasses.replace(self.request, methods=",".join(names))
        self.names, self.options = names, {name: self.options[name] for name in names}

    def run(self, folder: Path, whole: Path | None = None) -> run_folder.Left:
        """Every method in turn, each saved when it is done, and what a comparison leaves.

        `whole`: the folder that goes on with the run, where this one is a part of another.
        """
        trees, start, stopped = {}, time.perf_counter(), False
        try:
            for name in self.names:
                trees |= self._one(name, folder)
        except KeyboardInterrupt:
            done = ", ".join(trees) or "none"
            terminal.console.print(
                f"[yellow]Stopped. Finished methods are saved in {folder}: {done}. --resume {whole or folder} goes on.[/]"
            )
            if not trees:
                raise
            stopped = True
        if not trees:
            raise InputError("no method came to an end in its time; give more of it with --time-budget")
        settings = self._settings() | {"wall_seconds": time.perf_counter() - start, "stopped": stopped}
        left = run_folder.leave(folder, trees, settings, self.held)
        if stopped:
            run_folder.tell(left)
            raise KeyboardInterrupt
        shutil.rmtree(folder / BLOCKS, ignore_errors=True)
        return left

    def _one(self, name: str, folder: Path) -> dict[str, xr.DataTree]:
        """The draws of a method under its name; nothing where its time was over before there were any."""
        path = folder / f"{name}.nc"
        if path.is_file():
            return {name: draws.load(path)}
        try:
            tree = terminal.fitted(
                self.posterior,
                name,
                self.request.seed,
                self.options[name] | {"blocks": folder / BLOCKS, "time_budget": self.budget},
                compression=self.request.compression,
            )
        except TimeIsOver as error:
            terminal.console.print(f"[yellow]{name}: {error}.[/]")
            return {}
        draws.save(tree, path)
        if "stopped" in tree.attrs:
            terminal.console.print(f"[yellow]{name} ended {tree.attrs['stopped']}.[/]")
        return {name: tree}

    def _settings(self) -> dict[str, Any]:
        """What run.json says of the request."""
        request = self.request
        return {
            "data": request.data,
            "read": self.posterior.data.notes,
            "model": request.model,
            "model_options": self.posterior.options,
            "methods": self.names,
            "seed": request.seed,
            "compression": request.compression,
            "holdout": None if self.held is None else {"share": request.holdout, "rows": self.held.size},
            "time_budget": self.budget,
            "quick": request.quick,
            "method_options": self.options,
        }


def fit(request: Request, out: Path) -> Document:
    """One method, and a file of its draws."""
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it, or give --out another")
    points = _points(request)
    posterior: Posterior = asked.posterior(request.model, points, request.truncation, request.settings)
    if len(names := asked.method_names(request.methods or "nuts")) > 1:
        raise InputError(f"fit takes one method, found {', '.join(names)}; `dpgmm compare` takes several")
    [name] = names
    given = _options(request, names)[name] | {"time_budget": asked.seconds(request.time_budget)}
    tree = terminal.fitted(posterior, name, request.seed, given, compression=request.compression)
    draws.save(tree, out)
    told = terminal.show(tree, diagnostics.diagnose(tree))
    terminal.console.print(f"Saved {out}")
    return {"method": name, **told, "saved": str(out)}


def _points(request: Request) -> Dataset:
    missing = {"drop_missing": request.drop_missing, "missing": request.missing}
    return asked.data_set(request.data, request.columns, request.weights, **missing)


def _options(request: Request, names: list[str]) -> dict[str, dict[str, Any]]:
    given = budgets.Budget(request.chains, request.warmup, request.draws, request.restarts)
    return budgets.options_by_method(names, given, request.option or [], quick=request.quick)
