"""The four types of covariance: densities, conjugacy and exact answers, each against another way to the same number."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
from scipy.integrate import quad

import dpgmm
from dpgmm import Dataset, InputError, exact, load_model
from dpgmm.densities import base_measure, conjugate, gaussian, mixture, transforms
from dpgmm.densities.base_measure import COVARIANCES
from dpgmm.methods import _clusters as clusters
from dpgmm.report import views

POINTS = np.random.default_rng(8).normal(size=(7, 3)) * [1.0, 2.0, 0.5] + [1.0, 0.0, 3.0]
LABELS = np.array([0, 0, 1, 1, 1, 3, 0])


def base(covariance, points=POINTS, **options):
    return jax.device_get(base_measure.scaled_to(Dataset(points), covariance=covariance, **options))


log_marginal, log_evidence_of = jax.jit(conjugate.log_marginal), jax.jit(conjugate.log_evidence)
statistics_of = jax.jit(clusters.statistics, static_argnums=2)


def factors(covariance, dim, count=3):
    """Random Cholesky factors in the smallest form."""
    rng = np.random.default_rng(dim)
    triangular = np.tril(rng.normal(size=(count, dim, dim)), -1) * 0.4 + rng.uniform(0.5, 1.5, (count, dim))[
        ..., None
    ] * np.eye(dim)
    return jnp.asarray(
        {
            "full": triangular,
            "tied": triangular[:1],
            "diagonal": rng.uniform(0.5, 1.5, (count, dim)),
            "spherical": rng.uniform(0.5, 1.5, (count, 1)),
        }[covariance]
    )


def as_matrices(scale_trils, count, dim):
    """The same factors as full matrices."""
    if scale_trils.ndim == 3:
        return jnp.broadcast_to(scale_trils, (count, dim, dim))
    return jnp.broadcast_to(scale_trils, (count, dim))[..., None] * jnp.eye(dim)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("dim", [2, 5])
def test_likelihood_and_gradient_in_the_smallest_form(covariance, dim):
    """Against automatic differentiation of scipy's formula on full matrices, and scipy itself."""
    rng = np.random.default_rng(0)
    x, means = rng.normal(size=(9, dim)), rng.normal(size=(3, dim))
    log_weights, smallest = np.log([0.5, 0.3, 0.2]), factors(covariance, dim)

    def plain(log_weights, means, smallest):
        lower = as_matrices(smallest, 3, dim)
        z = jax.scipy.linalg.solve_triangular(lower, (x[:, None] - means)[..., None], lower=True)[..., 0]
        log_det = jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1)).sum(-1)
        joint = log_weights - log_det - 0.5 * (z**2).sum(-1) - 0.5 * dim * jnp.log(2 * jnp.pi)
        return jax.nn.logsumexp(joint, axis=-1).sum()

    ours = lambda *components: mixture.log_likelihood(*components, points=jnp.asarray(x))
    both = jax.jit(lambda *components: [jax.value_and_grad(f, (0, 1, 2))(*components) for f in (ours, plain)])
    found, wanted = jax.device_get(both(log_weights, means, smallest))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), found, wanted)
    lower = np.asarray(as_matrices(smallest, 3, dim))
    parts = [
        st.multivariate_normal(m, l @ l.T).pdf(x) * w for w, m, l in zip((0.5, 0.3, 0.2), means, lower, strict=True)
    ]
    np.testing.assert_allclose(found[0], np.log(sum(parts)).sum(), rtol=1e-10)


def test_bartlett_coordinates_have_the_jacobian_that_they_say():
    rng = np.random.default_rng(0)
    prior = jnp.asarray(np.tril(rng.normal(size=(3, 3)), -1) + 1.5 * np.eye(3))
    transform, u = transforms.bartlett(prior, 0.7), jnp.asarray(rng.normal(size=(6,)))
    rows, columns = np.tril_indices(3)

    @jax.jit
    def there_and_back(u):
        value, log_jacobian = transform.constrain(u, {})
        jacobian = jax.jacfwd(lambda u: transform.constrain(u, {})[0][rows, columns])(u)
        return log_jacobian, jacobian, transform.unconstrain(value, {})

    log_jacobian, jacobian, back = there_and_back(u)
    np.testing.assert_allclose(log_jacobian, np.linalg.slogdet(jacobian)[1], rtol=1e-12)
    np.testing.assert_allclose(back, u, rtol=1e-10)


def test_bartlett_coordinates_are_independent_under_the_prior():
    """The density of u is a sum over coordinates: mixed second derivatives vanish. Those of a Cholesky factor do not."""
    rng = np.random.default_rng(0)
    prior, df = jnp.asarray(np.tril(rng.normal(size=(3, 3)), -1) + 1.5 * np.eye(3)), jnp.asarray(6.5)
    transform, u = transforms.bartlett(prior, 0.7), jnp.asarray(rng.normal(size=(6,)))

    def log_density(u):
        value, log_jacobian = transform.constrain(u, {})
        return gaussian.log_inverse_wishart(value, df, prior) + log_jacobian

    hessian = np.asarray(jax.jit(jax.hessian(log_density))(u))
    np.testing.assert_allclose(hessian - np.diag(np.diag(hessian)), 0, atol=1e-9)


def statistics(covariance, points=POINTS, labels=LABELS, count=4):
    b = base(covariance)
    return jax.device_get(statistics_of(points - b.mean, labels, count, b)), b._replace(mean=np.zeros(3))


def test_diagonal_evidence_is_a_product_over_dimensions():
    """Each dimension alone is the one-dimensional model: a diagonal covariance has a full one's marginals."""
    seen, b = statistics("diagonal")
    alone = 0.0
    for d in range(3):
        # Its default prior is another: that of three dimensions is taken.
        scale = base_measure.default_component_scale(3)
        one = base("full", POINTS[:, [d]], component_scale=scale, kappa=float(b.kappa))
        np.testing.assert_allclose(one.scale_tril[0], b.scale_tril[d])
        alone += np.asarray(log_marginal(*statistics_of(POINTS[:, [d]] - one.mean, LABELS, 4, one), one))
    # That of an empty cluster is nought: what is left of it is rounding of terms of tens of nats.
    np.testing.assert_allclose(log_marginal(*seen, b), alone, rtol=1e-12, atol=1e-12)


def test_spherical_evidence_is_an_integral_over_one_variance():
    (counts, sums, squares), b = statistics("spherical", labels=np.where(LABELS == 1, 0, -1))
    x = POINTS[LABELS == 1] - POINTS.mean(axis=0)
    np.testing.assert_allclose(log_marginal(counts[0], sums[0], squares[0], b), np.log(integral([x], b)), rtol=1e-7)


def integral(groups, b):
    """``int IG(v | df/2, T^2/2) prod_groups prod_d N(x_d | m_d, v (I + 1 1^T / kappa)) dv`` by quadrature."""

    def given(v):
        value = st.invgamma.pdf(v, float(b.df) / 2, scale=float(b.scale_tril[0, 0, 0]) ** 2 / 2)
        for x in groups:
            covariance = v * (np.eye(len(x)) + 1 / float(b.kappa))
            value *= np.prod([st.multivariate_normal.pdf(column, np.zeros(len(x)), covariance) for column in x.T])
        return value

    return quad(given, 0, np.inf, limit=400, epsabs=0)[0]


def test_tied_evidence_is_an_integral_over_the_common_variance():
    b = base("tied", POINTS[:, :1])
    x = POINTS[:, :1] - POINTS[:, :1].mean()
    seen = statistics_of(x, LABELS, 4, b)
    found = log_evidence_of(*seen, b._replace(mean=np.zeros(1)))
    np.testing.assert_allclose(found, np.log(integral([x[k == LABELS] for k in (0, 1, 3)], b)), rtol=1e-7)


def log_evidence(seen, b, covariance):
    own = conjugate.log_marginal(*seen, base=b).sum
    return conjugate.log_evidence(*seen, base=b) if covariance == "tied" else own()


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_predictive_is_a_ratio_of_evidences(covariance):
    seen, b = statistics(covariance)
    x = np.array([0.3, -1.0, 0.2])

    @jax.jit
    def both(seen, b, x):
        def with_one_more(k):
            added = 1, x, conjugate.product(x, x, b)
            more = [leaf.at[k].add(one) for leaf, one in zip(seen, added, strict=True)]
            return log_evidence(more, b, covariance)

        counts, sums, squares = seen
        table = clusters.build(counts, sums, squares, b, tied=covariance == "tied")
        ratios = jax.lax.map(with_one_more, jnp.arange(4)) - log_evidence(seen, b, covariance)
        return clusters.log_predictive(table, x, b), ratios

    found, ratios = both(jax.tree.map(jnp.asarray, seen), b, x)
    np.testing.assert_allclose(found[:4], ratios, rtol=1e-9)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_rank_one_changes_are_a_rebuild(covariance):
    seen, b = statistics(covariance)
    tied, labels = covariance == "tied", LABELS.copy()
    build = jax.jit(clusters.build, static_argnames="tied")
    change = jax.jit(clusters.change, static_argnums=3)
    table, empty_cluster, x = build(*seen, b, tied=tied), jax.jit(clusters.empty)(b), POINTS - POINTS.mean(axis=0)
    rng = np.random.default_rng(0)
    for i, k in zip(rng.integers(0, 7, 40), rng.integers(0, 4, 40), strict=True):
        table = change(table, labels[i], x[i], -1, b, empty_cluster)
        table = change(table, k, x[i], 1, b, empty_cluster)
        labels[i] = k
    again = build(*statistics(covariance, labels=labels)[0], b, tied=tied)
    for name, leaf in table._asdict().items():
        np.testing.assert_allclose(leaf, getattr(again, name), rtol=1e-8, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_exact_answers_are_those_of_the_compiled_densities(covariance):
    """Enumeration in numpy by determinants, against `conjugate.log_posterior` of every partition; seats add up."""
    p = load_model("stick_breaking")(Dataset(POINTS[:5]), truncation=3, covariance=covariance)
    truth = exact.partitions(p, concentration=0.7, at=POINTS[5:])
    tied = covariance == "tied"
    a, base = jnp.asarray(0.7), p.conjugate.base
    of_partition = lambda z, x: conjugate.log_posterior(jax.nn.one_hot(z, 6), x, a, base, tied=tied)
    every = jax.jit(lambda labels, x: jax.lax.map(lambda z: of_partition(z, x), labels))
    log_joint = np.asarray(every(jnp.asarray(truth.labels), jnp.asarray(POINTS[:5])))
    np.testing.assert_allclose(truth.log_posterior + truth.log_evidence, log_joint, rtol=1e-10)
    for point, density in zip(POINTS[5:], truth.predictive, strict=True):
        more = exact.partitions(p.on(Dataset(np.concatenate([POINTS[:5], point[None]]))), concentration=0.7)
        np.testing.assert_allclose(density, np.exp(more.log_evidence - truth.log_evidence), rtol=1e-9)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_components_are_drawn_from_their_posterior(covariance):
    """Means and variances given clusters, in every form: moments of many draws against the formulas."""
    seen, b = statistics(covariance)
    b = b._replace(df=b.df + 4.0)
    tied = covariance == "tied"
    of_posterior = lambda key, seen, b: conjugate.sample(key, conjugate.update(seen[0], seen[1], seen[2], b, tied=tied))
    draw = jax.jit(jax.vmap(of_posterior, (0, None, None)))
    means, blocks = jax.device_get(draw(jax.random.split(jax.random.PRNGKey(0), 20_000), seen, b))
    lower = np.asarray(base_measure.in_smallest_form(blocks, covariance))
    variances = (np.sum(lower**2, axis=-1) if lower.ndim == 4 else lower**2).reshape(
        20_000, -1, lower.shape[-1 if lower.ndim == 3 else -2]
    )
    df, psi = posterior_of(seen, b, covariance)
    size = 3 if base_measure.is_triangular(covariance) else 1
    deviation = (variances.mean(0) - psi / (df - size - 1)[:, None]) / (variances.std(0) / np.sqrt(20_000))
    assert np.abs(deviation).max() < 4.5, covariance
    centre = seen[1] / (b.kappa + seen[0])[:, None]
    assert np.abs((means.mean(0) - centre) / (means.std(0) / np.sqrt(20_000))).max() < 4.5, covariance


def posterior_of(seen, b, covariance):
    """Degrees of freedom and diagonal of Psi after the data, by hand, from the points themselves."""
    x, m, kappa = POINTS - POINTS.mean(axis=0), 0.0, float(b.kappa)
    psi = np.zeros((4, 3))
    for k, d in itertools.product(range(4), range(3)):
        values = x[k == LABELS, d]
        centre = (kappa * m + values.sum()) / (kappa + len(values))
        psi[k, d] = ((values - centre) ** 2).sum() + kappa * centre**2
    n = np.bincount(LABELS, minlength=4)
    prior = np.sum(b.scale_tril**2, axis=-1).ravel()
    if covariance == "spherical":
        return float(b.df) + 3 * n, prior + psi.sum(axis=1, keepdims=True)
    if covariance == "tied":
        return np.array([float(b.df) + n.sum()]), prior + psi.sum(axis=0, keepdims=True)
    return float(b.df) + n, prior + psi


def two_points(p):
    """Two of a posterior's parameters, as a method that finds points leaves them: at random coordinates."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: p.unconstrain(p.initial(key)), jax.random.PRNGKey(0))
    u = {site: rng.normal(0, 0.5, (2, 1, *of.shape)) for site, of in shapes.items()}
    tree = dpgmm.draws.build(p, jax.jit(jax.vmap(jax.vmap(lambda u: p.constrain(u)[0])))(u))
    tree.attrs |= {"method": "map", "kind": "point", "point_estimate": 1, "columns": json.dumps(p.data.columns)}
    return tree


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_draws_are_stored_in_the_smallest_form(covariance):
    p = load_model("stick_breaking")(Dataset(POINTS), truncation=3, covariance=covariance)
    tree = two_points(p)
    posterior = tree["posterior"].to_dataset()
    stored = posterior["variances"] if "variances" in posterior else posterior["covariances"]
    assert stored.shape[2:] == {"full": (3, 3, 3), "tied": (3, 3), "diagonal": (3, 3), "spherical": (3,)}[covariance]
    assert (
        stored.dims[2:]
        == {
            "full": ("component", "dim", "dim_"),
            "tied": ("dim", "dim_"),
            "diagonal": ("component", "dim"),
            "spherical": ("component",),
        }[covariance]
    )
    expanded = dpgmm.draws.covariances(posterior)
    assert expanded.shape == (2, 1, 3, 3, 3)
    # The recorded log likelihood is that of the expanded covariances, by scipy.
    w, m, c = posterior["weights"].values[1, 0], posterior["means"].values[1, 0], expanded[1, 0]
    density = sum(w[k] * st.multivariate_normal(m[k], c[k]).pdf(POINTS) for k in range(3))
    np.testing.assert_allclose(tree["sample_stats"]["total_log_likelihood"][1, 0], np.log(density).sum(), rtol=1e-9)
    # What reads draws reads every form.
    dpgmm.draws.check(tree)
    assert dpgmm.diagnose(tree).verdict == "point estimate"
    assert len(dpgmm.diagnostics.sorted_components(tree).columns) == 2 + 12
    assert dpgmm.relabel(tree, "stephens").permutations.shape == (2, 1, 3)
    assert len(dpgmm.atlas(tree).table) in (1, 2)


def test_an_unknown_covariance_is_named():
    with pytest.raises(InputError, match="covariance = 'round': it must be one of full, diagonal, tied, spherical"):
        load_model("stick_breaking")(Dataset(POINTS), covariance="round")


@pytest.mark.parametrize("covariance", ["tied", "spherical"])
def test_calibration_takes_every_covariance(covariance):
    p = load_model("stick_breaking")(Dataset(POINTS), truncation=3, covariance=covariance)
    options = {"restarts": 1, "steps": 20, "snapshots": 2}
    ranks = dpgmm.calibration.simulate(p, "map", jax.random.PRNGKey(0), simulations=2, **options)
    assert ranks.rank.shape[0] == 2


def test_a_column_called_weight_is_not_the_weight():
    """Nor are columns whose names are alike once they are cut short."""
    points = np.random.default_rng(0).normal(size=(40, 4))
    names = ("weight", "weight_sd", "a very long name, first", "a very long name, second")
    p = dpgmm.load_model("stick_breaking")(dpgmm.Dataset(points, columns=names), truncation=3)
    tree = two_points(p)
    table = dpgmm.report.components(tree, views.view([tree]))
    sorted_table = dpgmm.diagnostics.sorted_components(tree, keep_labels=True)
    np.testing.assert_array_equal(table["weight"], sorted_table["weight"])
    np.testing.assert_array_equal(table["weight_sd"], sorted_table["weight_sd"])
    assert len(set(table.columns)) == 6
    assert {"weight (x0)", "weight_sd (x1)"} < set(table.columns)
