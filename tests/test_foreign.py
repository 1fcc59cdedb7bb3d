"""Draws of other samplers, in the forms in which people have them, become one tree; what cannot be right is told."""

import gzip
import warnings

import arviz_base
import jax
import numpy as np
import pytest
import xarray as xr
from numpyro.infer import MCMC, NUTS
from scipy import stats
from typer.testing import CliRunner

import dpgmm
from dpgmm import Dataset, InputError, from_draws, load_model
from dpgmm.cli import app
from dpgmm.commands import asked
from dpgmm.draws import check, prediction

pytestmark = pytest.mark.quick("draws")
C, T, K, D, N = 2, 40, 3, 2, 60
CENTRES = np.array([[0.0, 0.0], [-2.6, 2.6], [2.6, 2.7]])


def made(dim=D, seed=0):
    """Weights, means, scales and labels of three clusters, under other labels in every draw, and their points."""
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.broadcast_to(np.arange(K), (C, T, K)), axis=-1)
    weights = np.take_along_axis(rng.dirichlet([200, 100, 60], (C, T)), order, -1)
    means = np.take_along_axis(CENTRES[None, None, :, :dim] + rng.normal(0, 0.05, (C, T, K, dim)), order[..., None], 2)
    truth = np.arange(N) % K
    points = CENTRES[truth, :dim] + 0.4 * rng.normal(size=(N, dim))
    labels = np.argsort(order, axis=-1)[..., truth]
    return weights, means, np.full((C, T, K, dim), 0.4), labels, points


def stan(path, chain, packed):
    """A chain as CmdStan writes it: remarks, columns column-major, scales of all components, labels from 1."""
    weights, means, _, labels, _ = (a[chain] if a.ndim > 2 else a for a in made())
    columns = {"lp__": np.arange(T), "stepsize__": np.ones(T), "divergent__": np.zeros(T)}
    columns |= {f"theta.{k + 1}": weights[:, k] for k in range(K)}
    columns |= {f"mu.{k + 1}.{d + 1}": means[:, k, d] for d in range(D) for k in range(K)}
    columns |= {f"sigma.1.{d + 1}": np.full(T, 0.4) for d in range(D)}
    columns |= {f"z.{n + 1}": labels[:, n] + 1 for n in range(N)}
    rows = [",".join(map(repr, map(float, row))) for row in zip(*columns.values(), strict=True)]
    text = "\n".join(["# model = mix", ",".join(columns), "# Adaptation terminated", *rows, "#  Elapsed Time: 0.1", ""])
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


def right(tree):
    """Relabelled, the means are the centres."""
    found = dpgmm.relabel(tree, "ecr_iterative_1").draws["posterior"]["means"].mean(("chain", "draw")).values
    dim = found.shape[1]
    order = lambda a: a[np.argsort(a[:, 0])]
    np.testing.assert_allclose(order(found), order(CENTRES[:, :dim]), atol=0.1)
    return tree


@pytest.mark.parametrize("packed", [False, True])
def test_cmdstan(tmp_path, packed):
    paths = [stan(tmp_path / f"{c}.csv{'.gz' * packed}", c, packed) for c in range(C)]
    tree = right(from_draws(paths, points=made()[-1]))
    assert tree["posterior"]["weights"].shape == (C, T, K)
    np.testing.assert_array_equal(tree["posterior"]["allocations"], made()[3])
    assert "theta was taken for weights" in tree.attrs["notes"]
    assert "z count from 1" in tree.attrs["notes"]
    assert tree["sample_stats"]["log_joint"].shape == (C, T)
    check(tree)


def test_xarray_of_pymc_and_inference_data():
    weights, means, scales, _, points = made(1)
    dataset = xr.Dataset(
        {
            "w": (("chain", "draw", "cluster"), weights),
            "mu": (("chain", "draw", "cluster"), means[..., 0]),
            "sigma": (("chain", "draw", "cluster"), scales[..., 0]),
        }
    )
    observed = xr.Dataset({"y": ("y_dim", points[:, 0])})
    tree = right(from_draws(xr.DataTree.from_dict({"posterior": dataset, "observed_data": observed})))
    other = from_draws(
        dataset.transpose("cluster", "draw", "chain"), points=points, weights="w", means="mu", scales="sigma"
    )
    assert tree["posterior"].to_dataset().equals(other["posterior"].to_dataset())

    class InferenceData:
        posterior, observed_data = dataset, observed

    assert from_draws(InferenceData())["posterior"].to_dataset().equals(tree["posterior"].to_dataset())
    assert dpgmm.diagnose(tree).verdict


def test_tensorflow_probability():
    weights, means, scales, _, points = made()
    logits = np.log(weights) + np.random.default_rng(1).normal(0, 2, (C, T, 1))
    packed = np.stack([scales[..., 0], np.zeros((C, T, K)), scales[..., 1]], axis=-1)
    draws = {"logits": logits, "loc": means, "scale_tril_packed": packed}
    draws = {name: np.swapaxes(a, 0, 1) for name, a in draws.items()}
    tree = right(from_draws(draws, order="draw chain", points=points))
    np.testing.assert_allclose(tree["posterior"]["weights"], weights, rtol=1e-12)
    with pytest.raises(InputError, match=r"logits: negative weights, down to .* give log_weights='logits'"):
        from_draws(draws, order="draw chain", weights="logits", points=points)


@pytest.fixture(scope="module")
def ran():
    """A posterior, and NumPyro's MCMC of its program."""
    posterior = load_model("stick_breaking")(Dataset(made(1)[-1]), truncation=3)
    chain = MCMC(NUTS(posterior.program, max_tree_depth=3), num_warmup=20, num_samples=20, progress_bar=False)
    with pytest.raises(InputError, match=r"this MCMC has drawn nothing yet .*; call its run\(\) first"):
        from_draws(chain)
    chain.run(jax.random.key(0))
    return posterior, chain


def test_numpyro_of_our_own_program_by_whatever_way_it_comes(ran):
    posterior, chain = ran
    tree = from_draws(chain)
    first = jax.tree.map(lambda leaf: leaf[3], chain.get_samples())
    np.testing.assert_allclose(tree["sample_stats"]["log_joint"][0, 3], posterior.log_joint(first), rtol=1e-5)
    components = posterior.components(first)
    np.testing.assert_allclose(tree["posterior"]["weights"][0, 3], components.weights, rtol=1e-5)
    np.testing.assert_allclose(tree["posterior"]["covariances"][0, 3], components.covariances, rtol=1e-5)
    assert "the sites of model stick_breaking were taken for its components" in tree.attrs["notes"]
    assert "diverging" in tree["sample_stats"]
    other = from_draws(chain.get_samples(), posterior=posterior)
    xr.testing.assert_allclose(other["posterior"].to_dataset(), tree["posterior"].to_dataset())
    alone = from_draws(chain.get_samples(group_by_chain=True))
    np.testing.assert_allclose(alone["posterior"]["weights"], tree["posterior"]["weights"], rtol=1e-5)
    with pytest.raises(
        InputError, match=r"site means of model stick_breaking is \(chain, draw, 4, 1\) and the draws have"
    ):
        from_draws(chain, posterior=load_model("stick_breaking")(posterior.data, truncation=4))


@pytest.mark.long
def test_our_own_program_through_arviz_is_as_good_as_ours(ran, tmp_path):
    posterior, chain = ran
    given = arviz_base.from_numpyro(chain)
    for tree in (from_draws(given, posterior=posterior), from_draws(given)):
        np.testing.assert_allclose(tree["posterior"]["means"][0], chain.get_samples()["means"], rtol=1e-5)
        np.testing.assert_allclose(tree["observed_data"]["points"], posterior.data.points)
        assert dpgmm.diagnose(tree).verdict
        assert dpgmm.relabel(tree, "ecr_iterative_1").objective >= 0
        assert dpgmm.partition(tree, starts=1).num_clusters >= 1
        assert dpgmm.switching(tree)[0].per_1000 >= 0
    path = tmp_path / "sites.nc"
    given.to_netcdf(path, engine="h5netcdf")
    result = CliRunner().invoke(app, ["diagnose", str(path)])
    assert result.exit_code == 0, result.output
    assert "stick_logits are stick logits, turned into weights" in result.output


def test_labels_alone_and_ragged_draws():
    rng = np.random.default_rng(0)
    truth = np.repeat([7.0, 3.0], [25, 15])
    labels = np.broadcast_to(truth, (200, 40)).copy()
    labels[rng.random(200) < 0.4, 30] = 7.0
    tree = from_draws({"labels": labels})
    found = dpgmm.partition(tree, "vi", starts=2)
    assert sorted(np.bincount(found.partition.values)) == [15, 25]
    weights, means, scales, _, points = made()
    weights = np.full((C, T, K), 20.0)
    absent = np.zeros((C, T, 1), bool)
    wide = lambda a, value: np.concatenate([a, np.full((*a.shape[:2], 1, *a.shape[3:]), value)], axis=2)
    tree = from_draws(
        {"w": wide(weights, 0.0), "mu": wide(means, np.nan), "sigma": wide(scales, np.nan)}, points=points
    )
    assert "w are counts of 60 points: divided by their sums" in tree.attrs["notes"]
    assert (tree["posterior"]["weights"].values[..., 3:] == absent).all()
    check(tree)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": -np.ones((C, T, K))}, "w: negative weights, down to -1; if they are log weights"),
        ({"w": np.zeros((C, T, K))}, "w: all weights of chain 0, draw 0 are zero"),
        ({"mu": np.ones((C, T, K + 1))}, r"mu: shape \(2, 40, 4\); means of 3 components"),
        ({"mu": np.full((C, T, K), np.nan)}, "mu: not finite where components have weight"),
        (
            {"sigma": np.full((C, T, K), -1.0)},
            "sigma: scales that are not positive, down to -1; if they are logarithms",
        ),
        (
            {"w": np.full((C, T, K), 1.7)},
            "w: weights of a draw sum to 5.1 to 5.1, not to one; .* log_weights='w', else",
        ),
        ({"sigma": np.zeros((C, T, K))}, "sigma: scales that are not positive"),
        ({"sigma": np.ones((C, T, 7))}, r"sigma: shape \(2, 40, 7\); scales of 3 components"),
        ({"sigma": None}, "no scales among w, mu"),
        ({"w": np.full((C, T, K), "a")}, "w: <U1, not numbers"),
        ({"z": np.full((C, T, 5), 0.5)}, "z: labels that are not whole numbers, such as 0.5"),
        ({"z": np.full((C, T, 5), 9)}, "z: labels 9 to 9 of 3 components; expected 0 to 2: give first_label="),
        ({"w": None, "mu": None, "sigma": None, "x": np.ones((C, T))}, "neither weights nor allocations among x"),
    ],
)
def test_what_cannot_be_draws_is_told_in_a_line(change, message):
    weights, means, scales, _, _ = made(1)
    draws = {"w": weights, "mu": means[..., 0], "sigma": scales[..., 0]} | change
    draws = {name: a for name, a in draws.items() if a is not None}
    with pytest.raises(InputError, match=message) as caught:
        from_draws(draws)
    assert "\n" not in str(caught.value)


READINGS = {"scales": lambda s: s, "variances": np.square, "precisions": lambda s: s**-2.0}


@pytest.mark.parametrize("truth", READINGS)
@pytest.mark.parametrize("read", READINGS)
@pytest.mark.parametrize("unit", [1, 20])
def test_a_misreading_of_scales_is_suspected_and_a_right_one_is_not(truth, read, unit):
    """Of well-separated clusters, where any reading may be far better than one Gaussian."""
    weights, means, scales, _, points = made(2)
    draws = {"w": weights, "mu": unit * means, "s": READINGS[truth](unit * scales)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from_draws(draws, points=unit * points, **{read: "s"})
    if truth == read:
        assert not caught
        return
    [warning] = caught
    assert f"s as {read}: the points have a log density of " in str(warning.message)
    assert f"as {truth} they would have " in str(warning.message)


@pytest.mark.parametrize(
    ("truth", "read", "suspected"),
    [
        ("covariances", "precisions", "as covariances they would"),
        ("precisions", "covariances", "as precisions they would"),
        ("diagonal factors", "covariances", "as Cholesky factors they would"),
        ("factors of precisions", "scale_trils", "as Cholesky factors of precisions they would"),
    ],
)
def test_misread_matrices_are_suspected(truth, read, suspected):
    weights, means, _, _, points = made()
    full = np.broadcast_to(0.16 * np.array([[1.0, 0.3], [0.3, 1.0]]), (C, T, K, D, D))
    given = {
        "covariances": full,
        "precisions": np.linalg.inv(full),
        "diagonal factors": np.broadcast_to(0.4 * np.eye(D), full.shape),
        "factors of precisions": np.linalg.cholesky(np.linalg.inv(full)),
    }[truth]
    with pytest.warns(UserWarning, match=suspected):
        from_draws({"w": weights, "mu": means, "s": given}, points=points, **{read: "s"})


def test_a_posterior_of_few_points_in_many_dimensions_is_not_suspected():
    """Twenty points of one Gaussian in ten dimensions: the best Gaussian fits their noise, and draws do not."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 10))
    covariances = np.linalg.inv(stats.wishart.rvs(40, np.eye(10) / 40, 40, random_state=rng))[None, :, None]
    draws = {"w": np.ones((1, 40, 1)), "mu": rng.normal(0, 0.22, (1, 40, 1, 10)), "s": covariances}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = from_draws(draws, points=points, covariances="s")
    best = stats.multivariate_normal(points.mean(axis=0), np.cov(points.T, bias=True)).logpdf(points).mean()
    assert prediction.log_density(tree, points).mean() < best - 1  # Which would be suspicious of many points.


def test_order_of_axes_is_guessed_and_said_or_asked_for():
    weights, means, scales, _, points = made()
    draws = {name: np.swapaxes(a, 0, 1) for name, a in (("w", weights), ("mu", means))}
    tree = from_draws(draws | {"sigma": scales[0, 0]}, points=points)
    np.testing.assert_allclose(tree["posterior"]["weights"], weights)
    assert "w: axes of length 40, 2 were taken for draw, chain (order= says otherwise)" in tree.attrs["notes"]
    few = {name: a[:3] for name, a in draws.items()} | {"sigma": scales[0, 0]}
    with pytest.raises(InputError, match=r"w: shape \(3, 2, 3\); .* Give order='chain draw' or 'draw chain'"):
        from_draws(few, points=points)
    assert from_draws(few, points=points, order="draw chain")["posterior"].sizes["draw"] == 3
    assert from_draws(draws | {"sigma": 0.4}, points=points, order="chain draw")["posterior"].sizes["chain"] == 40


def test_matrices_and_points_of_the_wrong_kind_are_refused():
    weights, means, _, _, points = made()
    lower = np.broadcast_to([[0.4, 0.0], [0.1, 0.4]], (C, T, K, D, D))
    full = lower @ np.swapaxes(lower, -1, -2)
    given = lambda role, s, x=points: from_draws({"w": weights, "mu": means, "s": s}, points=x, **{role: "s"})
    with pytest.raises(InputError, match=r"s: covariances that are lower triangular; .* give scale_trils='s'"):
        given("covariances", lower)
    with pytest.raises(InputError, match=r"s: precisions that are lower triangular; .* times their transpose"):
        given("precisions", lower)
    with pytest.raises(
        InputError, match="s: scale_trils that are symmetric, not lower triangular; give covariances='s'"
    ):
        given("scale_trils", full)
    with pytest.raises(InputError, match="s: scale_trils with entries above the diagonal; transpose them"):
        given("scale_trils", np.swapaxes(lower, -1, -2))
    with pytest.raises(InputError, match="s: covariances that are not positive definite"):
        given("covariances", np.ones_like(full))
    with pytest.raises(InputError, match="points have 1 columns and mu 2; they must agree"):
        given("covariances", full, points[:, :1])
    assert np.allclose(given("scale_trils", lower)["posterior"]["covariances"], full)


def test_dimensions_stacked_or_of_other_names():
    weights, means, scales, _, points = made()
    variables = {"w": weights, "mu": means, "sigma": scales}
    dims = ("chain", "draw", "cluster", "axis")
    whole = xr.Dataset({name: (dims[: a.ndim], a) for name, a in variables.items()})
    whole = whole.assign_coords(chain=range(C), draw=range(T))
    expected = from_draws(whole, points=points)["posterior"].to_dataset()
    stacked = arviz_base.extract(xr.DataTree.from_dict({"posterior": whole}))
    for other in (stacked, stacked.reset_index("sample"), whole.rename(chain="chains", draw="iteration")):
        np.testing.assert_array_equal(from_draws(other, points=points)["posterior"]["means"], expected["means"])
    some = from_draws(stacked.isel(sample=[3, 5, 70]), points=points)
    np.testing.assert_array_equal(some["posterior"]["weights"][0], weights.reshape(-1, K)[[3, 5, 70]])
    assert "sample: not all draws of every chain, taken for the draws of one chain" in some.attrs["notes"]
    with pytest.raises(InputError, match=r"no dimension 'draw' \(found chain, t, .*\); rename one"):
        from_draws(whole.rename(draw="t"), points=points)


def test_rows_of_unequal_length_are_components_that_come_and_go():
    draws = {"w": [[0.5, 0.5], [0.2, 0.3, 0.5]], "mu": [[-1.0, 1.0], [-1.0, 0.0, 1.0]], "sigma": [[1, 1], [1, 1, 1]]}
    tree = from_draws(draws, points=np.linspace(-1, 1, 9))
    assert tree["posterior"]["weights"].values.tolist() == [[[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]
    assert tree["posterior"]["means"].values[0, 1].tolist() == [[-1], [0], [1]]
    assert "mu: rows of unequal length, filled up with NaN for what is absent" in tree.attrs["notes"]
    with pytest.raises(InputError, match=r"w: not an array of numbers .*some rows are numbers"):
        from_draws(draws | {"w": [[0.5, 0.5], [0.2, [0.3], 0.5]]})
    with pytest.raises(InputError, match="w: all weights of chain 1, draw 1 are zero or missing; leave that draw out"):
        from_draws({"w": [[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5]]]})


def test_minus_one_is_absent():
    weights, means, scales, labels, points = made(1)
    wide = lambda a: np.concatenate([a, np.full((C, T, 1, *a.shape[3:]), -1.0)], axis=2)
    tree = from_draws({"w": wide(weights), "mu": wide(means), "sigma": wide(scales)}, points=points)
    assert (tree["posterior"]["weights"][..., K] == 0).all()
    assert (tree["posterior"]["variances"] > 0).all()
    few = np.where(np.arange(N) < 2, -1, labels)
    tree = from_draws({"w": weights, "mu": means, "sigma": scales, "z": few}, points=points)
    assert f"z: {2 * C * T} of {N * C * T} labels are NaN or -1; labels were left out" in tree.attrs["notes"]
    alone = from_draws({"z": few})["posterior"]["allocations"].values
    assert (alone[..., 0] != alone[..., 1]).all()
    assert (alone[..., :2] >= K).all()
    np.testing.assert_array_equal(alone[..., 2:], labels[..., 2:])


def test_ragged_labels_by_path(tmp_path):
    """Names of clusters as floats that are no components' numbers, counts in place of weights, ranked as the labels are."""
    rng = np.random.default_rng(0)
    truth = np.repeat([37.0, 41.0], [25, 15])
    labels = np.where(rng.random((60, 40)) < 0.02, rng.integers(33, 42, (60, 40)), truth)
    counts = [np.unique(row, return_counts=True)[1] for row in labels]
    counts = np.array([np.pad(row, (0, 12 - len(row))) for row in counts], float)
    path = tmp_path / "ragged_labels.npz"
    np.savez(path, labels=labels, points_per_cluster=counts, x=truth)
    tree = from_draws(path, order="draw", weights="points_per_cluster", points="x")
    for read in (from_draws(path, order="draw"), tree):
        found = dpgmm.partition(read, "vi", starts=2)
        assert sorted(np.bincount(found.partition.values)) == [15, 25]
        assert dpgmm.relabel(read, "ecr_iterative_1").draws["posterior"].sizes["draw"] == 60
    np.testing.assert_array_equal(tree["posterior"]["weights"][0] * 40, counts)
    assert "labels: labels are names, and weights in ascending order of those of a draw" in tree.attrs["notes"]
    with pytest.raises(InputError, match="labels alone, no components; they serve"):
        check(from_draws(path))


def test_what_cmdstan_leaves_that_are_no_draws(tmp_path):
    paths = [stan(tmp_path / f"{c}.csv", c, packed=False) for c in range(C)]
    header, *rows = [line for line in paths[0].read_text().splitlines() if not line.startswith("#")]

    def notes(*lines):
        paths[0].write_text("\n".join(lines))
        tree = from_draws(paths, points=made()[-1])
        np.testing.assert_allclose(tree["posterior"]["weights"], made()[0][:, : tree["posterior"].sizes["draw"]])
        return tree.attrs["notes"]

    warm = "0.csv: 7 draws of warm-up were left out"
    assert warm in notes(header, *rows[-7:], "# Adaptation terminated", *rows)
    asked = "#     num_warmup = 7 (Default)", "#     save_warmup = true", "#     thin = 1 (Default)"
    assert warm in notes(*asked, header, *rows[-7:], *rows)
    assert "warm-up" not in notes(asked[0], header, *rows)
    cut = "0.csv: the last line is unfinished and was left out; the chains have 39 to 40 draws: the first 39 of each"
    assert cut in notes(header, *rows[:-1], rows[-1][:-30])
    assert cut in notes(header, *rows[:-1], rows[-1].rpartition(",")[0] + ",-")
    with pytest.raises(InputError, match=r"0\.csv: no finished draw after warm-up"):
        notes(header, *rows[:7], "# Adaptation terminated")
    with pytest.raises(InputError, match=r"0\.csv: 2 numbers a draw under \d+ names; the file is damaged"):
        notes(header, *rows[:7], "1,2", *rows)
    with pytest.raises(InputError, match=r"1\.csv: other variables than in .*0\.csv"):
        notes(header.replace("theta.3", "theta.4"), *rows)


def test_names_on_the_command_line(tmp_path):
    np.savetxt(tmp_path / "y.csv", [1.0, 2.0])
    found = asked.names(f"weights=theta, means=mu,first_label=1,points={tmp_path / 'y.csv'}")
    assert found.pop("points").tolist() == [[1.0], [2.0]]
    assert found == {"weights": "theta", "means": "mu", "first_label": 1}
    with pytest.raises(InputError, match="--names wights=w: give ROLE=NAME; roles are weights, log_weights"):
        asked.names("wights=w")
