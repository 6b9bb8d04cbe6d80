import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pliant.training._trainer as trainer_module
from pliant.errors import UserError
from pliant.networks import mlp
from pliant.streams import class_incremental, load_dataset
from pliant.supervised import RunConfig, make_plan, run, source_of
from pliant.training import TrainState, better, make_learner, no_best
from pliant.types import Scene

STREAM = class_incremental(load_dataset("digits"), num_tasks=3, classes_per_task=3, validation_per_class=10)
CONFIG = RunConfig(
    stream="class-incremental",
    settings=("class-incremental.validation_per_class=10", "class-incremental.classes_per_task=3"),
    weights_at_end="best-validation",
    methods=("adam",),
    learning_rate=0.03,
    widths=(16,),
    train_size=300,
    tasks=2,
    seeds=2,
)


def _state(network, key, factor=1.0):
    params, state = network.init(key)
    return TrainState(jax.tree.map(lambda leaf: factor * leaf, params), state, (), (), ())


def test_the_held_out_images_are_in_neither_training_nor_test(key):
    task = STREAM.task(key, 1)
    train = STREAM.train.batch(STREAM.data, task, jnp.arange(STREAM.train.num(1)))
    held_out = STREAM.validation.batch(STREAM.data, task, jnp.arange(STREAM.validation.num(1)))
    test = STREAM.test.batch(STREAM.data, task, jnp.arange(STREAM.test.num(1)))
    assert np.bincount(held_out.targets, minlength=10)[np.asarray(task.seen)].tolist() == [10] * 6
    whole = class_incremental(load_dataset("digits"), num_tasks=3, classes_per_task=3)
    assert STREAM.train.num(1) == whole.train.num(1) - 60
    assert set(np.unique(held_out.targets)) == set(np.unique(train.targets)) == set(np.unique(test.targets))
    images = [{image.tobytes() for image in np.asarray(batch.inputs)} for batch in (held_out, train, test)]
    assert len(images[0]) == 60
    assert not images[0] & (images[1] | images[2])


def test_the_better_score_stays_and_the_first_of_two_equals(key):
    network, task = mlp((8, 8, 1), 10, widths=(16,)), STREAM.task(key, 2)
    source = source_of(STREAM, CONFIG)
    facts = source.facts(2)
    scene = Scene(key, STREAM.data, task, facts)
    batch = STREAM.validation.batch(STREAM.data, task, jnp.arange(facts.num_validation))

    def accuracy(state):
        output = network.apply(state.params, state.statistics, batch.inputs, train=False, key=None)[0]
        return float((jnp.where(task.seen, output, -jnp.inf).argmax(1) == batch.targets).mean())

    states = [_state(network, jax.random.key(seed)) for seed in range(4)]
    scores = [accuracy(state) for state in states]
    assert len(set(scores)) > 1
    best = no_best(states[0])
    for state in states:
        best = better(network, source.selection, best, state, scene, ())
    assert float(best.score) == pytest.approx(max(scores))
    winner = states[int(np.argmax(scores))]
    jax.tree.map(np.testing.assert_array_equal, best.params, winner.params)
    doubled = _state(network, jax.random.key(int(np.argmax(scores))), factor=2.0)  # answers the same
    again = better(network, source.selection, best, doubled, scene, ())
    jax.tree.map(np.testing.assert_array_equal, again.params, winner.params)


def test_a_task_ends_with_the_best_epoch(tmp_path):
    """The weights are those of a run that stopped after that epoch."""
    last = {"weights_at_end": "last"}
    runs = {epochs: _table(tmp_path, epochs) for epochs in range(1, 7)}
    of_seed = {seed: [runs[epochs]["validation_accuracy", seed] for epochs in runs] for seed in range(2)}
    best = {seed: int(np.argmax(scores)) + 1 for seed, scores in of_seed.items()}
    assert all((np.diff(scores) >= 0).all() for scores in of_seed.values())
    assert min(best.values()) < 6
    for seed, epochs in best.items():
        stopped = _table(tmp_path, epochs, **last)
        for metric in ("train_accuracy", "test_accuracy", "weight_norm"):
            assert runs[6][metric, seed] == stopped[metric, seed]


def test_the_next_task_begins_with_them(tmp_path, monkeypatch):
    ended, begun, last = {}, {}, {}

    def watching(method, num_seeds, **options):
        learner = make_learner(method, num_seeds, **options)

        def evaluate(item, shared):
            ended[len(ended)] = item.views.params
            return learner.observers.evaluate(item, shared)

        def train(item, shared):
            begun.setdefault(len(ended), item[1].carry.learner.params)
            trained = learner.train(item, shared)
            last[len(ended)] = trained[1].learner.params
            return trained

        return learner._replace(observers=learner.observers._replace(evaluate=evaluate), train=train)

    monkeypatch.setattr(trainer_module, "make_learner", watching)
    run(dataclasses.replace(CONFIG, epochs=6, learning_rate=0.3), tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, begun[1], ended[0])
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(last[0]), jax.tree.leaves(ended[0]), strict=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stream": "random-labels", "settings": ()}, ("holds out no examples", "validation_per_class=50")),
        ({"settings": ()}, ("holds out no examples",)),
        ({"settings": ("class-incremental.validation_per_class=30",)}, ("validation_per_class=30", "0 to 29")),
    ],
)
def test_errors(changes, words):
    with pytest.raises(UserError) as caught:
        make_plan(dataclasses.replace(CONFIG, **changes))
    assert all(word in str(caught.value) for word in words)


def _table(tmp_path, epochs, **changes):
    config = dataclasses.replace(CONFIG, tasks=1, epochs=epochs, **changes)
    name = "-".join(map(str, (epochs, *changes.values())))
    return run(config, tmp_path / name).metrics.set_index(["metric", "seed"])["value"]
