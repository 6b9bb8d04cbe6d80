"""Methods that pose regression as classification."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from pliant.errors import UserError
from pliant.methods._builders import adam_optimizer
from pliant.targets import ValueBins, hl_gauss, two_hot
from pliant.types import Key, Method, Network, Params, State, Stream


def _two_hot(stream: Stream, *, num_bins: int = 51, low: float = -10.0, high: float = 10.0) -> Stream:
    return _in_bins("two-hot", stream, two_hot(num_bins=num_bins, low=low, high=high))


def _hl_gauss(
    stream: Stream, *, num_bins: int = 51, low: float = -10.0, high: float = 10.0, smoothing: float = 0.75
) -> Stream:
    return _in_bins("hl-gauss", stream, hl_gauss(num_bins=num_bins, low=low, high=high, smoothing=smoothing))


def _in_bins(method: str, stream: Stream, bins: ValueBins) -> Stream:
    """The stream with a softmax over bins for every value; scored by the values that these mean."""
    if stream.objective.score != "squared_error":
        raise UserError(
            got=f"the method {method!r} on {stream.name!r}, which is scored by its {stream.objective.score}",
            wanted="a stream of values to regress on, such as slowly-changing-regression or random-teacher",
            do="Leave the method out, or choose such a stream.",
        )

    def logits(output: Float[Array, "batch out"]) -> Float[Array, "batch values bins"]:
        wide = output.astype(jnp.promote_types(output.dtype, jnp.float32))
        return wide.reshape(len(output), stream.num_outputs, len(bins.centres))

    def losses(output: Array, targets: Array, task: PyTree[Array]) -> Array:
        del task
        return optax.softmax_cross_entropy(logits(output), bins.encode(targets)).mean(axis=-1)

    def scores(output: Array, targets: Array, task: PyTree[Array]) -> Array:
        probabilities = jax.nn.softmax(logits(output))
        return stream.objective.scores(bins.decode(probabilities), targets, task)

    return stream._replace(
        num_outputs=stream.num_outputs * len(bins.centres),
        objective=stream.objective._replace(losses=losses, scores=scores),
    )


def _with_silent_head(network: Network) -> Network:
    """The network with an output layer of zeros at the start, so that all bins are equally probable."""

    def init(key: Key) -> tuple[Params, State]:
        params, state = network.init(key)
        is_head = network.wiring.head(params)
        return jax.tree.map(lambda leaf, head: jnp.zeros_like(leaf) if head else leaf, params, is_head), state

    return network._replace(init=init)


TWO_HOT = Method(
    name="two-hot",
    summary="Adam on values as classes: cross-entropy to the two bins next to the target",
    reference="Lyle et al. 2023, section 5; Bellemare et al. 2017, equation 7",
    optimizer=adam_optimizer,
    wrap=_with_silent_head,
    targets=_two_hot,
)
HL_GAUSS = Method(
    name="hl-gauss",
    summary="Adam on values as classes: cross-entropy to a normal distribution around the target",
    reference="Farebrother et al. 2024, section 3.1; Imani and White 2018, section 3",
    optimizer=adam_optimizer,
    wrap=_with_silent_head,
    targets=_hl_gauss,
)

METHODS = (TWO_HOT, HL_GAUSS)
