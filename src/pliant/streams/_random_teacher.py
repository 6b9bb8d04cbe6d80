"""Random teacher: the same inputs with a new random network to imitate in every task."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pliant.errors import require_choice, require_range
from pliant.streams._objectives import REGRESSION
from pliant.types import Batch, Key, Split, Stream

_DATA_SEED = 2  # the inputs are the data set: the same for all seeds


class Parts(NamedTuple):
    """Inputs or targets of the training and test examples."""

    train: Float[Array, "train size"]
    test: Float[Array, "test size"]


def random_teacher(
    *,
    num_tasks: int = 20,
    num_inputs: int = 32,
    num_examples: int = 1024,
    num_test: int = 256,
    width: int = 64,
    activation: Literal["tanh", "relu"] = "tanh",
) -> Stream:
    r"""Regression on the outputs of a new random network with one hidden layer in every task.

    .. math:: f_t(x) = v \cdot \phi(W x / \sqrt d + b), \qquad y = \frac{f_t(x) - m_t}{s_t}

    W, v, b and x are standard normal; :math:`m_t` and :math:`s_t` are mean and standard deviation over the training
    examples. Tasks are equally hard, and no data set is needed. The headline is the squared error on the training
    examples at the end of a task; predicting their mean gives 1. The test error is recorded too; a thousand examples
    determine a teacher only in part, which bounds it.

    Args:
      num_tasks: ≥ 1.
      num_inputs: d ≥ 1.
      num_examples: training examples, ≥ 2.
      num_test: test examples, ≥ 1.
      width: hidden units of the teacher, ≥ 1.
      activation: φ, "tanh" or "relu".

    Returns:
      A `Stream`; a task is its targets in two `Parts`, float32 (train, 1) and (test, 1).

    Raises:
      UserError: for numbers out of range or an unknown activation.

    Example:
      >>> stream = random_teacher()
      >>> targets = stream.task(jax.random.key(0), 3).train
      >>> bool(abs(targets.mean()) < 1e-5), round(float(targets.var()), 4)
      (True, 1.0)

    References:
      None: student and teacher networks are a common toy problem; here only the targets change.
    """
    require_choice("activation", activation, "tanh", "relu")
    for name, number in {"tasks": num_tasks, "num_inputs": num_inputs, "num_test": num_test, "width": width}.items():
        require_range(name, number, 1, do="Leave it out for the default.")
    require_range("num_examples", num_examples, 2, do="Leave it out for the default.")
    train_key, test_key = jax.random.split(jax.random.key(_DATA_SEED))
    data = Parts(
        jax.random.normal(train_key, (num_examples, num_inputs)), jax.random.normal(test_key, (num_test, num_inputs))
    )
    phi = jnp.tanh if activation == "tanh" else jax.nn.relu

    def task(key: Key, index: Int[Array, ""] | int) -> Parts:
        keys = jax.random.split(jax.random.fold_in(key, index), 3)
        shapes = ((num_inputs, width), (width, 1), (width,))
        kernel, head, bias = (jax.random.normal(each, shape) for each, shape in zip(keys, shapes, strict=True))

        def teacher(inputs: Float[Array, "examples inputs"]) -> Float[Array, "examples 1"]:
            return _exact(phi(_exact(inputs, kernel) / num_inputs**0.5 + bias[None]), head)

        outputs = Parts(teacher(data.train), teacher(data.test))
        mean, deviation = outputs.train.mean(), jnp.maximum(outputs.train.std(), 1e-6)
        return Parts((outputs.train - mean) / deviation, (outputs.test - mean) / deviation)

    return Stream(
        name="random-teacher",
        dataset="generated",
        num_tasks=num_tasks,
        num_outputs=1,
        inputs=jax.ShapeDtypeStruct((num_inputs,), jnp.float32),
        train=Split(
            lambda _: num_examples, lambda data, task, indices: Batch(data.train[indices], task.train[indices])
        ),
        test=Split(lambda _: num_test, lambda data, task, indices: Batch(data.test[indices], task.test[indices])),
        objective=REGRESSION,
        headline="train_squared_error",
        chance=1.0,
        data=data,
        task=task,
        keeps="inputs",
    )


def _exact(a: Float[Array, "rows inner"], b: Float[Array, "inner columns"]) -> Float[Array, "rows columns"]:
    """A product in full float32, so that a task is the same on every device up to rounding."""
    return jnp.matmul(a, b, precision="highest")
