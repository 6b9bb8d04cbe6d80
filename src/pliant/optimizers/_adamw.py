"""AdamW: Adam with decoupled weight decay."""

import optax

from pliant.errors import require_adam, require_range
from pliant.masks import Mask
from pliant.optimizers._weight_decay import add_weight_decay
from pliant.types import LogUniform, Method, Number, Part, Schedule


def adamw(
    learning_rate: Number | Schedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    *,
    weight_decay: Number = 1e-2,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam that also shrinks parameters by a fixed share at each update, past the moments.

    Use it first when weights grow from task to task: it is the cheapest remedy, and everybody's baseline.

    .. math:: \theta \leftarrow \theta - \eta \Big( \frac{\hat m}{\sqrt{\hat v} + \epsilon} + \lambda\, \theta \Big)

    Args:
      learning_rate: step size, η ≥ 0, or an optax schedule.
      b1: decay rate of the first moment, in [0, 1).
      b2: decay rate of the second moment, in [0, 1).
      eps: ≥ 0, outside the root.
      weight_decay: λ ≥ 0; an update takes the learning rate times this share off every decayed parameter.
      mask: True at the parameters to decay: a pytree of booleans or a function of the parameters that makes one; by
        default all, as PyTorch's AdamW. The method `weight-decay` decays kernels only.

    Returns:
      An optimizer whose `update` needs `params` and ignores further keywords.

    Raises:
      UserError: for numbers out of range.

    Example:
      >>> tx, params = adamw(0.1, weight_decay=0.5), jnp.array([2.0])
      >>> updates, _ = tx.update(jnp.zeros(1), tx.init(params), params)
      >>> round(float(updates[0]), 4)
      -0.1

    References:
      Loshchilov, Hutter, `Decoupled Weight Decay Regularization <https://arxiv.org/abs/1711.05101>`_, 2019.
      Algorithm 2.

    Differs from:
      `optax.adamw`, whose default λ is 1e-4, and where a λ that is a traced 0 makes infinite weights NaN.
    """
    require_adam(learning_rate, b1, b2, eps)
    require_range("weight_decay", weight_decay, 0, do="Use 0 for plain Adam.")
    decay = add_weight_decay(weight_decay)
    chain = optax.chain(
        optax.scale_by_adam(b1, b2, eps),
        decay if mask is None else optax.masked(decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
    return optax.with_extra_args_support(chain)


ADAMW = Method(
    name="adamw",
    summary="Adam with decoupled weight decay on all parameters, biases and norms as well: PyTorch's AdamW",
    reference="Loshchilov and Hutter 2019, algorithm 2",
    optimizer=adamw,
    space={"weight_decay": LogUniform(1e-3, 1.0)},
    off={"weight_decay": 0.0},
    lowers="weight_norm",
)
WEIGHT_DECAY = Method(
    name="weight-decay",
    summary="Adam with decoupled weight decay on kernels (AdamW)",
    reference="Loshchilov and Hutter 2019, algorithm 2",
    optimizer=Part(adamw, roles=("matrix", "head", "embed")),
    space={"weight_decay": LogUniform(1e-3, 1.0)},
    off={"weight_decay": 0.0},
    lowers="weight_norm",
)
LAYERNORM_WEIGHT_DECAY = WEIGHT_DECAY._replace(
    name="layernorm-weight-decay",
    summary="Adam with decoupled weight decay on the kernels of a network with LayerNorm before every activation",
    reference="Lyle et al. 2024 (arXiv 2402.18762)",
    network={"norm": "layer"},
    space={"weight_decay": LogUniform(1e-3, 1.0)},
)
