"""What every stream must satisfy; a new one joins by being registered. Streams that are broken on purpose must fail."""

import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from many_classes import many_classes
from pliant.errors import UserError
from pliant.streams import STREAMS, load_dataset
from pliant.types import Text

NUM_TASKS = 4
DIGITS = load_dataset("digits", train_size=100, test_size=50)
MANY = many_classes()
DATA = {"class-incremental": MANY, "five-plus-one": MANY, "class-pairs": MANY}  # the others take digits or nothing
OPTIONS = {  # for speed, nothing else
    "random-seq2seq": {"num_examples": 40, "source_words": 4},
    "bigram-cipher": {"num_train": 40, "num_test": 20},
    "slowly-changing-regression": {"num_examples": 100},
}
KEY = jax.random.key(0)


def takes_dataset(name):
    return "dataset" in inspect.signature(STREAMS[name]).parameters


@functools.cache
def make(name):
    dataset = [DATA.get(name, DIGITS)] if takes_dataset(name) else []
    return STREAMS[name](*dataset, num_tasks=NUM_TASKS, **OPTIONS.get(name, {}))


def parts(stream):
    """The training split, and the test split where there is one."""
    yield stream.train
    if stream.test is not None:
        yield stream.test


def every(size, index):
    """All examples of a task, the last again and again up to the number in the largest task: one shape for all."""
    return np.minimum(np.arange(max(map(size, range(NUM_TASKS)))), size(index) - 1).astype(np.int32)


def batches(stream, index, key=KEY):
    """All examples of a task by parts."""
    task = jax.jit(stream.task)(key, np.int32(index))
    for size, batch_of in parts(stream):
        yield jax.jit(batch_of)(stream.data, task, every(size, index))


def train_set(stream, index, key=KEY):
    return next(batches(stream, index, key))


def assert_same(tree, wanted, *, exactly=False):
    """Same structure, shapes, types and numbers; to the bit, or integers to the bit and the rest closely."""
    assert jax.tree.structure(tree) == jax.tree.structure(wanted)
    for leaf, other in zip(jax.tree.leaves(tree), jax.tree.leaves(wanted), strict=True):
        assert (leaf.shape, leaf.dtype) == (other.shape, other.dtype)
        if exactly or not jnp.issubdtype(leaf.dtype, jnp.floating):
            assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()
        else:
            np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-5)


def any_two_same(trees):
    leaves = [[np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)] for tree in trees]
    return any(a == b for a, b in itertools.combinations(leaves, 2))


def check_a_task_is_a_function_of_key_and_index(stream):
    at_once = jax.tree.map(np.asarray, stream.task(KEY, 3))
    for index in range(3):
        stream.task(KEY, index)
    assert_same(jax.tree.map(np.asarray, stream.task(KEY, 3)), at_once, exactly=True)


def check_seeds_differ(stream):
    for index in range(NUM_TASKS):
        assert not any_two_same([train_set(stream, index, jax.random.key(seed)) for seed in range(3)])


def check_tasks_differ(stream):
    assert not any_two_same([train_set(stream, index) for index in range(NUM_TASKS)])


def check_tasks_have_one_shape(stream):
    first, *others = (jax.tree.map(np.asarray, stream.task(KEY, index)) for index in range(NUM_TASKS))
    for other in others:
        assert_same(jax.tree.map(np.zeros_like, other), jax.tree.map(np.zeros_like, first))


def check_jit_and_vmap_change_nothing(stream):
    keys = jax.random.split(KEY, 2)
    for index in (1, 2):
        plain = [stream.task(key, index) for key in keys]
        assert_same(jax.jit(stream.task)(keys[0], np.int32(index)), plain[0])
        together = jax.jit(jax.vmap(stream.task, (0, None)))(keys, np.int32(index))
        assert_same(together, jax.tree.map(lambda *leaves: np.stack(leaves), *plain))
        for _, batch_of in parts(stream):
            wanted = [batch_of(stream.data, task, jnp.arange(3)) for task in plain]
            assert_same(jax.jit(batch_of)(stream.data, plain[0], np.arange(3)), wanted[0])
            found = jax.jit(jax.vmap(batch_of, (None, 0, None)))(stream.data, together, np.arange(3))
            assert_same(found, jax.tree.map(lambda *leaves: np.stack(leaves), *wanted))


def check_an_example_is_the_same_in_every_batch(stream):
    for index in range(NUM_TASKS):
        task = jax.jit(stream.task)(KEY, np.int32(index))
        for (size, batch_of), whole in zip(parts(stream), batches(stream, index), strict=True):
            some = np.random.default_rng(index).permutation(size(index))[:4]
            found = jax.jit(batch_of)(stream.data, task, some)
            assert_same(found, jax.tree.map(lambda leaf, some=some: leaf[some], whole))


def check_batches_are_what_the_stream_says(stream):
    for index in range(NUM_TASKS):
        for (size, _), batch in zip(parts(stream), batches(stream, index), strict=True):
            assert size(index) >= 1
            assert {len(leaf) for leaf in jax.tree.leaves(batch)} == {len(every(size, index))}
            inputs, targets = jax.tree.map(np.asarray, batch)
            one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), batch.inputs)
            assert one == stream.inputs
            if is_text := isinstance(inputs, Text):
                assert 0 <= inputs.source.min() <= inputs.source.max() < stream.num_outputs
                np.testing.assert_array_equal(inputs.decoder[:, 1:], targets[:, :-1])
            else:
                assert inputs.dtype == np.float32
                assert np.isfinite(inputs).all()
            if np.issubdtype(targets.dtype, np.integer):
                assert (targets.dtype, targets.ndim) == (np.int32, 1 + is_text)
                assert 0 <= targets.min() <= targets.max() < stream.num_outputs
            else:
                assert targets.shape[1:] == (stream.num_outputs,)
                assert np.isfinite(targets).all()


def check_the_objective_takes_them(stream):
    def measure(targets, task):
        is_class = jnp.issubdtype(targets.dtype, jnp.integer)
        output = jnp.zeros((*targets.shape, stream.num_outputs) if is_class else targets.shape)
        losses, scores = (each(output, targets, task) for each in (stream.objective.losses, stream.objective.scores))
        return losses, scores, jax.grad(lambda output: stream.objective.losses(output, targets, task).mean())(output)

    for index in range(NUM_TASKS):
        task = jax.jit(stream.task)(KEY, np.int32(index))
        for batch in batches(stream, index):
            losses, scores, gradient = jax.jit(measure)(batch.targets, task)
            assert losses.shape == scores.shape == (len(batch.targets),)
            assert all(np.isfinite(each).all() for each in (losses, scores, gradient))
            assert np.any(gradient)


def check_train_and_test_are_disjoint(stream):
    for index in range(NUM_TASKS):
        rows = [np.asarray(jax.tree.leaves(batch.inputs)[0]) for batch in batches(stream, index)]
        seen = [{row.tobytes() for row in part} for part in rows]
        assert len(seen) == 1 or not seen[0] & seen[1]


def check_nothing_recompiles(stream, compilations):
    make_task = jax.jit(jax.vmap(stream.task, (0, None)))
    make_batches = [jax.jit(jax.vmap(batch_of, (None, 0, None))) for _, batch_of in parts(stream)]
    keys, indices = jax.random.split(KEY, 2), jnp.arange(2)
    for index in range(NUM_TASKS):
        task = make_task(keys, np.int32(index))
        jax.block_until_ready([batch_of(stream.data, task, indices) for batch_of in make_batches])
        if index == 0:
            compilations.clear()
    assert not compilations


CHECKS = [check for name, check in globals().items() if name.startswith("check_")]


def run(check, stream, compilations):
    check(*[stream, compilations][: len(inspect.signature(check).parameters)])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", STREAMS)
def test_contract(name, check, compilations):
    run(check, make(name), compilations)


@pytest.mark.parametrize("name", STREAMS)
def test_registry_row_is_complete(name):
    stream = make(name)
    assert (stream.name, stream.num_tasks) == (name, NUM_TASKS)
    assert stream.dataset == (DATA.get(name, DIGITS).name if takes_dataset(name) else "generated")
    when, _, _ = stream.headline.partition("_")
    assert when in ("online", "train", "test")
    assert when != "test" or stream.test is not None
    assert stream.chance is None or 0 < stream.chance <= 1
    assert all(isinstance(size(index), int) for size, _ in parts(stream) for index in range(NUM_TASKS))
    assert (stream.micro_steps, stream.at, stream.augment) == (1, None, None)


@pytest.mark.parametrize("name", STREAMS)
def test_what_a_stream_keeps(name):
    """Example i has the same inputs, or the same targets, in every task."""
    stream = make(name)
    if stream.keeps is not None:
        kept = [getattr(train_set(stream, index), stream.keeps) for index in (0, 1)]
        np.testing.assert_array_equal(*(jax.tree.leaves(each)[0] for each in kept))


@pytest.mark.parametrize("name", STREAMS)
def test_refuses_no_tasks(name):
    with pytest.raises(UserError, match=r"got (num_)?tasks=0; wanted .*1"):
        STREAMS[name](*[MANY] * takes_dataset(name), num_tasks=0)


@pytest.mark.parametrize("name", STREAMS)
def test_every_option_has_a_scalar_default(name):
    """So that the command line can set it."""
    parameters = inspect.signature(STREAMS[name]).parameters.values()
    options = [option for option in parameters if option.kind is inspect.Parameter.KEYWORD_ONLY]
    assert "num_tasks" in {option.name for option in options}
    assert all(isinstance(option.default, int | float | str) for option in options)


@pytest.mark.parametrize("name", STREAMS)
def test_docstring_is_complete(name):
    doc = inspect.getdoc(STREAMS[name])
    for section in ("Args:", "Returns:", "Raises:", "Example:", "References:"):
        assert section in doc
    for option in inspect.signature(STREAMS[name]).parameters:
        assert f"  {option}: " in doc


GOOD = make("label-shuffle")


def _stateful():
    """Tasks that are drawn one after the other."""
    calls = itertools.count()
    return GOOD._replace(task=lambda key, index: GOOD.task(key, next(calls)))


def _shared_seed():
    return GOOD._replace(task=lambda key, index: GOOD.task(KEY, index))


def _standing_still():
    return GOOD._replace(task=lambda key, index: GOOD.task(key, 0))


def _growing():
    """A task whose shape is its number."""
    return GOOD._replace(task=lambda key, index: jnp.zeros(10 + int(index), jnp.int32))


def _host_index():
    return GOOD._replace(task=lambda key, index: GOOD.task(key, int(index)))


def _whole_batch():
    """Images that are normalised batch by batch."""

    def train_batch(data, task, indices):
        batch = GOOD.train.batch(data, task, indices)
        return batch._replace(inputs=batch.inputs - batch.inputs.mean(axis=0, keepdims=True))

    return GOOD._replace(train=GOOD.train._replace(batch=train_batch))


def _leaking():
    return GOOD._replace(test=GOOD.test._replace(batch=GOOD.train.batch))


def _too_many_classes():
    return GOOD._replace(num_outputs=9)


def _no_loss():
    losses = jax.vmap(lambda output, target: 0.0 * output[target])
    return GOOD._replace(
        objective=GOOD.objective._replace(losses=lambda output, targets, task: losses(output, targets))
    )


BROKEN = {
    "stateful": (_stateful, check_a_task_is_a_function_of_key_and_index),
    "shared seed": (_shared_seed, check_seeds_differ),
    "standing still": (_standing_still, check_tasks_differ),
    "growing": (_growing, check_tasks_have_one_shape),
    "host index": (_host_index, check_jit_and_vmap_change_nothing),
    "host index recompiles": (_host_index, check_nothing_recompiles),
    "whole batch": (_whole_batch, check_an_example_is_the_same_in_every_batch),
    "leaking": (_leaking, check_train_and_test_are_disjoint),
    "too many classes": (_too_many_classes, check_batches_are_what_the_stream_says),
    "no loss": (_no_loss, check_the_objective_takes_them),
}


def test_every_check_can_fail():
    assert {check for _, check in BROKEN.values()} == set(CHECKS)


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_stream_fails(defect, compilations):
    broken, check = BROKEN[defect]
    with pytest.raises((AssertionError, jax.errors.ConcretizationTypeError)):
        run(check, broken(), compilations)


@pytest.mark.parametrize("name", STREAMS)
def test_more_tasks_leave_the_first_ones_as_they_are(name):
    """Unless the stream says that they do not: then a run of it cannot be extended."""
    dataset = [DATA.get(name, DIGITS)] if takes_dataset(name) else []
    fewer = STREAMS[name](*dataset, num_tasks=NUM_TASKS - 1, **OPTIONS.get(name, {}))
    index = NUM_TASKS - 2
    sizes = [[split.num(index) for split in parts(stream)] for stream in (fewer, make(name))]
    leaves = [jax.tree.leaves((stream.data, stream.task(KEY, index))) for stream in (fewer, make(name))]
    is_same = all(np.array_equal(ours, theirs) for ours, theirs in zip(*leaves, strict=True))
    assert fewer.depends_on_num_tasks == (sizes[0] != sizes[1] or not is_same)
    assert fewer.num_outputs == make(name).num_outputs
