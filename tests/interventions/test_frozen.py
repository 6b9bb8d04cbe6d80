import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contracts import method_checks as checks
from pliant.errors import UserError
from pliant.interventions import continual_backprop, hare_tortoise, keep_frozen, nap, redo, snr, weight_clipping
from pliant.keys import seed_keys
from pliant.methods import METHODS, build, defaults, find, wrapped
from pliant.networks import mlp
from pliant.training import init_state, switch_task, train_step
from pliant.types import Fresh, Learned, Lesson, Signals, by_path

NETWORK = mlp((6,), 3, widths=(4, 4, 4), norm="layer", use_bias=False)


def frozen(network, *paths):
    return network._replace(wiring=network.wiring._replace(frozen=frozenset(paths)))


def test_nothing_is_wrapped_where_nothing_is_frozen():
    method = hare_tortoise()
    assert keep_frozen(method, NETWORK.wiring) is method


@pytest.mark.parametrize("name", ["adamo+redo+shrink-perturb", "muon+full-reset", "upgd+dash+hare-tortoise"])
def test_frozen_parameters_stay_through_training_and_a_switch(name):
    method, paths = find(name), ("dense_0/kernel", "head/bias")
    values = defaults(method, 0.1)
    values |= {option: 1 for option in values if option.endswith("every")} | {"num_batches": 1, "threshold": 1e9}
    values = {option: value for option, value in values.items() if option in defaults(method)}
    network = frozen(wrapped(method, mlp((6,), 3, widths=(4, 4)), values), *paths)
    parts, keys = build(method, network.wiring, values), seed_keys(0)
    stream = checks.load_stream(checks.CLASSIFICATION, 3, checks.TARGETS)
    batch = stream.train.batch((), (), jnp.arange(16))

    @jax.jit
    def through(state):
        state, _ = switch_task(network, parts, state, keys, jnp.int32(1), head="fresh")
        for step in (1, 2):
            lesson = Lesson(batch, (), lambda key, number: batch)
            state = train_step(network, parts, stream.objective, state, lesson, jnp.int32(step), keys).state
        return state

    state = init_state(network, parts, keys.network)
    state = state._replace(params=jax.tree.map(lambda leaf: leaf + 0.5, state.params))
    after = through(state)
    seen = [after.params]
    if parts.intervention.reported:
        seen.append(parts.intervention.reported(after.learned(), after.intervention)[0])
    for params in seen:
        for path, leaf in by_path(params).items():
            is_same = np.array_equal(leaf, by_path(state.params)[path])
            assert is_same == (path in paths), path


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.intervention])
def test_what_builds_a_method_keeps_its_hands_off_frozen_parameters(name):
    """Of every intervention in the registry: what comes out is what went in, not something that equals it."""
    method = METHODS[name]
    values = defaults(method, 0.1)
    options = {"widths": (4, 4)} | dict(method.network)
    network = wrapped(method, mlp((6,), 3, **options), values)
    shapes, state = jax.eval_shape(network.init, jax.random.key(0))
    paths = list(by_path(shapes))
    network = frozen(network, *paths[:1])
    parts = build(method, network.wiring, values)

    def hooks(params, state):
        learned = Learned(params, state, parts.optimizer.init(params))
        kept = parts.intervention.init(learned)
        features = network.apply(params, state, jnp.ones((2, 6)), train=False)[1]
        fresh = Fresh(network.init, parts.optimizer.init)
        signals = Signals(params, features, lambda *_: features, fresh)
        found = []
        if parts.intervention.update:
            found.append(parts.intervention.update(jax.random.key(0), 1, learned, kept, signals)[0].params)
        if parts.intervention.switch:
            found.append(parts.intervention.switch(jax.random.key(0), 1, learned, kept, fresh)[0].params)
        return [by_path(params)[paths[0]] for params in found]

    program = jax.make_jaxpr(hooks)(shapes, state).jaxpr
    assert program.outvars
    assert all(out is program.invars[0] for out in program.outvars)


def test_units_that_a_frozen_parameter_feeds_or_reads_are_not_reset():
    network = frozen(NETWORK, "dense_1/kernel")  # feeds the second layer and reads the first
    params, state = network.init(jax.random.key(0))
    features = {name: jnp.zeros((8, 4)) for name in ("dense_0", "dense_1", "dense_2")}
    signals = Signals(params, features, lambda *_: features, None)
    method, learned = redo(network.wiring, threshold=0.0, every=1), Learned(params, state, ())
    after, _, info = method.update(jax.random.key(1), 1, learned, (), signals)
    moved = {path for path, leaf in by_path(after.params).items() if (leaf != by_path(params)[path]).any()}
    assert int(info["units_reset"]) == 4
    assert moved == {"dense_2/kernel", "head/kernel"}


def test_interventions_made_by_hand_know_the_wiring():
    network = frozen(NETWORK, "dense_0/kernel")
    params, state = network.init(jax.random.key(0))
    grown = Learned(jax.tree.map(lambda leaf: 9 * leaf, params), state, ())
    for method in (weight_clipping(network.wiring), nap(network.wiring, every=1)):
        after, _, _ = method.update(jax.random.key(1), 1, grown, method.init(Learned(params, state, ())), None)
        assert (after.params["dense_0"]["kernel"] == grown.params["dense_0"]["kernel"]).all()
        assert (after.params["dense_1"]["kernel"] != grown.params["dense_1"]["kernel"]).any()


@pytest.mark.parametrize("make", [redo, snr, continual_backprop])
def test_a_network_that_is_all_frozen_is_refused(make):
    wiring = NETWORK.wiring._replace(frozen=frozenset(NETWORK.wiring.roles))
    with pytest.raises(UserError, match=r"on hidden layers that all have frozen parameters: .*; wanted a layer"):
        make(wiring)
