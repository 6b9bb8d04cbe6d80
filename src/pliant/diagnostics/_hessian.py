"""The Hessian of a loss: products with vectors, Lanczos, and the eigenvalues at both ends of its spectrum."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree
from matfree.decomp import hessenberg

from pliant.diagnostics._quadrature import quadrature
from pliant.diagnostics._subject import loss, some, widened
from pliant.errors import UserError
from pliant.types import Diagnostic, Key, Measured, Number, Params, Scalar, Subject

MOST_EXAMPLES = 512


class Tridiagonal(NamedTuple):
    """What `lanczos` returns: symmetric tridiagonal matrices, one for each start."""

    alphas: Float[Array, "*starts steps"]
    """The diagonals."""
    betas: Float[Array, "*starts steps-1"]
    """What lies beside the diagonals, ≥ 0. After a 0 there is nothing more to find, and what follows is noise or NaN;
    `quadrature` cuts it off."""


class TopEigenvalues(NamedTuple):
    """What `top_eigenvalues` returns."""

    algebraic: float
    """The largest: the sharpness."""
    magnitude: float
    """The one with the largest absolute value, with its sign."""
    smallest: float
    """The most negative, or the least positive."""


def hessian_vector_product(loss: Callable[[Params], Scalar], params: Params, vector: Params) -> Params:
    r"""Multiplies the Hessian of a loss by a vector, without forming the Hessian.

    Use it as a building block of algorithms that only multiply by the Hessian.

    .. math:: H v = \frac{d}{d\epsilon} \nabla L(\theta + \epsilon v)\Big|_{\epsilon=0}

    by forward mode over reverse mode, at the cost of about two gradients.

    Args:
      loss: L, of the parameters alone; a mean over a fixed batch.
      params: θ, floating-point leaves.
      vector: v, with the structure and shapes of `params`.

    Returns:
      H v, with the structure of `params`. NaN parameters give NaN.

    Raises:
      UserError: if there are no parameters.

    Example:
      >>> hessian_vector_product(lambda x: x[0] ** 2 * x[1], jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0])).tolist()
      [4.0, 2.0]

    References:
      Pearlmutter, `Fast exact multiplication by the Hessian
      <https://doi.org/10.1162/neco.1994.6.1.147>`_, 1994.

    Differs from:
      Gauss-Newton products, which leave out the network's second derivatives. Those of ReLU are 0, the products between
      layers are not.
    """
    _require_params(params)
    return jax.jvp(jax.grad(loss), (params,), (vector,))[1]


def lanczos(
    loss: Callable[[Params], Scalar],
    params: Params,
    key: Key,
    num_steps: int = 90,
    num_starts: int = 10,
    start: Literal["rademacher", "normal"] = "rademacher",
) -> Tridiagonal:
    r"""Tridiagonalises the Hessian of a loss from random starts: Lanczos with full reorthogonalisation.

    Use it as the input of `quadrature`, `top_eigenvalues` and `hessian_density`.

    .. math:: H V \approx V T, \qquad V^\top V = I, \qquad V e_1 = z / \lVert z \rVert

    One start after another; holds `num_steps` vectors as long as the parameters in memory. All products of matrices are
    of the full precision of their type, also where the accelerator would round them by default.

    Args:
      loss: as in `hessian_vector_product`.
      params: P numbers altogether. Half precision is widened to float32: rounded products lose the orthogonality.
      key: for the starts.
      num_steps: size m of each tridiagonal matrix, ≥ 1; at most P are made.
      num_starts: ≥ 1.
      start: distribution of z. Rademacher signs make the trace of a diagonal Hessian exact. A normal one has a part in
        every eigenvector, with signs it may be 0 in a small network.

    Returns:
      `Tridiagonal`, alphas (num_starts, m) and betas (num_starts, m − 1). NaN parameters give NaN.

    Raises:
      UserError: if there are no parameters, steps or starts, since nothing was measured.

    Example:
      >>> curvature = jnp.array([3.0, -5.0, 1.0])
      >>> found = lanczos(lambda x: (curvature * x * x).sum() / 2, jnp.zeros(3), jax.random.key(0), 3, 2)
      >>> [round(float(alpha), 4) for alpha in found.alphas[:, 0]]
      [-0.3333, -0.3333]

    References:
      Ghorbani, Krishnan, Xiao, `An Investigation into Neural Net Optimization via Hessian Eigenvalue Density
      <https://arxiv.org/abs/1901.10159>`_, 2019. Section 2. Steps by Krämer's `matfree
      <https://github.com/pnkraemer/matfree>`_.

    Differs from:
      The authors' google/spectral-density: starts are Rademacher, not normal, and all vectors are made orthogonal to
      the earlier ones twice, not once. `matfree.decomp.tridiag_sym` is the same iteration, but averages the two sides
      of the matrix, which turns a β of exactly 0 into NaN.
    """
    _require_params(params)
    if num_steps < 1 or num_starts < 1:
        raise UserError(
            got=f"num_steps={num_steps} and num_starts={num_starts}",
            wanted="at least 1 each",
            do="90 and 10 are usual.",
        )
    flat, unravel = ravel_pytree(jax.tree.map(widened, params))
    decompose = hessenberg(min(num_steps, flat.size), reortho="full", custom_vjp=False)
    draw = {"rademacher": jax.random.rademacher, "normal": jax.random.normal}[start]

    def multiply(vector: Array) -> Array:
        return ravel_pytree(hessian_vector_product(loss, unravel(flat), unravel(vector)))[0]

    def from_one(key: Key) -> Tridiagonal:
        z = draw(key, flat.shape, flat.dtype)
        matrix = decompose(multiply, z / jnp.linalg.norm(z)).J_small
        return Tridiagonal(jnp.diagonal(matrix), jnp.diagonal(matrix, -1))

    # Products that an accelerator rounds to ten bits would leave nothing of the orthogonality.
    with jax.default_matmul_precision("highest"):
        return jax.lax.map(from_one, jax.random.split(key, num_starts))


def top_tridiagonal(
    loss: Callable[[Params], Scalar], params: Params, key: Key, num_steps: int = 20
) -> tuple[Float[Array, " steps"], Float[Array, " steps-1"]]:
    r"""Tridiagonalises the Hessian from one start, for the eigenvalues at both ends: `lanczos` of few steps.

    Use it for the sharpness of a loss; `lanczos` with more steps and starts gives the whole spectrum.

    .. math:: T = V^\top H V, \qquad V e_1 = z / \lVert z \rVert, \quad z \sim \mathcal N(0, I)

    Args:
      loss: as in `hessian_vector_product`.
      params: P numbers altogether.
      key: for the start.
      num_steps: m ≥ 1; at most P are made. Twenty find the ends of the usual spectra with isolated large eigenvalues.

    Returns:
      Diagonal (m,) and what lies beside it (m − 1,), for `top_eigenvalues`.

    Raises:
      UserError: if there are no parameters or steps, since nothing was measured.

    Example:
      >>> curvature = jnp.array([3.0, -5.0, 1.0])
      >>> alphas, betas = top_tridiagonal(lambda x: (curvature * x * x).sum() / 2, jnp.zeros(3), jax.random.key(0))
      >>> alphas.shape, betas.shape, round(float(alphas.sum()), 4)
      ((3,), (2,), -1.0)

    References:
      See `lanczos`.

    Differs from:
      Power iteration, which finds the eigenvalue of largest magnitude alone, and later.
    """
    found = lanczos(loss, params, key, num_steps, num_starts=1, start="normal")
    return found.alphas[0], found.betas[0]


def top_eigenvalues(alphas: Float[np.ndarray, " steps"], betas: Float[np.ndarray, " steps-1"]) -> TopEigenvalues:
    r"""Finds the eigenvalues at the ends of a Hessian's spectrum from its tridiagonal matrix.

    Use it for the sharpness of a loss, and for its most negative curvature.

    .. math:: \max_j \Lambda_j, \qquad \Lambda_{\arg\max_j |\Lambda_j|}, \qquad \min_j \Lambda_j

    with Λ the nodes of `quadrature`. They lie between the Hessian's smallest and largest eigenvalue, and approach
    those with every step. Computed on the host in float64.

    Args:
      alphas: diagonal, (m,), from `top_tridiagonal`.
      betas: what lies beside it, (m − 1,).

    Returns:
      `TopEigenvalues`; NaN for NaN parameters, 0 for a constant loss.

    Raises:
      UserError: for an empty diagonal, since nothing was measured.

    Example:
      >>> found = top_eigenvalues(np.array([-1.0, -1.0]), np.array([4.0]))
      >>> [round(value, 4) for value in found]
      [3.0, -5.0, -5.0]

    References:
      Lanczos, `An iteration method for the solution of the eigenvalue problem
      <https://doi.org/10.6028/jres.045.026>`_, 1950.

    Differs from:
      Code that reports what power iteration finds as the top eigenvalue: that is `magnitude`, often without its sign.
    """
    nodes = quadrature(alphas, betas).nodes
    nodes = nodes if np.isnan(nodes).all() else nodes[~np.isnan(nodes)]
    return TopEigenvalues(float(nodes.max()), float(nodes[np.abs(nodes).argmax()]), float(nodes.min()))


def probe_loss(
    function: Callable[[Params, Any], Array], params: Params, inputs: PyTree[Array], key: Key, scale: Number = 1.0
) -> Callable[[Params], Scalar]:
    r"""Makes the loss of a task that is the same for every network: regression to its own output plus noise.

    Use it to compare the curvature of different networks, or of one network over time.

    .. math:: L(\theta) = \frac1n \lVert f_\theta(x) - y \rVert^2, \qquad
              y = f_{\theta_0}(x) + \rho\, \mathrm{std}(f_{\theta_0}(x))\, z, \quad z \sim \mathcal N(0, I)

    with n numbers of output in all and θ₀ the parameters now. It asks how easily a network can move its output in
    arbitrary directions. The losses that networks are trained with would differ for trivial reasons.

    Args:
      function: `function(params, inputs) -> output`, in eval mode.
      params: θ₀.
      inputs: a fixed probe batch.
      key: for the noise; give networks that are compared the same one.
      scale: ρ ≥ 0. With 0 the residuals are 0, and the Hessian is 2 JᵀJ/n.

    Returns:
      L, a function of the parameters. Its value at θ₀ is about ρ² times the output's variance.

    Raises:
      UserError: for an empty batch.

    Example:
      >>> loss = probe_loss(lambda w, x: x * w, jnp.ones(()), jnp.array([[1.0], [3.0]]), jax.random.key(0), scale=0.0)
      >>> float(loss(jnp.asarray(3.0)))
      20.0

    References:
      Lyle et al., `Understanding plasticity in neural networks <https://arxiv.org/abs/2303.01486>`_, 2023. Section 3.2.

    Differs from:
      Nothing known: the authors do not say how large their perturbation is.
    """
    targets = probe_targets(function(params, inputs), key, scale)
    return lambda params: jnp.square(function(params, inputs) - targets).mean()


def probe_targets(output: Array, key: Key, scale: Number = 1.0) -> Array:
    """The targets y of `probe_loss`, from what the network says now.

    Raises:
      UserError: for an empty batch.

    Example:
      >>> probe_targets(jnp.array([[1.0], [3.0]]), jax.random.key(0), scale=0.0).tolist()
      [[1.0], [3.0]]
    """
    if output.size == 0:
        raise UserError(
            got=f"an output of shape {output.shape}", wanted="at least one example", do="Pass a non-empty probe batch."
        )
    noise = jax.random.normal(key, output.shape, output.dtype)
    return jax.lax.stop_gradient(output + scale * output.std() * noise)


def _require_params(params: Params) -> None:
    if not jax.tree.leaves(params):
        raise UserError(got="no parameters", wanted="at least one array", do="Pass the network's parameters.")


def _measure(subject: Subject) -> tuple[Array, Array]:
    batch, of_batch = some(subject.probe, MOST_EXAMPLES), loss(subject)
    return top_tridiagonal(lambda params: of_batch(params, batch), subject.params, subject.key)


def _summarize(arrays: tuple[np.ndarray, np.ndarray]) -> Measured:
    found = top_eigenvalues(*arrays)
    return Measured(
        {
            "hessian_top": found.algebraic,
            "hessian_top_magnitude": found.magnitude,
            "hessian_smallest": found.smallest,
        }
    )


HESSIAN_TOP = Diagnostic(
    name="hessian-top",
    summary="eigenvalues at both ends of the Hessian of the current task's loss (Lanczos)",
    cost="per-task",
    measure=_measure,
    summarize=_summarize,
)
