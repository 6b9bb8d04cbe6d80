import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from many_classes import many_classes
from pliant.errors import UserError
from pliant.streams import (
    CLASSIFICATION,
    STREAMS,
    TRANSITIONS,
    abrupt,
    class_incremental,
    input_interpolation,
    label_noise,
    label_shuffle,
    load_dataset,
    output_interpolation,
    permuted_pixels,
    random_labels,
    random_seq2seq,
    random_teacher,
    slowly_changing_regression,
    task_sampling,
)
from pliant.streams._transitions import num_new
from pliant.types import Batch, Split, Stream

DIGITS = load_dataset("digits", train_size=100, test_size=50)
LABELS, PIXELS = random_labels(DIGITS), permuted_pixels(DIGITS)
TEXTS = random_seq2seq(num_examples=20, source_words=2, target_words=2)
ALL = jnp.arange(100)
SOME = jnp.array([7, 0, 31, 99])


def _between(stream, key, index, micro_step):
    """A task of a gradual stream, after a micro-step."""
    return stream.at(stream.task(key, index), micro_step)


def _batch(stream, task, indices=SOME):
    return stream.train.batch(stream.data, task, indices)


def _targets_of(stream, task, indices, shape):
    """The distributions that the loss compares with: softmax(0) less the gradient at outputs of 0."""
    batch = _batch(stream, task, indices)
    gradient = jax.grad(lambda output: stream.objective.losses(output, batch.targets, task).sum())(jnp.zeros(shape))
    return 1 / shape[-1] - gradient


def _numbered(num=lambda index: 30):
    """A stream whose inputs are the numbers of the examples, and whose targets are that of the task."""
    return Stream(
        name="numbered",
        dataset="generated",
        num_tasks=4,
        num_outputs=4,
        inputs=jax.ShapeDtypeStruct((1,), jnp.float32),
        train=Split(
            num,
            lambda data, task, indices: Batch(indices[:, None].astype(jnp.float32), jnp.full(len(indices), task)),
        ),
        objective=CLASSIFICATION,
        headline="train_accuracy",
        chance=None,
        data=(),
        task=lambda key, index: jnp.int32(index),
    )


@pytest.mark.parametrize(
    ("micro_step", "weight_old", "weight_new"),
    [(0, 1.0, 0.0), (1, 0.5, 0.0), (2, 0.0, 0.0), (3, 0.0, 0.5), (4, 0.0, 1.0)],
)
def test_labels_fade_to_uniform_and_to_the_new_ones(key, micro_step, weight_old, weight_new):
    stream = output_interpolation(LABELS, micro_steps=4)
    old, new = (np.eye(10)[np.asarray(LABELS.task(key, index))[SOME]] for index in (1, 2))
    task = _between(stream, key, 2, micro_step)
    found = _targets_of(stream, task, SOME, (4, 10))
    wanted = weight_old * old + weight_new * new + (1 - weight_old - weight_new) / 10
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_loss_of_soft_labels_by_hand(key):
    stream = output_interpolation(LABELS, micro_steps=10)
    output = 3 * jax.random.normal(key, (4, 10))
    chances = np.asarray(jax.nn.softmax(output), np.float64)
    for micro_step in range(11):
        task = _between(stream, key, 1, micro_step)
        old, new = (np.eye(10)[np.asarray(LABELS.task(key, index))[SOME]] for index in (0, 1))
        a = micro_step / 10
        soft = (1 - 2 * a) * old + 2 * a / 10 if a <= 0.5 else (2 * a - 1) * new + (2 - 2 * a) / 10
        losses = stream.objective.losses(output, _batch(stream, task).targets, task)
        np.testing.assert_allclose(losses, -(soft * np.log(chances)).sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize("micro_steps", [4, 5])
def test_labels_are_scored_against_the_nearer(key, micro_steps):
    stream = output_interpolation(LABELS, micro_steps=micro_steps)
    old, new = (LABELS.task(key, index) for index in (0, 1))
    for micro_step in range(micro_steps + 1):
        task = _between(stream, key, 1, micro_step)
        nearer = new if 2 * micro_step >= micro_steps else old
        batch = _batch(stream, task, ALL)
        scores = stream.objective.scores(jax.nn.one_hot(nearer, 10), batch.targets, task)
        assert scores.tolist() == [1.0] * 100


def test_tokens_fade_one_by_one(key):
    stream = output_interpolation(TEXTS, micro_steps=4)
    indices = jnp.arange(3)
    for micro_step, weight, index in ((1, 0.5, 0), (2, 0.0, 1), (3, 0.5, 1), (4, 1.0, 1)):
        task = _between(stream, key, 1, micro_step)
        hard = np.eye(29)[np.asarray(TEXTS.task(key, index))[:3]]
        found = 12 * _targets_of(stream, task, indices, (3, 12, 29)) - 11 / 29  # the mean over twelve tokens
        np.testing.assert_allclose(found, weight * hard + (1 - weight) / 29, atol=1e-5)


def test_the_decoder_reads_the_nearer_text(key):
    stream = output_interpolation(TEXTS, micro_steps=4)
    for micro_step, index in ((1, 0), (2, 1), (4, 1)):
        task, target = _between(stream, key, 1, micro_step), TEXTS.task(key, index)
        batch = _batch(stream, task, jnp.arange(20))
        np.testing.assert_array_equal(batch.inputs.decoder[:, 1:], target[:, :-1])
        np.testing.assert_array_equal(batch.inputs.source, TEXTS.data)
        scores = stream.objective.scores(
            jax.nn.one_hot(target, 29), batch.targets, _between(stream, key, 1, micro_step)
        )
        assert scores.tolist() == [1.0] * 20


def test_padding_does_not_fade(key):
    """Of a text that is shorter, what is behind its end has no loss."""

    def shorter(data, task, indices):
        batch = TEXTS.train.batch(data, task, indices)
        return batch._replace(targets=batch.targets.at[:, 6:].set(0))

    stream = output_interpolation(TEXTS._replace(train=TEXTS.train._replace(batch=shorter)), micro_steps=4)
    task = _between(stream, key, 1, 1)
    batch = _batch(stream, task, jnp.arange(3))
    gradient = jax.grad(lambda output: stream.objective.losses(output, batch.targets, task).sum())(
        jnp.zeros((3, 12, 29))
    )
    assert (gradient[:, 6:] == 0).all()
    assert (gradient[:, :6] != 0).all()


def test_inputs_fade_in_a_straight_line(key):
    stream = input_interpolation(PIXELS, micro_steps=5)
    old, new = (_batch(PIXELS, PIXELS.task(key, index)) for index in (0, 1))
    assert (old.inputs != new.inputs).any()
    for micro_step in range(6):
        batch = _batch(stream, _between(stream, key, 1, micro_step))
        a = micro_step / 5
        wanted = (1 - a) * np.asarray(old.inputs, np.float64) + a * np.asarray(new.inputs, np.float64)
        np.testing.assert_allclose(batch.inputs, wanted, atol=1e-5)
        np.testing.assert_array_equal(batch.targets, new.targets)


@pytest.mark.parametrize("micro_steps", [2, 7, 30, 45])
def test_samples_of_both_tasks_sum_to_all_examples(micro_steps, key):
    stream = task_sampling(_numbered(), micro_steps=micro_steps)
    shares, before = [], (set(), set(range(30)))
    for micro_step in range(micro_steps + 1):
        batch = _batch(stream, _between(stream, key, 2, micro_step), jnp.arange(30))
        examples, tasks = (np.asarray(leaf) for leaf in (batch.inputs[:, 0], batch.targets))
        new, old = (set(examples[tasks == index].tolist()) for index in (2, 1))
        assert len(new) + len(old) == 30  # so none is there twice
        assert len(new) == np.floor(micro_step * 30 / micro_steps + 0.5)
        assert new >= before[0]
        assert old <= before[1]
        shares.append(len(new))
        before = new, old
    assert (shares[0], shares[-1]) == (0, 30)


def test_samples_are_random_subsets(key):
    """No prefixes; others for each task and seed; and those of the old and the new task are independent."""
    stream = task_sampling(_numbered(lambda index: 400), micro_steps=2)

    def subsets(key, index):
        batch = _batch(stream, _between(stream, key, index, 1), jnp.arange(400))
        examples, tasks = (np.asarray(leaf) for leaf in (batch.inputs[:, 0], batch.targets))
        return [examples[tasks == task].astype(int) for task in (index, index - 1)]

    drawn = [*subsets(key, 1), *subsets(key, 2), *subsets(jax.random.key(1), 1)]
    for subset in drawn:
        assert abs(subset.mean() - 199.5) < 4 * 400 / np.sqrt(12 * 200)
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            both = len(set(one) & set(other))  # hypergeometric: mean 100, deviation 5
            assert abs(both - 100) < 25


def test_sampled_texts_come_whole(key):
    stream = task_sampling(TEXTS, micro_steps=2)
    batch = _batch(stream, _between(stream, key, 1, 1), jnp.arange(20))
    np.testing.assert_array_equal(batch.inputs.decoder[:, 1:], batch.targets[:, :-1])
    pairs = [np.concatenate([TEXTS.data, TEXTS.task(key, index)], axis=1).tolist() for index in (0, 1)]
    found = np.concatenate([batch.inputs.source, batch.targets], axis=1).tolist()
    assert sum(pair in pairs[1] for pair in found) == sum(pair in pairs[0] for pair in found) == 10


@pytest.mark.parametrize(("size", "micro_steps"), [(1_000_000, 9_999), (5120, 20), (7, 3), (3, 7), (1, 2)])
def test_numbers_of_samples_are_exact(size, micro_steps):
    task = task_sampling(_numbered(lambda index: 2), micro_steps=2).task(jax.random.key(0), 1)
    for micro_step in {0, 1, micro_steps // 2, micro_steps - 1, micro_steps}:
        exact = (fractions.Fraction(micro_step * size, micro_steps) + fractions.Fraction(1, 2)).__floor__()
        assert int(num_new(task._replace(micro_step=jnp.int32(micro_step)), size, micro_steps)) == exact


GRADUAL = {
    "output-interpolation": (label_shuffle(DIGITS), output_interpolation),
    "input-interpolation": (PIXELS, input_interpolation),
    "task-sampling": (label_shuffle(DIGITS), task_sampling),
    "texts, output-interpolation": (TEXTS, output_interpolation),
}


@pytest.mark.parametrize("name", GRADUAL)
def test_the_last_micro_step_is_the_pure_new_task_and_the_one_before_the_first_the_old(name, key):
    pure, transition = GRADUAL[name]
    stream = transition(pure, micro_steps=3)
    assert stream.micro_steps == 3
    size = pure.train.num(0)
    for micro_step, index in ((0, 1), (3, 2)):
        task = _between(stream, key, 2, micro_step)
        wanted = _batch(pure, pure.task(key, index), jnp.arange(size))
        found = _batch(stream, task, jnp.arange(size))
        output = jax.random.normal(key, (*wanted.targets.shape, pure.num_outputs))
        if transition is task_sampling:  # the same examples in another order
            order = np.argsort(task.subsets[micro_step // 3])
            found = jax.tree.map(lambda leaf, order=order: leaf[order], found)
        for leaf, other in zip(*map(jax.tree.leaves, (found.inputs, wanted.inputs)), strict=True):
            np.testing.assert_array_equal(leaf, other)
        for measure in ("losses", "scores"):
            values = getattr(stream.objective, measure)(output, found.targets, task)
            expected = getattr(pure.objective, measure)(output, wanted.targets, pure.task(key, index))
            np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("name", GRADUAL)
def test_a_task_is_made_pure_and_the_first_has_no_predecessor(name, key):
    pure, transition = GRADUAL[name]
    stream = transition(pure, micro_steps=3)
    for index in (0, 1, 2):
        task = stream.task(key, index)
        assert int(task.micro_step) == 3
        np.testing.assert_array_equal(task.new, pure.task(key, index))
        np.testing.assert_array_equal(task.old, pure.task(key, max(index - 1, 0)))


@pytest.mark.parametrize("name", ["output-interpolation", "input-interpolation", "task-sampling"])
def test_test_examples_are_the_pure_new_tasks(name, key):
    """Whatever the micro-step: there is no transition of a test set."""
    pure, transition = GRADUAL[name]
    stream = transition(pure, micro_steps=4)
    at = jnp.arange(50)
    wanted = pure.test.batch(pure.data, pure.task(key, 2), at)
    output = jax.random.normal(key, (50, 10))
    for micro_step in (1, 4):
        task = _between(stream, key, 2, micro_step)
        batch = stream.test.batch(stream.data, task, at)
        np.testing.assert_array_equal(batch.inputs, wanted.inputs)
        np.testing.assert_array_equal(batch.targets, wanted.targets)
        scores = stream.objective.scores(output, batch.targets, task)
        np.testing.assert_array_equal(scores, pure.objective.scores(output, wanted.targets, task.new))


@pytest.mark.parametrize("name", GRADUAL)
def test_nothing_recompiles_between_micro_steps_and_seeds_map(name, key, compilations):
    pure, transition = GRADUAL[name]
    stream = transition(pure, micro_steps=3)
    output = jnp.zeros((*_batch(pure, pure.task(key, 0), SOME).targets.shape, pure.num_outputs))

    def one(key, index, micro_step):
        task = _between(stream, key, index, micro_step)
        return stream.objective.losses(output, _batch(stream, task).targets, task)

    together = jax.jit(jax.vmap(one, (0, None, None)))
    keys = jax.random.split(key, 2)
    together(keys, jnp.int32(1), jnp.int32(1)).block_until_ready()
    count = len(compilations)
    found = [together(keys, jnp.int32(2), jnp.int32(micro_step)) for micro_step in (2, 3)]
    assert len(compilations) == count
    for micro_step, losses in zip((2, 3), found, strict=True):
        np.testing.assert_allclose(losses, [one(each, 2, micro_step) for each in keys], rtol=1e-5)


@pytest.mark.parametrize("name", TRANSITIONS)
def test_one_step_is_the_abrupt_stream_itself(name):
    stream = PIXELS if name == "input-interpolation" else LABELS
    assert TRANSITIONS[name](stream, micro_steps=1) is stream


def test_every_stream_is_refused_or_made(key):
    """What `keeps` promises decides; sizes decide for sampling."""
    made = set()
    for name, factory in STREAMS.items():
        needs_data = "dataset" in factory.__annotations__
        many = name in ("class-incremental", "five-plus-one", "class-pairs")
        stream = factory(*[many_classes() if many else DIGITS] * needs_data, num_tasks=3)
        for transition in ("output-interpolation", "input-interpolation", "task-sampling"):
            try:
                gradual = TRANSITIONS[transition](stream, micro_steps=2)
            except UserError:
                continue
            made.add((name, transition))
            batch = jax.eval_shape(lambda stream=gradual: _batch(stream, _between(stream, key, 1, 1)))
            assert jax.tree.leaves(batch.inputs)[0].shape[0] == len(SOME)
    assert {name for name, transition in made if transition == "input-interpolation"} == {"permuted-pixels"}
    assert {name for name, transition in made if transition == "output-interpolation"} == {
        "random-labels",
        "label-shuffle",
        "random-seq2seq",
        "bigram-cipher",
    }
    assert ("permuted-pixels", "task-sampling") in made
    assert ("class-incremental", "task-sampling") not in made


@pytest.mark.parametrize(
    ("transition", "stream", "message"),
    [
        (
            output_interpolation,
            PIXELS,
            r"output interpolation of permuted-pixels, .* its targets .*random-labels",
        ),
        (
            output_interpolation,
            random_teacher(),
            r"random-teacher.*inputs .*score: squared_error.*classes change",
        ),
        (output_interpolation, slowly_changing_regression(num_examples=50), "neither inputs nor targets"),
        (output_interpolation, class_incremental(many_classes(), num_tasks=2), "neither inputs nor targets"),
        (output_interpolation, label_noise(DIGITS, num_tasks=2), "neither inputs nor targets"),
        (input_interpolation, LABELS, r"input interpolation of random-labels, .* keeps its inputs.*permuted-pixels"),
        (input_interpolation, TEXTS, r"input interpolation of random-seq2seq.*See `pliant list transitions`"),
        (
            task_sampling,
            _numbered(lambda index: 30 + index),
            r"task sampling of numbered.*equally many examples",
        ),
    ],
)
def test_transitions_that_make_no_sense_are_refused(transition, stream, message):
    for micro_steps in (1, 4):
        with pytest.raises(UserError, match=message):
            transition(stream, micro_steps=micro_steps)


@pytest.mark.parametrize("micro_steps", [0, -1, 10_001])
@pytest.mark.parametrize(
    ("transition", "stream"), [(output_interpolation, LABELS), (input_interpolation, PIXELS), (task_sampling, LABELS)]
)
def test_numbers_of_micro_steps_out_of_range(transition, stream, micro_steps):
    with pytest.raises(UserError, match=rf"got micro_steps={micro_steps}; wanted a number in \[1, 10000\]"):
        transition(stream, micro_steps=micro_steps)


def test_an_abrupt_change_has_one_step():
    with pytest.raises(UserError, match=r"got micro_steps=4 with the transition 'abrupt'; wanted 1.*--transition"):
        abrupt(LABELS, micro_steps=4)
