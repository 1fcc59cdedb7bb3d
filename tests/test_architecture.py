"""The house: its rooms, no function in a module's place, no module too long, and what importing it does not load."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import dpgmm

PACKAGE = Path(dpgmm.__file__).parent
ROOMS = {
    "commands",
    "sklearn",
    *("data", "densities", "model", "draws", "methods", "relabelling", "partitions", "labels"),
    *("diagnostics", "truth", "report"),
}
ROOT = PACKAGE.parent
FILES = {"__init__.py", "__main__.py", "errors.py", "cli.py", "py.typed"}
LONGEST = 350
OLD_PATHS = [
    "base_measure",
    "concentration",
    "conjugate",
    "distributions",
    "gaussian",
    "mixture",
    "sticks",
    "transforms",
    "posterior",
    "exact",
]


def shadowed(package: ModuleType) -> list[str]:
    """Modules below a package in whose place it has something else of the same name."""
    found = []
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        here = getattr(package, info.name.rpartition(".")[2], module)
        found += [] if isinstance(here, ModuleType) else [info.name]
        found += shadowed(module) if info.ispkg else []
    return found


@pytest.mark.quick("architecture")
def test_every_room_has_a_quick_test():
    """By what their marks say: `pytest -m quick` looks at something in each."""
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    marked = {room for source in sources for room in re.findall(r"pytest\.mark\.quick\(\"(\w+)\"\)", source)}
    assert marked - {"architecture"} == ROOMS | {"cli", "comparisons"}


@pytest.mark.quick("architecture")
def test_the_package_is_its_rooms():
    assert {p.name for p in PACKAGE.iterdir()} - {"__pycache__", "_models", "_comparisons"} == ROOMS | FILES


@pytest.mark.quick("architecture")
def test_no_function_shadows_its_module(monkeypatch):
    assert shadowed(dpgmm) == []
    monkeypatch.setattr(dpgmm.partitions, "losses", dpgmm.partition)
    assert shadowed(dpgmm) == ["dpgmm.partitions.losses"]


def test_no_module_is_too_long():
    lengths = {str(p.relative_to(PACKAGE)): len(p.read_text().splitlines()) for p in PACKAGE.rglob("*.py")}
    assert {name: n for name, n in lengths.items() if n > LONGEST} == {}


def test_importing_loads_no_matplotlib():
    program = "import dpgmm, sys; print([m for m in ('matplotlib', 'arviz_plots', 'jinja2') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("name", OLD_PATHS)
def test_a_model_file_may_import_what_it_always_did(name):
    assert importlib.import_module(f"dpgmm.{name}") is getattr(dpgmm, name)


def test_calibration_still_has_its_picture():
    assert dpgmm.calibration.picture is importlib.import_module("dpgmm.report.calibration_plots").picture


def test_the_version_is_told():
    for flags in (["-m", "dpgmm", "--version"],):
        ran = subprocess.run([sys.executable, *flags], capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == f"dpgmm {dpgmm.__version__}"


@pytest.mark.quick("architecture")
def test_a_function_that_takes_more_than_a_line_has_a_def():
    """Assigned lambdas, which ruff is told to leave alone, are mathematics of one line."""
    sources = [path for room in ("dpgmm", "models", "comparisons", "tests") for path in ROOT.glob(f"{room}/**/*.py")]
    longer = [
        f"{path.relative_to(ROOT)}, line {node.lineno}"
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda) and node.end_lineno != node.lineno
    ]
    assert len(sources) > 100
    assert longer == []
