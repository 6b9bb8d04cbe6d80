"""Cosines between the gradients of single examples: whether examples help or hinder each other."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from pliant.diagnostics._rank import effective_rank
from pliant.diagnostics._subject import loss, some
from pliant.errors import UserError, extra
from pliant.types import Batch, Diagnostic, Measured, Params, Scalar, Subject

_MOST = 512  # examples, as published
_BLOCK = 2**25  # numbers in the gradients of one block of examples; two blocks are held at once
_DECIMALS = 6  # of a cosine: what follows is rounding error, which is no reason for a cluster of one's own


class GradientCosine(NamedTuple):
    """What `gradient_cosine` returns. Means and fractions are over the pairs of different examples."""

    matrix: Float[np.ndarray, "k k"]
    """Cosines in [−1, 1], rows and columns in `order`."""
    labels: Int[np.ndarray, " k"]
    """The cluster of each row of `matrix`, ascending from 0, the largest cluster."""
    order: Int[np.ndarray, " k"]
    """Which example each row is."""
    mean: float
    """In [−1, 1]."""
    negative_fraction: float
    """Cosines below 0, in [0, 1]."""
    strongly_negative_fraction: float
    """Cosines below −0.1, in [0, 1]."""
    effective_rank: float
    """Of `matrix`, in [1, k]; 0 if all gradients are zero."""
    mean_absolute: float
    """Mean absolute cosine, in [0, 1]."""
    within_cluster: float
    """Mean over pairs in the same cluster; NaN if there is no such pair."""
    between_cluster: float
    """Mean over pairs in different clusters; NaN if there is no such pair."""
    num_zero: int
    """Examples whose gradient is zero."""


def gradient_gram(
    loss: Callable[[Params, PyTree[Array]], Scalar], params: Params, examples: PyTree[Array]
) -> Float[Array, "k k"]:
    r"""Computes the inner products between the gradients of single examples.

    Use it as the input of `gradient_cosine`.

    .. math:: G_{ij} = \sum_{leaf} \langle \nabla_{leaf} \ell(\theta, x_i), \nabla_{leaf} \ell(\theta, x_j) \rangle

    Exact, in float32. The gradients are computed in blocks of examples that fit into memory, and again for every
    pair of blocks, so that nothing of size k × P is held for large P. Cost: k gradients of one example if all fit into
    one block, about k (B + 1) / 2 with B blocks.

    Args:
      loss: `loss(params, examples with a batch axis of length 1) -> scalar`.
      params: θ, P numbers.
      examples: arrays with the same leading axis, of length k ≥ 1.

    Returns:
      The Gram matrix, exactly symmetric. An example with a NaN gradient has a row and a column of NaN. Gradients with a
      norm below about 1e-19 have squares that are 0 in float32.

    Raises:
      UserError: without examples or parameters, since nothing was measured.

    Example:
      >>> gradient_gram(lambda w, x: (w * x[0]).sum(), jnp.zeros(2), jnp.array([[1.0, 0.0], [3.0, 4.0]])).tolist()
      [[1.0, 3.0], [3.0, 25.0]]

    References:
      Lyle et al., `Understanding plasticity in neural networks <https://arxiv.org/abs/2303.01486>`_, 2023. Numerators
      of equation 3.

    Differs from:
      Nothing known.
    """
    lengths = {len(leaf) for leaf in jax.tree.leaves(examples)}
    num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
    if len(lengths) != 1 or 0 in lengths or num_params == 0:
        raise UserError(
            got=f"arrays of {sorted(lengths)} examples and {num_params} parameters",
            wanted="at least one example, the same number in all arrays, and at least one parameter",
            do="Pass a non-empty probe batch and the network's parameters.",
        )
    number = lengths.pop()
    num_blocks = -(-number // max(1, _BLOCK // num_params))
    size = -(-number // num_blocks)
    indices = jnp.minimum(jnp.arange(num_blocks * size), number - 1).reshape(num_blocks, size)

    def one(index: Array) -> list[Array]:
        example = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index, 1), examples)
        return [leaf.astype(jnp.float32).ravel() for leaf in jax.tree.leaves(jax.grad(loss)(params, example))]

    def gradients(block: Array) -> list[Array]:
        # One example after the other: batched gradients of convolutions are about four times slower on a CPU.
        return jax.lax.map(one, indices[block])

    def row(i: Array, gram: Array) -> Array:
        left = gradients(i)

        def put(gram: Array, j: Array, right: list[Array]) -> Array:
            products = sum(jnp.matmul(a, b.T, precision="highest") for a, b in zip(left, right, strict=True))
            return jax.lax.dynamic_update_slice(gram, products, (i * size, j * size))

        return jax.lax.fori_loop(i + 1, num_blocks, lambda j, gram: put(gram, j, gradients(j)), put(gram, i, left))

    gram = jax.lax.fori_loop(0, num_blocks, row, jnp.zeros((num_blocks * size,) * 2))
    upper = jnp.triu(gram[:number, :number])
    return upper + jnp.triu(upper, 1).T


def gradient_cosine(gram: Float[np.ndarray, "k k"], num_clusters: int = 10, seed: int = 0) -> GradientCosine:
    r"""Measures how the gradients of single examples interfere, from their Gram matrix.

    Use it to see whether learning one example undoes another.

    .. math:: C_{ij} = \frac{G_{ij}}{\sqrt{G_{ii}\, G_{jj}}}

    Rows and columns are put in the order of clusters, so that blocks show: k-means on the rows of C (rounded to six
    decimals), the largest cluster first, within a cluster the nearest to its centroid first. There are no more clusters
    than different rows. A gradient of zero has a row, a column and a diagonal entry of 0, which count in the means. The
    matrix is what its authors call the gradient covariance; it is neither centred nor a covariance. Says something
    about these examples with these targets only. Computed on the host in float64.

    Args:
      gram: G, from `gradient_gram`, k ≥ 2.
      num_clusters: ≥ 1; the number of latent classes, if it is known.
      seed: of k-means++, which starts ten times.

    Returns:
      `GradientCosine`. If an entry of G is not finite, the numbers and the matrix are NaN, the labels −1, and the order
      is that of the examples.

    Raises:
      UserError: for fewer than two examples, which have no pair, and fewer than one cluster.

    Example:
      >>> found = gradient_cosine(np.array([[1.0, 3.0], [3.0, 25.0]]))
      >>> round(found.mean, 4), found.negative_fraction
      (0.6, 0.0)

    References:
      Lyle et al., `Understanding plasticity in neural networks <https://arxiv.org/abs/2303.01486>`_, 2023. Equation 3;
      appendix A.1 for the ordering.

    Differs from:
      Nothing known. (The authors do not say what their k-means runs on.)
    """
    if len(gram) < 2 or num_clusters < 1:
        raise UserError(
            got=f"gradients of {len(gram)} examples and num_clusters={num_clusters}",
            wanted="at least two examples and one cluster",
            do="Pass a larger probe batch, and leave num_clusters out for 10.",
        )
    gram = np.asarray(gram, np.float64)
    num_zero = int((np.diag(gram) <= 0).sum())
    if not np.isfinite(gram).all():
        unknown = np.full(gram.shape, np.nan), np.full(len(gram), -1), np.arange(len(gram))
        return GradientCosine(*unknown, *(float("nan"),) * 7, num_zero)
    cosines = _cosines(gram)
    labels, order = _clusters(cosines, num_clusters, seed)
    ordered = cosines[np.ix_(order, order)]
    is_pair = ~np.eye(len(gram), dtype=bool)
    is_within = labels[:, None] == labels[None]
    pairs = ordered[is_pair]
    return GradientCosine(
        matrix=ordered,
        labels=labels,
        order=order,
        mean=float(pairs.mean()),
        negative_fraction=float((pairs < 0).mean()),
        strongly_negative_fraction=float((pairs < -0.1).mean()),
        effective_rank=effective_rank(ordered),
        mean_absolute=float(np.abs(pairs).mean()),
        within_cluster=_mean(ordered[is_pair & is_within]),
        between_cluster=_mean(ordered[~is_within]),
        num_zero=num_zero,
    )


def _cosines(gram: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    norms = np.sqrt(np.maximum(np.diag(gram), 0))
    is_zero = norms == 0
    norms = np.where(is_zero, 1, norms)
    cosines = np.clip(gram / norms[:, None] / norms[None], -1, 1)
    cosines[is_zero] = cosines[:, is_zero] = 0
    np.fill_diagonal(cosines, ~is_zero)
    return cosines


def _clusters(
    cosines: Float[np.ndarray, "k k"], num_clusters: int, seed: int
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Clusters by size, ascending, and the examples in that order."""
    with _clustering():
        from sklearn.cluster import KMeans

    rows = np.round(cosines, _DECIMALS) + 0.0  # without negative zeros
    number = min(num_clusters, len(np.unique(rows, axis=0)))
    found = KMeans(number, init="k-means++", n_init=10, random_state=seed).fit(rows)
    sizes = np.bincount(found.labels_, minlength=number)
    place = np.argsort(np.argsort(-sizes, kind="stable"))
    distances = np.linalg.norm(rows - found.cluster_centers_[found.labels_], axis=1)
    order = np.lexsort((distances, place[found.labels_]))
    return place[found.labels_][order], order


def _clustering() -> AbstractContextManager[None]:
    return extra("clustering", "clusters of gradients")


def _mean(values: Float[np.ndarray, " pairs"]) -> float:
    return float(values.mean()) if values.size else float("nan")


def several(subject: Subject) -> Batch:
    """At most 512 probe examples, and at least two: what can be compared in pairs."""
    examples = some(subject.probe, _MOST)
    if len(jax.tree.leaves(examples)[0]) < 2:
        raise UserError(
            got="a probe of one example", wanted="at least two", do="Gradients are compared in pairs: probe with more."
        )
    return examples


def _summarize(gram: np.ndarray) -> Measured:
    found = gradient_cosine(gram)
    numbers = {
        "gradient_cosine_mean": found.mean,
        "gradient_cosine_negative_fraction": found.negative_fraction,
        "gradient_cosine_strongly_negative_fraction": found.strongly_negative_fraction,
        "gradient_cosine_effective_rank": found.effective_rank,
        "gradient_cosine_mean_absolute": found.mean_absolute,
        "gradient_cosine_within_cluster": found.within_cluster,
        "gradient_cosine_between_cluster": found.between_cluster,
        "num_zero_gradients": float(found.num_zero),
    }
    return Measured(numbers, {"matrix": found.matrix, "labels": found.labels, "order": found.order})


def _measure(subject: Subject) -> Float[Array, "k k"]:
    with _clustering():  # before anything is computed
        import sklearn.cluster  # noqa: F401
    return gradient_gram(loss(subject), subject.params, several(subject))


GRADIENT_COSINE = Diagnostic(
    name="gradient-cosine",
    summary="cosines between the gradients of single examples of the current task (Lyle et al.)",
    cost="rare",
    measure=_measure,
    summarize=_summarize,
)
