import jax
import jax.numpy as jnp
import numpy as np
import pytest

from many_classes import many_classes
from pliant.errors import UserError
from pliant.streams import class_incremental, load_dataset
from strict_types import unchecked

MANY = many_classes(num_classes=12, num_train=6, num_test=3)


def train_set(stream, key, index):
    return stream.train.batch(stream.data, stream.task(key, index), jnp.arange(stream.train.num(index)))


def examples(batch):
    return {tuple(image) for image in np.asarray(batch.inputs).reshape(len(batch.inputs), -1)}


def test_classes_and_examples_are_nested(key):
    stream = class_incremental(MANY, num_tasks=4, classes_per_task=3)
    earlier, seen_earlier = set(), np.zeros(12, bool)
    for index in range(4):
        batch, task = train_set(stream, key, index), stream.task(key, index)
        seen = np.asarray(task.seen)
        assert seen.sum() == 3 * (index + 1)
        assert seen[seen_earlier].all()
        assert set(np.asarray(batch.targets)) == set(np.flatnonzero(seen)) == set(np.asarray(task.order)[: seen.sum()])
        assert len(examples(batch)) == stream.train.num(index) == 18 * (index + 1)
        assert earlier <= examples(batch)
        earlier, seen_earlier = examples(batch), seen


def test_labels_are_the_true_ones(key):
    stream = class_incremental(MANY, num_tasks=4, classes_per_task=3)
    true = {
        tuple(image): label for image, label in zip(MANY.train.images.reshape(73, -1), MANY.train.labels, strict=True)
    }
    batch = train_set(stream, key, 3)
    images = np.rint(np.asarray(batch.inputs) * 127.5 + 127.5).astype(np.uint8).reshape(72, -1)
    assert [true[tuple(image)] for image in images] == np.asarray(batch.targets).tolist()
    np.testing.assert_array_equal(np.bincount(batch.targets), np.full(12, 6))


def test_test_images_are_those_of_the_seen_classes(key):
    stream = class_incremental(MANY, num_tasks=4, classes_per_task=3)
    assert [stream.test.num(index) for index in range(4)] == [9, 18, 27, 36]
    batch = stream.test.batch(stream.data, stream.task(key, 1), jnp.arange(18))
    np.testing.assert_array_equal(np.bincount(batch.targets, minlength=12), 3 * np.asarray(stream.task(key, 1).seen))


def test_order(key):
    natural = class_incremental(MANY, num_tasks=4, classes_per_task=3, order="natural")
    assert natural.task(key, 2).order.tolist() == list(range(12))
    assert natural.task(key, 2).seen.tolist() == [True] * 9 + [False] * 3
    random = class_incremental(MANY, num_tasks=4, classes_per_task=3)
    orders = [random.task(jax.random.key(seed), 0).order.tolist() for seed in range(3)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len(set(map(tuple, orders))) == 3
    assert random.task(key, 3).order.tolist() == orders[0]


def test_unseen_classes_get_no_gradient_and_are_no_answer(key):
    stream = class_incremental(MANY, num_tasks=4, classes_per_task=3)
    task, batch = stream.task(key, 1), train_set(stream, key, 1)
    output = jax.random.normal(key, (36, 12)) + jnp.where(task.seen, 0.0, 9.0)[None]
    gradient = jax.grad(lambda output: stream.objective.losses(output, batch.targets, task).mean())(output)
    seen = np.asarray(task.seen)
    assert not np.any(np.asarray(gradient)[:, ~seen])
    assert np.all(np.asarray(gradient)[:, seen] != 0)
    masked = np.where(seen, output, -np.inf)
    scores = stream.objective.scores(output, batch.targets, task)
    np.testing.assert_array_equal(scores, masked.argmax(1) == np.asarray(batch.targets))


def test_uniform_outputs_cost_the_log_of_the_number_of_seen_classes(key):
    stream = class_incremental(MANY, num_tasks=4, classes_per_task=3)
    for index in range(4):
        targets = train_set(stream, key, index).targets
        losses = stream.objective.losses(jnp.zeros((len(targets), 12)), targets, stream.task(key, index))
        np.testing.assert_allclose(losses, np.log(3 * (index + 1)), rtol=1e-6)


def test_the_published_sizes():
    stream = class_incremental(many_classes(num_classes=100, num_train=500, num_test=100))
    assert (stream.num_tasks, stream.train.num(0), stream.train.num(19)) == (20, 2500, 50_000)
    assert (stream.test.num(0), stream.test.num(19), stream.num_outputs) == (500, 10_000, 100)


def test_errors():
    with pytest.raises(UserError, match="got order='sorted'; wanted 'random' or 'natural'"):
        unchecked(class_incremental)(MANY, num_tasks=4, classes_per_task=3, order="sorted")
    message = r"got 20 tasks of 5 new classes each from 'many'; wanted at most its 12 classes in total. Lower --tasks"
    with pytest.raises(UserError, match=message):
        class_incremental(MANY)
    with pytest.raises(UserError, match="got classes_per_task=0; wanted a finite number ≥ 1"):
        class_incremental(MANY, num_tasks=1, classes_per_task=0)
    few = load_dataset("digits", test_size=9)
    with pytest.raises(UserError, match="got a class of 'digits' without test images; wanted images of every class"):
        class_incremental(few, num_tasks=2, classes_per_task=2)
