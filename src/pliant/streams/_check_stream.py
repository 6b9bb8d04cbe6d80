"""Checks that a stream is as the contract says. Its functions are traced, so nothing is computed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from pliant.errors import UserError, require_whole
from pliant.types import Batch, Split, Stream, Text

_SEEDS, _EXAMPLES = 2, 3


def check_stream(stream: Stream) -> Stream:
    """Checks a stream of your own: its splits, its objective, and that JAX can trace and vmap its functions.

    Use it while you write a stream. A run checks its stream in the same way before it trains.

    Args:
      stream: as its factory returns it.

    Returns:
      The stream itself.

    Raises:
      UserError: if the stream cannot be trained on; the message names the field.

    Example:
      >>> from pliant.streams import random_teacher
      >>> stream = check_stream(random_teacher())
      >>> check_stream(stream._replace(headline="train_accuracy"))
      Traceback (most recent call last):
      pliant.errors.UserError: got headline='train_accuracy' in the stream 'random-teacher'; wanted one of
      online_squared_error, train_squared_error, test_squared_error. Choose what the stream measures.
    """
    if not isinstance(stream, Stream):
        raise UserError(
            got=f"a {type(stream).__name__} as a stream",
            wanted="a pliant.types.Stream",
            do="Let the factory return one.",
        )
    _check_fields(stream)
    keys = jax.random.split(jax.random.key(0), _SEEDS)
    task = _shapes(stream, "task", stream.task, (0, None), keys, jnp.int32(0))
    for name in ("train", "test", "validation"):
        if getattr(stream, name) is not None:
            _check_split(stream, name, task)
    return stream


def _check_fields(stream: Stream) -> None:
    for field in ("num_tasks", "num_outputs", "micro_steps"):
        require_whole(field, getattr(stream, field), 1, do=f"Correct it in the stream {stream.name!r}.")
    specs = stream.inputs if isinstance(stream.inputs, Text) else (stream.inputs,)
    if not all(isinstance(each, jax.ShapeDtypeStruct) for each in specs):
        raise _refused(
            stream,
            f"inputs={stream.inputs!r}",
            "the shape and type of one example: a jax.ShapeDtypeStruct, or a Text of two",
            "Write for example jax.ShapeDtypeStruct((8, 8, 1), jnp.float32).",
        )
    if stream.objective.scores is None:
        raise _refused(stream, "no scores", "a score of every example", "Give the objective a function `scores`.")
    score, last = stream.objective.score, "test" if stream.test else "train"
    known = dict.fromkeys((f"online_{score}", f"train_{score}", f"{last}_{score}"))
    is_written = stream.objective.writing is not None and stream.headline.startswith(f"{last}_")
    if stream.headline not in known and not is_written:
        raise _refused(
            stream, f"headline={stream.headline!r}", f"one of {', '.join(known)}", "Choose what the stream measures."
        )


def _check_split(stream: Stream, name: str, task: PyTree[jax.ShapeDtypeStruct]) -> None:
    split = getattr(stream, name)
    if not isinstance(split, Split):
        raise _refused(stream, f"{name}={split!r}", "a pliant.types.Split of two functions", "Write Split(num, batch).")
    for index in range(stream.num_tasks):
        number = split.num(index)
        if not isinstance(number, int | np.integer) or number < 1:
            do = f"Correct the function{'' if name == 'train' else f', or leave {name} out'}."
            raise _refused(stream, f"{number!r} examples from {name}.num({index})", "a whole number ≥ 1", do)
    indices = jnp.zeros(_EXAMPLES, jnp.int32)
    batch = _shapes(stream, f"{name}.batch", split.batch, (None, 0, None), stream.data, task, indices)
    if not isinstance(batch, Batch):
        raise _refused(stream, f"a {type(batch).__name__} from {name}.batch", "a pliant.types.Batch", "Return one.")
    wanted = jax.tree.map(
        lambda spec: jax.ShapeDtypeStruct((_SEEDS, _EXAMPLES, *spec.shape), spec.dtype), stream.inputs
    )
    if batch.inputs != wanted:
        raise _refused(
            stream,
            f"inputs {_of_one_seed(batch.inputs)} from {name}.batch for {_EXAMPLES} indices",
            f"{_of_one_seed(wanted)}: `inputs` of the stream, once for every index",
            "Correct the function or the stream's inputs.",
        )
    positions = stream.inputs.decoder.shape if isinstance(stream.inputs, Text) else ()
    output = jax.ShapeDtypeStruct((_SEEDS, _EXAMPLES, *positions, stream.num_outputs), jnp.float32)
    for field in ("losses", "scores"):
        function = getattr(stream.objective, field)
        values = _shapes(stream, f"objective.{field}", function, (0, 0, 0), output, batch.targets, task)
        if getattr(values, "shape", None) != (_SEEDS, _EXAMPLES):
            raise _refused(
                stream,
                f"{_of_one_seed(values)} from objective.{field} for {_EXAMPLES} examples of {name}",
                f"one number for each example: shape ({_EXAMPLES},)",
                "Take the mean over all axes but the first.",
            )


def _shapes(stream: Stream, name: str, function: Callable[..., Any], seeds: tuple[int | None, ...], *given: Any) -> Any:
    """Shapes and types of what a function returns, traced for several seeds as in a run."""
    try:
        return jax.eval_shape(jax.vmap(function, seeds), *given)
    except jax.errors.JAXTypeError as error:
        raise _refused(
            stream,
            f"{name}, which needs numbers that are not known while JAX traces it",
            "a function of arrays, without `if`, `int` or NumPy on its arguments",
            f"Use jax.numpy, jnp.where and jax.lax. JAX says: {str(error).splitlines()[0]}",
        ) from error


def _of_one_seed(tree: PyTree[jax.ShapeDtypeStruct]) -> str:
    return ", ".join(f"{leaf.dtype.name}{list(leaf.shape[1:])}" for leaf in jax.tree.leaves(tree))


def _refused(stream: Stream, got: str, wanted: str, do: str) -> UserError:
    return UserError(got=f"{got} in the stream {stream.name!r}", wanted=wanted, do=do)
