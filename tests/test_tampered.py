"""Files of draws that somebody has changed: told in a line when they are loaded, or as good as they were."""

import numpy as np
import pytest
import xarray as xr
from made_up import from_the_prior

import dpgmm
from dpgmm import Dataset, InputError, load_model
from dpgmm.draws import check

pytestmark = pytest.mark.quick("draws")
N = 12


@pytest.fixture(scope="module")
def tree():
    """Two chains of 20 draws, three components in the plane, with labels."""
    points = np.random.default_rng(0).normal(size=(N, 2))
    posterior = load_model("stick_breaking")(Dataset(points), truncation=3)
    made = from_the_prior(posterior, "nuts", chains=2, draws_per_chain=20, keep_allocations=True)
    made.attrs |= {"kind": "sampler", "compression": "", "columns": "[]"}
    return made


def put(group, name, place, value):
    """One entry is another."""

    def change(tree):
        array = tree[group][name].values.astype(np.result_type(tree[group][name].dtype, np.asarray(value).dtype)).copy()
        array[place] = value
        replaced(group, name, lambda v: v.copy(data=array))(tree)

    return change


def replaced(group, name, by):
    """A variable is what `by` makes of it."""

    def change(tree):
        dataset = tree[group].to_dataset()
        new = by(dataset[name])
        tree[group] = xr.DataTree(dataset.drop_vars(name).assign({name: new}))

    return change


def renamed(group, old, new):
    return lambda tree: tree.__setitem__(group, xr.DataTree(tree[group].to_dataset().rename({old: new})))


def dropped(group, name):
    return lambda tree: tree.__setitem__(group, xr.DataTree(tree[group].to_dataset().drop_vars(name)))


def typed(group, name, kind):
    return replaced(group, name, lambda v: v.astype(kind))


def fewer(group, **at):
    return lambda tree: tree.__setitem__(group, xr.DataTree(tree[group].to_dataset().isel(at)))


def told(**attributes):
    return lambda tree: tree.attrs.update(attributes)


def untold(*names):
    return lambda tree: [tree.attrs.pop(name) for name in names]


def without(group):
    return lambda tree: tree.__delitem__(group)


P, S, O = "posterior", "sample_stats", "observed_data"
WRONG = {
    "negative weight": (put(P, "weights", (1, 2, 0), -0.1), "weights of chain 1, draw 2, component 0 is -0.1"),
    "weights that sum to more": (put(P, "weights", (0, 3), 2 / 3), "weights of chain 0, draw 3 sum to 2"),
    "all weights nought": (replaced(P, "weights", lambda v: v * 0), "weights of chain 0, draw 0 sum to 0"),
    "log weights": (replaced(P, "weights", np.log), "weights of chain 0, .* log weights are taken by"),
    "weight NaN": (put(P, "weights", (0, 0, 0), np.nan), "posterior/weights is not finite"),
    "weights of text": (typed(P, "weights", str), "posterior/weights holds"),
    "weights that are true": (typed(P, "weights", bool), "posterior/weights holds"),
    "weights of no chain": (replaced(P, "weights", lambda v: v[0]), "posterior/weights has dimensions"),
    "weights turned": (
        replaced(P, "weights", lambda v: v.transpose("draw", "chain", "component")),
        r"weights has dimensions \('draw', 'chain', 'component'\), expected \('chain', 'draw', 'component'\)",
    ),
    "no weights": (dropped(P, "weights"), "posterior/weights has dimensions None"),
    "mean infinite": (put(P, "means", (0, 0, 0, 0), np.inf), "posterior/means is not finite"),
    "mean NaN": (put(P, "means", (1, 0, 2, 1), np.nan), "posterior/means is not finite"),
    "mean without square": (put(P, "means", (0, 0, 0, 0), 1e200), r"posterior/means holds numbers beyond 1e\+100"),
    "no means": (dropped(P, "means"), "posterior/means has dimensions None"),
    "means of text": (typed(P, "means", str), "posterior/means holds"),
    "means of one dimension": (replaced(P, "means", lambda v: v[..., 0]), "posterior/means has dimensions"),
    "variance nought": (put(P, "covariances", (0, 0, 0, 0, 0), 0.0), "variances of 0; they must be positive"),
    "variance negative": (put(P, "covariances", (1, 3, 2, 1, 1), -2.0), "variances of -2; they must be positive"),
    "covariance NaN": (put(P, "covariances", (0, 0, 0, 1, 0), np.nan), "posterior/covariances is not finite"),
    "covariance not symmetric": (put(P, "covariances", (0, 0, 0, 1, 0), 9.0), "are not all symmetric"),
    "covariance indefinite": (
        put(P, "covariances", (0, 0, 0), np.array([[1.0, 2.0], [2.0, 1.0]])),
        "not all positive definite",
    ),
    "covariance singular": (put(P, "covariances", (0, 0, 0), 1.0), "not all positive definite"),
    "Cholesky factors": (
        replaced(P, "covariances", lambda v: v.copy(data=np.linalg.cholesky(v.values + 0.1))),
        "not all symmetric",
    ),
    "covariances not square": (fewer(P, dim_=[0]), "2 x 1 matrices; covariances are square"),
    "no covariances": (dropped(P, "covariances"), "posterior/covariances has dimensions None"),
    "concentration negative": (put(P, "concentration", (0, 0), -1.0), "concentration is not positive"),
    "concentration NaN": (put(P, "concentration", (0, 0), np.nan), "concentration is not finite"),
    "concentration of a component": (
        replaced(P, "concentration", lambda v: v.expand_dims(component=3, axis=2)),
        "posterior/concentration has dimensions",
    ),
    "component renamed": (renamed(P, "component", "k"), "posterior/weights has dimensions"),
    "chain renamed": (renamed(P, "chain", "c"), "posterior/weights has dimensions"),
    "draw renamed": (renamed(P, "draw", "iteration"), "posterior/weights has dimensions"),
    "dim renamed": (renamed(P, "dim", "d"), "posterior/means has dimensions"),
    "no posterior": (without(P), "no group 'posterior'"),
    "no points": (without(O), "no group 'observed_data'"),
    "no draws": (fewer(P, draw=[]), "no draw; give at least"),
    "no chains": (fewer(P, chain=[]), "no chain; give at least"),
    "no components": (fewer(P, component=[]), "no component; give at least"),
    "a chain less": (fewer(P, chain=[0]), "sample_stats/allocations has dimensions|and there are"),
    "point NaN": (put(O, "points", (5, 0), np.nan), "observed_data/points is not finite"),
    "points renamed": (renamed(O, "points", "y"), "observed_data/points must have dimensions"),
    "points of text": (typed(O, "points", str), "observed_data/points holds"),
    "points of one dimension": (fewer(O, dim=[0]), "points of 1 dimensions and means of 2"),
    "points turned": (replaced(O, "points", lambda v: v.T), "observed_data/points must have dimensions"),
    "a point less": (fewer(O, obs=range(N - 1)), f"has {N} observations; there are {N - 1}"),
    "no point": (fewer(O, obs=[]), "give at least one point"),
    "weight of a point negative": (put(O, "point_weights", 3, -1.0), "point_weights must be 0 or more"),
    "weight of a point NaN": (put(O, "point_weights", 3, np.nan), "point_weights is not finite"),
    "weights of points nought": (replaced(O, "point_weights", lambda v: v * 0), "point_weights must be 0 or more"),
    "weights of points alone": (replaced(O, "point_weights", lambda v: v[0]), "point_weights has dimensions"),
    "label -1": (
        put(S, "allocations", (0, 0, 0), np.int64(-1)),
        "allocations holds -1 to 2; expected whole numbers from 0 to 2",
    ),
    "label 99": (put(S, "allocations", (0, 0, 0), 99), "allocations holds 0 to 99"),
    "label 0.5": (put(S, "allocations", (0, 0, 0), 0.5), "allocations holds 0 to 2; expected whole"),
    "label NaN": (put(S, "allocations", (0, 0, 0), np.nan), "allocations is not finite"),
    "labels of text": (typed(S, "allocations", str), "allocations holds"),
    "labels of no chain": (replaced(S, "allocations", lambda v: v[0]), "allocations has dimensions"),
    "log joint of text": (typed(S, "log_joint", str), "sample_stats/log_joint holds"),
    "log joint of no chain": (replaced(S, "log_joint", lambda v: v[0]), "sample_stats/log_joint has dimensions"),
    "log likelihood of points": (
        replaced(S, "total_log_likelihood", lambda v: v.expand_dims(obs=N, axis=2)),
        "sample_stats/total_log_likelihood has dimensions",
    ),
    "statistics of fewer draws": (fewer(S, draw=range(10)), "allocations has dimensions|and there are"),
    "statistics turned": (
        replaced(S, "occupied_clusters", lambda v: v.transpose("draw", "chain")),
        r"occupied_clusters has dimensions \('draw', 'chain'\)",
    ),
    "broken options": (told(options="{"), r"attribute options is '\{', not a JSON dict"),
    "options that are a list": (told(options="[1]"), "attribute options is .* not a JSON dict"),
    "columns that are a number": (told(columns="3"), "attribute columns is '3', not a JSON list"),
    "broken prior": (told(prior='{"base": 1}'), "attribute prior is not the record of one"),
    "prior of text": (told(prior="none"), "attribute prior is not the record of one"),
    "another kind": (told(kind="oracle"), "attribute kind is 'oracle'; it is one of point, guide, sampler"),
    "flag of text": (told(exchangeable_labels="yes"), "attribute exchangeable_labels is 'yes', not a number"),
    "seconds of text": (told(run_seconds="long"), "attribute run_seconds is 'long', not a number"),
    "bounds of other chains": (told(elbo=[1.0, 2.0, 3.0]), "attribute elbo has 3 entries, and there are 2 chains"),
}
HARMLESS = {
    "no attributes": lambda tree: tree.attrs.clear(),
    "no prior": untold("prior", "options"),
    "markup": told(method="[/red]", data="<b>", model="é"),
    "no statistics": without(S),
    "no weights of points": dropped(O, "point_weights"),
    "no log joint": dropped(S, "log_joint"),
    "no coordinates": lambda tree: [
        tree.__setitem__(g, xr.DataTree(tree[g].to_dataset().drop_vars(list(tree[g].coords)))) for g in (P, S, O)
    ],
    "components of text": lambda tree: tree.__setitem__(
        P, xr.DataTree(tree[P].to_dataset().assign_coords(component=list("abc")))
    ),
    "float32": lambda tree: [typed(P, name, np.float32)(tree) for name in ("weights", "means", "covariances")],
    "labels as floats": typed(S, "allocations", float),
    "another group": lambda tree: tree.__setitem__("mine", xr.DataTree(xr.Dataset({"x": ("y", ["a"])}))),
    "log joint NaN": put(S, "log_joint", (0, 0), np.nan),
}


def changed(tree, change):
    copy = tree.copy(deep=True)
    change(copy)
    return copy


@pytest.mark.parametrize("name", WRONG)
def test_what_breaks_the_schema_is_told_in_a_line(tree, name):
    change, message = WRONG[name]
    with pytest.raises(InputError, match=message) as caught:
        check(changed(tree, change), "bad.nc")
    assert str(caught.value).startswith("bad.nc: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["weights of text", "no means", "label NaN", "chain renamed", "broken options"])
def test_files_are_checked_when_they_are_loaded(tree, name, tmp_path):
    change, message = WRONG[name]
    changed(tree, change).to_netcdf(tmp_path / "bad.nc", engine="h5netcdf")
    with pytest.raises(InputError, match=rf"bad\.nc: .*{message}"):
        dpgmm.draws.load(tmp_path / "bad.nc")


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_not_break_the_schema_passes(tree, name):
    check(changed(tree, HARMLESS[name]))


@pytest.mark.parametrize("name", ["no attributes", "no statistics", "labels as floats", "no coordinates"])
def test_draws_that_are_odd_but_right_are_diagnosed_relabelled_and_partitioned(tree, name):
    odd = changed(tree, HARMLESS[name])
    assert dpgmm.diagnose(odd).verdict
    assert dpgmm.relabel(odd, "ecr_iterative_1").objective >= 0
    assert dpgmm.partition(odd, starts=1).num_clusters >= 1
