"""Small wrong changes, planted one by one, and whether fast tests notice them: ``uv run python tests/planted.py``.

Each is made in a temporary copy of the package; nothing here is touched. A change that is not noticed is named; where it is
harmless, the table says why, and it does not count. Words after the command choose changes by file.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COPIED = "dpgmm", "models", "comparisons", "tests", "pyproject.toml"


class Change(NamedTuple):
    """`old`, which occurs once in `file`, becomes `new`; the fast tests of `tests` should notice. `harmless`: why not."""

    file: str
    old: str
    new: str
    tests: str
    harmless: str = ""


DENSITIES, METHODS = "dpgmm/densities", "dpgmm/methods"
DIAGNOSIS, DIAGNOSTICS = "dpgmm/diagnostics/diagnosis.py", "tests/test_diagnostics.py"
CERTIFICATE, CERTIFIED = f"{METHODS}/certificate.py", "tests/test_certificate.py"
BASE, OF_BASE = f"{DENSITIES}/base_measure.py", "tests/test_base_measure.py"
CONJUGATE, OF_CONJUGATE = f"{DENSITIES}/conjugate.py", "tests/test_conjugate.py"
STICKS, OF_DENSITIES = f"{DENSITIES}/sticks.py", "tests/test_densities.py"
MIXTURE, OF_CONDITIONALS = f"{DENSITIES}/mixture.py", "tests/test_conditionals.py"
SPLIT_MERGE, OF_PARTITIONS = f"{METHODS}/_split_merge.py", "tests/test_kernels_of_partitions.py"
TRANSPORT, RELABELLING = "dpgmm/relabelling/_transport.py", "tests/test_relabelling.py"
RANKS, CALIBRATION = "dpgmm/truth/calibration/ranks.py", "tests/test_calibration.py"
QUANTITIES = "dpgmm/truth/calibration/quantities.py"
COMPRESSION, OF_COMPRESSION = "dpgmm/data/compression.py", "tests/test_compression.py"
BALL, LOSSES = "dpgmm/partitions/_credible_ball.py", "tests/test_partitions.py"
STUDIES, RESTARTS = "tests/test_studies.py", "comparisons/initialisation/restarts.py"

CHOICE, OF_CHOICE = "dpgmm/diagnostics/choice.py", "tests/test_choice.py"

OF_STEPS = "tests/test_methods.py -k 'batch or candidates or rate'"
OF_MANY = "tests/test_many.py -k 'order_of_the_tasks or travels_as_its_file'"
CHANGES = [
    Change(CERTIFICATE, "return 2 * _tails(", "return 0.5 * _tails(", CERTIFIED),
    Change(CERTIFICATE, "TO_COEFFICIENTS[2 * NODES :]", "TO_COEFFICIENTS[2 * NODES + 2 :]", CERTIFIED),
    Change(
        COMPRESSION,
        "return Dataset(*of_piece((points[:, None], weights)), data.name)",
        "return Dataset(points, weights, data.name)",
        OF_COMPRESSION,
    ),
    Change(
        "dpgmm/data/dataset.py",
        "weights * (self.total_weight / weights.sum())",
        "weights",
        "tests/test_data.py",
    ),
    Change("dpgmm/data/dataset.py", "values[start : start + ROWS]", "values[:ROWS]", "tests/test_data.py"),
    Change("dpgmm/data/_blocks.py", "line += block.size", "line += 0", "tests/test_streaming.py"),
    Change("dpgmm/data/_blocks.py", "line += len(lines) - len(rest)", "line += len(lines)", "tests/test_streaming.py"),
    Change("dpgmm/data/_columns.py", "rows.stop + 1]", "rows.stop]", "tests/test_streaming.py"),
    Change("dpgmm/data/_streaming.py", "if read.kinds() == kinds:", "if True:", "tests/test_streaming.py"),
    Change(
        "dpgmm/diagnostics/importance.py",
        "np.where(lost, np.inf, np.atleast_1d(k))",
        "np.atleast_1d(k)",
        DIAGNOSTICS,
    ),
    Change(f"{METHODS}/_batches.py", "data.weights[rows] * (len(data.points) / size)", "data.weights[rows]", OF_STEPS),
    Change(f"{METHODS}/svi.py", "means[:since].min() - 2 * errors[last]", "means[:since].min()", OF_STEPS),
    Change(f"{METHODS}/svi.py", "jnp.argmax(density, axis=1)", "jnp.argmin(density, axis=1)", OF_STEPS),
    Change(
        "dpgmm/densities/passes.py", "likelihood, omega / total", "likelihood, 1 / total", "tests/test_densities.py"
    ),
    Change(
        "dpgmm/densities/passes.py",
        "jnp.where(jnp.arange(size) >= (i + 1) * size - len(points), omega, 0)",
        "omega",
        "tests/test_densities.py",
    ),
    Change(
        "dpgmm/densities/passes.py", "every[-1, count * size - len(points) :]", "every[-1]", "tests/test_densities.py"
    ),
    Change(
        "dpgmm/densities/passes.py",
        "*(random.fold_in(key, i) for key in keys)",
        "*keys",
        "tests/test_densities.py",
    ),
    Change("dpgmm/model/programs.py", "mesh, passes.in_single_precision()", "mesh", "tests/test_methods.py"),
    Change("dpgmm/model/recipes.py", "if Origin.of(self.name) != self:", "if False:", OF_MANY),
    Change(f"{METHODS}/many.py", "name, first = window[0]", "name, first = window[-1]", OF_MANY),
    Change(f"{METHODS}/cavi.py", "leaf / share, s), prior)", "leaf, s), prior)", "tests/test_cavi.py"),
    Change(CHOICE, "min(of[name].standing", "max(of[name].standing", OF_CHOICE),
    Change(CHOICE, "max(APART * dse, SMALL)", "APART * dse", OF_CHOICE),
    Change(CHOICE, "if not ahead > APART * dse", "if not ahead > dse", OF_CHOICE),
    Change(
        CHOICE,
        'reason}" for model, of in evidence.items() if not of',
        'reason}" for model, of in evidence.items() if of',
        OF_CHOICE,
    ),
    Change(
        CHOICE,
        "return Choice(sentence, best, method, not reservations",
        "return Choice(sentence, best, method, True",
        OF_CHOICE,
    ),
    Change(
        "dpgmm/diagnostics/elpd.py",
        "over_points(values - best)",
        "over_points(values)",
        f"{OF_CHOICE} -k held_out_rows",
    ),
    Change(
        "dpgmm/commands/comparing_models.py",
        "[model] if dot else models",
        "models",
        "tests/test_comparing_models.py -k setting",
    ),
    Change(CERTIFICATE, "jnp.max(jnp.abs", "jnp.mean(jnp.abs", CERTIFIED),
    Change(CERTIFICATE, "jnp.abs(exact - approximate)", "exact - approximate", CERTIFIED),
    Change(CERTIFICATE, "np.argsort(narrowest)[:NARROWEST]", "np.argsort(-narrowest)[:NARROWEST]", CERTIFIED),
    Change(CERTIFICATE, "weights * full.total_weight >= 1", "weights >= 0", CERTIFIED),
    Change(CERTIFICATE, "evenly(len(weights), SPREAD), ", "", CERTIFIED),
    Change(
        f"{DENSITIES}/gaussian.py",
        'return jnp.einsum("...de,...e->...d", scale_tril, noise)',
        'return jnp.einsum("...ed,...e->...d", scale_tril, noise)',
        f"{OF_DENSITIES} -k coloured",
    ),
    Change(f"{DENSITIES}/gaussian.py", "- (df + dim + 1) *", "- (df + dim) *", f"{OF_DENSITIES} -k wishart"),
    Change(
        f"{DENSITIES}/gaussian.py",
        "powers = jnp.arange(dim, 0, -1)",
        "powers = jnp.arange(1, dim + 1)",
        f"{OF_DENSITIES} -k wishart",
    ),
    Change(
        f"{DENSITIES}/distributions.py",
        "colour(factors[labels]",
        "colour(factors[::-1][labels]",
        f"{OF_DENSITIES} -k moments_of",
    ),
    Change(f"{DENSITIES}/distributions.py", "+ waiting", "- waiting", f"{OF_DENSITIES} -k follow_their_law"),
    Change(
        STICKS,
        "m * jnp.log(concentration) + (concentration - 1)",
        "m * jnp.log(concentration) + concentration",
        f"{OF_DENSITIES} -k three_densities",
    ),
    Change(STICKS, "[..., 1:-1], axis=-1)", "[..., 1:], axis=-1)", f"{OF_DENSITIES} -k three_densities"),
    Change(STICKS, "float(4 * num_points", "float(2 * num_points", "tests/test_defaults.py -k bound"),
    Change(
        MIXTURE,
        "0.5 * means.shape[-1] * gaussian.LOG_2PI",
        "0.5 * gaussian.LOG_2PI",
        f"{OF_DENSITIES} -k mixture_against",
    ),
    Change(MIXTURE, "empty @ jnp.where(carries, omega, 1.0)", "empty @ carries", f"{DIAGNOSTICS} -k counts"),
    Change(BASE, "math.sqrt(df - size - 1)", "math.sqrt(df - size)", OF_BASE),
    Change(BASE, "jnp.sqrt(base.df - size - 1) * sd", "jnp.sqrt(base.df - size) * sd", OF_BASE),
    Change(BASE, "kappa = component_scale**2 if", "kappa = component_scale if", OF_BASE),
    Change(BASE, "min(KAPPA, component_scale**2)", "min(KAPPA, component_scale)", OF_BASE),
    Change(BASE, "df = 2.0 * (size + 1)", "df = 2.0 * size + 1", OF_BASE),
    Change(BASE, "jnp.exp(0.3 * random", "jnp.exp(0.6 * random", OF_BASE),
    Change(CONJUGATE, "0.5 * dim * held.sum()", "0.5 * held.sum()", OF_CONJUGATE),
    Change(CONJUGATE, "product(moved, far, base)", "product(sums, far, base)", OF_CONJUGATE),
    Change(CONJUGATE, "means.dtype) / jnp.sqrt(kappa))", "means.dtype) * jnp.sqrt(kappa))", OF_CONJUGATE),
    Change(CONJUGATE, "counts * LOG_PI", "LOG_PI", OF_CONJUGATE),
    Change(f"{DENSITIES}/concentration.py", "num_clusters - 1) / (num", "num_clusters) / (num", OF_CONDITIONALS),
    Change(f"{DENSITIES}/concentration.py", "(left + width, width)", "(left + 3 * width, width)", OF_CONDITIONALS),
    Change(
        f"{DENSITIES}/concentration.py",
        "width: float = 1.0",
        "width: float = 2.0",
        OF_CONDITIONALS,
        "any width leaves the density alone, which is tested: it is a matter of speed",
    ),
    Change(
        SPLIT_MERGE, "_given_others(without, base)", "_given_others(statistics, base)", f"{OF_PARTITIONS} -k enumerated"
    ),
    Change(SPLIT_MERGE, "random.uniform(key_sides,", "random.uniform(key_accept,", f"{OF_PARTITIONS} -k enumerated"),
    Change(
        SPLIT_MERGE,
        "jnp.stack([points[i], points[j]])",
        "jnp.stack([points[i], points[i]])",
        f"{OF_PARTITIONS} -k split",
        "a launch may be anything: its probability is weighed",
    ),
    Change(f"{METHODS}/blocked_gibbs.py", "jnp.ones(len(counts), bool)", "counts > 0", OF_CONDITIONALS),
    Change(
        f"{METHODS}/budgets.py", "max(2, restarts // 4)", "max(1, restarts // 4)", "tests/test_methods.py -k budget"
    ),
    Change(DIAGNOSIS, "ess / seconds", "ess * seconds", f"{DIAGNOSTICS} -k numbers_of_the_table"),
    Change(
        DIAGNOSIS,
        'float(stats["log_joint"].max())',
        'float(stats["log_joint"].mean())',
        f"{DIAGNOSTICS} -k every_number",
    ),
    Change(DIAGNOSIS, 'mean("active_components")', 'mean("occupied_clusters")', f"{DIAGNOSTICS} -k every_number"),
    Change(DIAGNOSIS, ".mean(axis=1).max()\n", ".mean(axis=1).min()\n", f"{DIAGNOSTICS} -k numbers_of_the_chains"),
    Change(DIAGNOSIS, "if not k_hat <= POOR", "if k_hat <= POOR", f"{DIAGNOSTICS} -k guides_carry"),
    Change(
        DIAGNOSIS,
        'inner.max() < THRESHOLD else "differ"',
        'inner.min() < THRESHOLD else "differ"',
        f"{DIAGNOSTICS} -k restarts_of_a_guide",
    ),
    Change(
        "dpgmm/diagnostics/verdicts.py",
        '- 4 * chains["R*, st',
        '- 40 * chains["R*, st',
        f"{DIAGNOSTICS} -k r_star_tells",
    ),
    Change("dpgmm/diagnostics/verdicts.py", "drift = max(", "drift = min(", f"{DIAGNOSTICS} -k one_drifts"),
    Change(
        "dpgmm/diagnostics/verdicts.py",
        "shares = [0.0]",
        "shares = [1e-9]",
        f"{DIAGNOSTICS} -k 'test_verdict and fine'",
    ),
    Change("dpgmm/diagnostics/verdicts.py", "(CONVERGED**2 - 1)", "(CONVERGED - 1)", f"{DIAGNOSTICS} -k nearly"),
    Change(
        "dpgmm/diagnostics/reference_points.py",
        "int(np.argmax(log_joint_of",
        "int(np.argmin(log_joint_of",
        f"{DIAGNOSTICS} -k reference_partition",
    ),
    Change(
        "dpgmm/diagnostics/reference_points.py",
        "base_measure.is_tied(found.covariance)",
        "False",
        f"{DIAGNOSTICS} -k tied",
    ),
    Change(
        "dpgmm/diagnostics/reference_points.py",
        "between = max(",
        "between = min(",
        f"{DIAGNOSTICS} -k numbers_of_the_chains",
    ),
    Change(
        "dpgmm/diagnostics/r_star.py",
        "kept = int(min(length, np.nan_to_num(ess) / num_chains, ",
        "kept = int(min(length, ",
        f"{DIAGNOSTICS} -k slow_chain",
    ),
    Change(
        "dpgmm/diagnostics/intervals.py",
        "float(max(error(of_batches)",
        "float(min(error(of_batches)",
        f"{STUDIES} -k 'batch or apart'",
    ),
    Change(BALL, "np.ceil(level", "np.floor(level", f"{LOSSES} -k ball"),
    Change(BALL, "clusters == clusters.min()", "clusters <= clusters.max()", f"{LOSSES} -k ball"),
    Change(
        TRANSPORT,
        "float((weights * wasserstein(*moved, *new)).sum())",
        "float(wasserstein(*moved, *new).sum())",
        f"{RELABELLING} -k transport",
    ),
    Change(
        TRANSPORT, "shares = weights / np.where", "shares = (weights > 0) / np.where", f"{RELABELLING} -k transport"
    ),
    Change(
        TRANSPORT,
        "squared + np.maximum(traces",
        "squared + 0.5 * np.maximum(traces",
        f"{RELABELLING} -k 'transport or wasserstein'",
    ),
    Change(
        "dpgmm/relabelling/permanent.py",
        "log_values[..., row, column] - total",
        "log_values[..., column, row] - total",
        "tests/test_assignment.py",
    ),
    Change(
        "dpgmm/relabelling/assignment.py",
        "np.where(slots[:, None], costs, closed)",
        "costs",
        "tests/test_assignment.py",
    ),
    Change(RANKS, "(ranks.draws + 1)", "ranks.draws", f"{CALIBRATION} -k 'hand or uniform or all_signs or scipys'"),
    Change(
        RANKS, "np.arange(len(p), 0, -1)", "len(p)", f"{CALIBRATION} -k 'hand or uniform or all_signs or scipys'", ""
    ),
    Change(
        "dpgmm/truth/calibration/uniformity.py",
        "binom.sf(counts - 1, size, places)\n    return",
        "binom.sf(counts, size, places)\n    return",
        f"{CALIBRATION} -k 'hand or uniform or all_signs or scipys'",
    ),
    Change(
        QUANTITIES,
        "jnp.prod(jax.nn.softmax",
        "jnp.sum(jax.nn.softmax",
        f"{CALIBRATION} -k 'hand or uniform or all_signs or scipys'",
    ),
    Change(
        QUANTITIES,
        "+ jnp.sum((d.means - centre) ** 2, axis=-1)",
        "",
        f"{CALIBRATION} -k 'hand or uniform or all_signs or scipys'",
    ),
    Change(
        "dpgmm/truth/exact.py",
        "(num_components - 1) / a",
        "num_components / a",
        "tests/test_defaults.py -k bound",
    ),
    Change(
        "dpgmm/truth/exact.py",
        "choices = labels.max(axis=1) + 2",
        "choices = labels.max(axis=1) * 0 + 2",
        "tests/test_exact.py",
    ),
    Change(COMPRESSION, "/ width + 0.5)", "/ width)", OF_COMPRESSION),
    Change(COMPRESSION, "range_ / 1.349", "range_", OF_COMPRESSION),
    Change(
        "dpgmm/data/dataset.py",
        "self._sum(lambda x: x) / self.total_weight",
        "self._sum(lambda x: x) / self.size",
        "tests/test_data.py",
    ),
    Change(
        "dpgmm/data/dataset.py",
        "((x != first) & (w > 0)[:, None]).any(axis=0)",
        "(x != first).any(axis=0)",
        "tests/test_data.py",
    ),
]


def noticed(change: Change, copy: Path) -> bool:
    """Whether the fast tests fail with the change in the copy, which is then as it was."""
    file = copy / change.file
    text = file.read_text()
    if text.count(change.old) != 1:
        raise SystemExit(
            f"{change.file}: {change.old!r} occurs {text.count(change.old)} times; give a text that occurs once"
        )
    file.write_text(text.replace(change.old, change.new))
    try:
        return run(change.tests, copy) == 1
    finally:
        file.write_text(text)


def run(tests: str, copy: Path) -> int:
    """Exit status of pytest on these tests of the copy: 0 all pass, 1 some fail, else it could not run them."""
    command = f"{sys.executable} -m pytest -n 0 -q -x -p no:cacheprovider -m 'not slow and not long' {tests}"
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, shell=True, cwd=copy, env=environment, capture_output=True, check=False).returncode


def copied(folder: Path) -> Path:
    for name in COPIED:
        of = ROOT / name
        shutil.copytree(of, folder / name) if of.is_dir() else shutil.copy(of, folder / name)
    return folder


def main(words: Iterable[str] = ()) -> float:
    """Plant every change whose file has one of the words in its name, or all; print each, and the share that is noticed."""
    words = list(words)
    chosen = [change for change in CHANGES if not words or any(word in change.file for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        for tests in sorted({change.tests for change in chosen}):
            if run(tests, copy) != 0:
                raise SystemExit(f"{tests}: fails, or is empty, without any change, and can notice nothing")
        found = []
        for change in chosen:
            found.append(noticed(change, copy))
            verdict = "noticed" if found[-1] else f"harmless: {change.harmless}" if change.harmless else "NOT NOTICED"
            print(f"{verdict:12} {change.file}: {change.old.strip()!r} became {change.new.strip()!r}", flush=True)
    harmful = [seen for seen, change in zip(found, chosen, strict=True) if seen or not change.harmless]
    share = sum(harmful) / len(harmful)
    print(f"{sum(harmful)} of {len(harmful)} wrong changes noticed: {share:.0%}")
    return share


if __name__ == "__main__":
    main(sys.argv[1:])
