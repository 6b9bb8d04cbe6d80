"""What every method must satisfy. Each check raises AssertionError; `test_methods.py` runs them over the registry,
and over methods that are broken on purpose, which must fail.

The bench is a small ReLU-like network with a few dead units, on fixed random data; periods are cut to 4 updates, and
every 12 updates the task changes (in name only: the data stay).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pliant.diagnostics import distance, dormant, isometry_deviation, weight_norm
from pliant.keys import SeedKeys, seed_keys
from pliant.methods import (
    METHODS,
    as_arrays,
    begin_training,
    build,
    defaults,
    retarget,
    split_static,
    with_settings,
    wrapped,
)
from pliant.networks import NETWORKS
from pliant.streams import CLASSIFICATION, REGRESSION
from pliant.training import TrainState, init_state, switch_task, train_step
from pliant.types import Batch, Forward, Lesson, Method, Network, Objective, Split, Stream, leaf_path

NUM_STEPS, TASK_STEPS = 24, 12
LEARNING_RATE = 1e-2
_draw = np.random.default_rng(0)
INPUTS = jnp.asarray(_draw.normal(size=(64, 6)), jnp.float32)
TARGETS = jnp.asarray(_draw.integers(0, 3, 64), jnp.int32)
VALUES = jnp.asarray(_draw.normal(size=(64, 1)), jnp.float32)


def once_a_method(make: Any) -> Any:
    """Caches by identity: methods hold dicts, so they cannot be hashed."""
    made: dict[Any, Any] = {}

    @functools.wraps(make)
    def get(method: Method, *rest: Any) -> Any:
        name = (id(method), *rest)
        if name not in made:
            made[name] = (method, make(method, *rest))  # the method is kept, so its id is not given to another
        return made[name][1]

    return get


@once_a_method
def network_of(method: Method) -> Network:
    stream = stream_of(method)
    factory = NETWORKS[method.replaces.get("mlp", "mlp")]
    network = factory((6,), stream.num_outputs, **{"widths": (16, 12)} | dict(method.network))
    return wrapped(method, network, defaults(method, LEARNING_RATE))


@once_a_method
def stream_of(method: Method) -> Stream:
    """Classification, or what the method makes of it: one that learns values gets a regression."""
    stream = load_stream(CLASSIFICATION, 3, TARGETS)
    if not method.targets:
        return stream
    return retarget(method, load_stream(REGRESSION, 1, VALUES), defaults(method, LEARNING_RATE))


def load_stream(objective: Objective, num_outputs: int, targets: Any) -> Stream:
    def batch(data: Any, task: Any, indices: Any) -> Batch:
        return Batch(INPUTS[indices], targets[indices])

    return Stream(
        name="bench",
        dataset="",
        num_tasks=2,
        num_outputs=num_outputs,
        inputs=jax.ShapeDtypeStruct((6,), jnp.float32),
        train=Split(lambda index: len(TARGETS), batch),
        objective=objective,
        headline=f"train_{objective.score}",
        chance=None,
        data=(),
        task=lambda key, index: (),
    )


def values_of(method: Method, **settings: Any) -> dict[str, Any]:
    """Defaults with short periods and young units, then `settings`."""
    values = with_settings(method, {}, LEARNING_RATE)
    short = {name: 4 for name in values if name.endswith("every")} | {"maturity": 3, "replacement_rate": 0.05}
    return values | {name: value for name, value in short.items() if name in values} | settings


_bases: dict[Any, Method] = {}


def base_of(method: Method) -> Method:
    """The method without its mechanism: plain Adam, or what else it says, on the same network."""
    optimizer = METHODS[method.base].optimizer
    base = method._replace(optimizer=optimizer, penalty=None, intervention=None, schedule=None, off={})
    return _bases.setdefault((base.base, *_kind_of_network(base)), base)


def _kind_of_network(method: Method) -> tuple[Any, ...]:
    return tuple(method.network.items()), *map(str, (method.replaces, method.wrap, method.targets))


@once_a_method
def on_noisy_network(method: Method) -> Method:
    """The method on a network that drops one of its inputs in training, and whose state is the mean of what it sees."""
    own = method.wrap
    return method._replace(wrap=(lambda network: own(_noisy(network))) if own else _noisy)


def _noisy(network: Network) -> Network:
    """The key's own bits say which input, since a draw from it would take a second to compile."""
    columns = np.arange(INPUTS.shape[1])[None]

    def init(key: Any) -> Any:
        params, inner = network.init(key)
        return params, {"inner": inner, "mean": jnp.zeros(columns.size)}

    def apply(params: Any, state: Any, inputs: Any, *, train: bool, key: Any) -> Any:
        seen = inputs * (columns != jax.random.key_data(key)[-1] % columns.size) if train else inputs
        output, features, inner = network.apply(params, state["inner"], seen, train=train, key=key)
        mean = state["mean"] + 0.1 * (seen.mean(axis=0) - state["mean"]) if train else state["mean"]
        return output, features, {"inner": inner, "mean": mean}

    return network._replace(init=init, apply=apply)


_drawing: dict[tuple[Any, ...], Any] = {}


def drawn(method: Method, seeds: Any) -> Any:
    """`(params, statistics, keys)` of two seeds, stacked, by a program that all methods on the same network share.

    An initialiser takes longer to compile than the training does. They draw one by one, since batched QR may hang.
    """
    network, kind = network_of(method), _kind_of_network(method)

    def draw(seed: Any) -> Any:
        keys = seed_keys(seed)
        return *network.init(keys.network), keys

    if kind not in _drawing:
        _drawing[kind] = jax.jit(functools.partial(jax.lax.map, draw)).lower(seeds).compile()
    return _drawing[kind](seeds)


def start(method: Method, values: dict[str, Any], seed: Any) -> tuple[TrainState, SeedKeys]:
    """The initial state, with the first two units of the first layer dead."""
    keys = seed_keys(seed)
    return begin(method, values, *network_of(method).init(keys.network)), keys


def begin(method: Method, values: dict[str, Any], params: Any, statistics: Any) -> TrainState:
    state = begin_training(build(method, network_of(method).wiring, values), params, statistics)
    if "bias" in params.get("dense_0", {}):
        bias = params["dense_0"]["bias"].at[:2].set(-50.0)
        params = {**params, "dense_0": {**params["dense_0"], "bias": bias}}
    return state._replace(params=params)


def run_steps(
    method: Method, static: Any, traced: Any, state: TrainState, keys: SeedKeys, num_steps: int, first: int = 0
) -> TrainState:
    """Updates number `first` + 1 to `num_steps`."""
    network, stream = network_of(method), stream_of(method)

    def parts(i: Any) -> Any:
        return build(method, network.wiring, static | traced, fraction=i % TASK_STEPS / TASK_STEPS)

    def examples(key: Any, num_examples: int) -> Batch:
        return stream.train.batch((), (), jax.random.randint(key, (num_examples,), 0, len(TARGETS)))

    def body(i: Any, state: TrainState) -> TrainState:
        batch = stream.train.batch((), (), (i * 16 + jnp.arange(16)) % len(TARGETS))
        step = jnp.int32(i + 1)
        return train_step(network, parts(i), stream.objective, state, Lesson(batch, (), examples), step, keys).state

    def switched(index: Any, state: TrainState) -> TrainState:
        return switch_task(network, parts(0), state, keys, jnp.int32(index))[0]

    def task(index: Any, state: TrainState) -> TrainState:
        """In a loop, so that XLA compiles the step once."""
        state = jax.lax.cond(index > first // TASK_STEPS, switched, lambda _, state: state, index, state)
        start, stop = jnp.maximum(first, index * TASK_STEPS), jnp.minimum(num_steps, (index + 1) * TASK_STEPS)
        return jax.lax.fori_loop(start, stop, body, state)

    return jax.lax.fori_loop(first // TASK_STEPS, -(-num_steps // TASK_STEPS), task, state)


@once_a_method
def program(method: Method, static: tuple[Any, ...], is_batched: bool = True) -> Any:
    """`(params, statistics, keys, traced values, num_steps) -> final states` of several seeds, all stacked.

    Compiled once a method, with seeds batched as in runs of small networks; not batched, one seed after the other as
    in runs of larger ones.
    """

    @jax.jit
    def train(params: Any, statistics: Any, keys: SeedKeys, traced: Any, num_steps: Any) -> TrainState:
        def of_a_seed(item: Any) -> TrainState:
            params, statistics, keys = item
            state = begin(method, dict(static) | traced, params, statistics)
            return run_steps(method, dict(static), traced, state, keys, num_steps)

        of_seeds = jax.vmap(of_a_seed) if is_batched else functools.partial(jax.lax.map, of_a_seed)
        return of_seeds((params, statistics, keys))

    return train


def prepared(
    method: Method,
    is_batched: bool = True,
    *,
    seed: int = 0,
    noise: int = 0,
    layers: int = 100,
    num_steps: int = NUM_STEPS,
    **settings: Any,
) -> tuple[Any, tuple[Any, ...]]:
    """The method's program and its arguments: a seed and the one before it, both with the same keys for noise.

    `noise` is the method's own, `layers` that of layers that draw.
    """
    static, traced = split_static(method, values_of(method, **settings))
    compiled = program(method, tuple(static.items()), is_batched)
    params, statistics, keys = drawn(method, jnp.array([seed - 1, seed]))
    own, others = (jnp.stack(2 * [jax.random.key(number)]) for number in (noise, layers))
    keys = keys._replace(method=own, noise=others)
    return compiled, (params, statistics, keys, as_arrays(traced), jnp.int32(num_steps))


def beginning(method: Method) -> TrainState:
    """The state that `train` begins with."""
    return train(method, num_steps=0)


def train(method: Method, is_batched: bool = True, **choices: Any) -> TrainState:
    """The state of one seed, as NumPy arrays, after the updates of the program that is `prepared`."""
    compiled, arguments = prepared(method, is_batched, **choices)
    return jax.tree.map(lambda leaf: np.asarray(leaf[1]), jax.device_get(compiled(*arguments)))


def equal(a: Any, b: Any) -> bool:
    return all(bool((x == y).all()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


ONE_BY_ONE = ("reset-distill",)
"""Not bit-identical in batches: XLA fuses batches of tiny products with what surrounds them."""


def check_off_is_adam(method: Method) -> None:
    """Or what else the method says, on a network that draws in training: the method's key leaves that alone."""
    base = _plain(base_of(on_noisy_network(method)), method.name)
    for noise in (0, 1):
        off = _off(method, noise=noise)
        assert equal(off.params, base.params), f"switched off, the method is not {method.base} to the bit"
        assert equal(off.statistics, base.statistics), "switched off, the method changes the state of the network"
        moments = _moments(off.optimizer), _moments(base.optimizer)
        assert equal(*moments), "switched off, the method changes the state of the optimizer"


def _plain(method: Method, name: str, **choices: Any) -> TrainState:
    return train(method, name not in ONE_BY_ONE, **choices)


def _moments(state: Any) -> list[Any]:
    def is_adam(node: Any) -> bool:
        return isinstance(node, optax.ScaleByAdamState)

    return [node for node in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(node)]


def check_touches_parameters(method: Method) -> None:
    assert not equal(train(method).params, train(method, **method.off).params), "the method changes no parameter"


def _off(method: Method, **choices: Any) -> TrainState:
    return _plain(on_noisy_network(method), method.name, **method.off, **choices)


def check_lowers(method: Method) -> None:
    with_it, without = _target(method, train(method)), _target(method, train(method, **method.off))
    assert with_it < without, f"{method.lowers} is {with_it} with the method and {without} without"


def _target(method: Method, state: TrainState) -> float:
    network, values, first = network_of(method), values_of(method), beginning(method)
    state, first = jax.tree.map(jnp.asarray, (state, first))
    batch = stream_of(method).train.batch((), (), jnp.arange(len(TARGETS)))

    def evaluate(params: Any, inputs: Any) -> Any:
        return network.apply(params, state.statistics, inputs, train=False, key=None)[:2]

    def penalty() -> Any:
        """Of the parameters reached, against the state of the penalty at the start."""
        output, features = evaluate(state.params, batch.inputs)
        forward = Forward(batch.inputs, output, features, jnp.float32(0.0), evaluate, lambda _: batch.inputs)
        return build(method, network.wiring, values).penalty.loss(state.params, first.penalty, forward)[0]

    matrices = network.wiring.mask(state.params, "matrix")
    measured = {
        "isometry_deviation": lambda: isometry_deviation(state.params, matrices).mean,
        "weight_norm": lambda: weight_norm(state.params).total,
        "dormant_fraction": lambda: dormant(evaluate(state.params, batch.inputs)[1]).pooled,
        "distance_from_init": lambda: distance(state.params, first.params).total,
        "penalty": penalty,
    }
    return float(measured[method.lowers]())


def check_learns(method: Method) -> None:
    """The loss on the training data falls; catches an optimizer of the wrong sign."""
    network = network_of(method)

    @jax.jit
    def loss(params: Any, state: Any) -> Any:
        batch = stream_of(method).train.batch((), (), jnp.arange(len(TARGETS)))
        output, _, _ = network.apply(params, state, batch.inputs, train=False, key=None)
        return stream_of(method).objective.losses(output, batch.targets, ()).mean()

    first, after = beginning(method), train(method)
    assert loss(after.params, after.statistics) < loss(first.params, first.statistics), "the loss does not fall"


def check_seeds_differ(method: Method) -> None:
    first, second = train(method, seed=0), train(method, seed=1, noise=1)
    kernels = [(a, b) for a, b in zip(*map(jax.tree.leaves, (first.params, second.params)), strict=True) if a.ndim == 2]
    assert all(bool((a != b).any()) for a, b in kernels), "two seeds share a kernel"


def check_same_seed_same_program(method: Method) -> None:
    """Traced twice: nothing drawn at trace time may end in the program."""
    static, _ = split_static(method, values_of(method))
    _, arguments = prepared(method)
    programs = (program.__wrapped__(method, tuple(static.items())) for _ in range(2))
    first, second = (each.lower(*arguments).as_text() for each in programs)
    assert first == second, "the same seed gives another program each time it is traced"


def check_noise_follows_the_key(method: Method) -> None:
    """What draws must draw from the key it is handed, a method from its own and layers from theirs.

    Not from one of its own making, the same for all seeds.
    """
    of_layers = num_draws(base_of(method))
    if num_draws(method) > of_layers:
        assert not equal(train(method, noise=1).params, train(method, noise=2).params), "the key has no effect"
    if of_layers:
        assert not equal(train(method, layers=1).params, train(method, layers=2).params), "the key has no effect"


@once_a_method
def num_draws(method: Method) -> int:
    """In how many places the program of four updates draws."""
    values = values_of(method)
    static, traced = split_static(method, values)
    state = jax.eval_shape(lambda: start(method, values, 0)[0])
    jaxpr = jax.make_jaxpr(lambda state: run_steps(method, static, traced, state, seed_keys(0), 4))(state)
    return str(jaxpr).count("random_bits")


def check_vmap_changes_nothing(method: Method) -> None:
    """One seed of a batched program and the same alone, through the end of a task."""
    alone, together = (train(method, batched, seed=2, num_steps=TASK_STEPS + 1) for batched in (False, True))
    _assert_close(together.params, alone.params)


def check_jit_changes_nothing(method: Method) -> None:
    """A compiled program and the same operation by operation, through the end of a task.

    Update 12 does periodic work, then the task changes.
    """
    static, traced = split_static(method, values_of(method))
    keys = seed_keys(2)._replace(method=jax.random.key(0), noise=jax.random.key(100))
    state = jax.tree.map(jnp.asarray, train(method, seed=2, num_steps=TASK_STEPS - 1))
    with jax.disable_jit():
        alone = run_steps(method, static, traced, state, keys, TASK_STEPS + 1, first=TASK_STEPS - 1)
    together = train(method, seed=2, num_steps=TASK_STEPS + 1)
    _assert_close(together.params, alone.params)


def _assert_close(params: Any, others: Any) -> None:
    for x, y in zip(*map(jax.tree.leaves, (params, others)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def check_no_recompilation(method: Method) -> None:
    _, off = split_static(method, method.off)
    train(method)
    train(method, seed=5, noise=3, learning_rate=0.5, **off)
    assert prepared(method)[0]._cache_size() == 1, "other numbers compile another program"


def moved_without_a_gradient(method: Method) -> set[str]:
    """The roles of the parameters that the method moves where the loss has no gradient, through a change of tasks.

    On a network with every role that a multilayer perceptron can have, far from its start, with two dead units. What
    lies beside the head's kernel counts as "head". ReGraMa does nothing without gradients, so it gets some, and a
    learning rate of 0; C-CHAIN nothing without churn, so the start is what it remembers.
    """
    widths, replaced = {"widths": (16, 12)}, method.replaces.get("mlp", "mlp")
    options = widths | ({"norm": "layer"} if replaced == "mlp" else {}) | dict(method.network)
    network = wrapped(method, NETWORKS[replaced]((6,), 3, **options), defaults(method, LEARNING_RATE))
    objective = CLASSIFICATION._replace(losses=lambda *seen: jax.lax.stop_gradient(CLASSIFICATION.losses(*seen)))
    values = values_of(method) | ({"max_silence": 3} if "max_silence" in defaults(method, LEARNING_RATE) else {})
    if method.name == "regrama":  # behind a LayerNorm dead units have gradients too, so 0.01 of the mean is none's
        objective, values = CLASSIFICATION, values | {"learning_rate": 0.0, "threshold": 1.0}
    stream, keys = load_stream(objective, 3, TARGETS), seed_keys(0)
    parts = build(method, network.wiring, values)
    state = init_state(network, parts, keys.network)
    noise = np.random.default_rng(7)
    before = jax.tree.map(lambda leaf: leaf + noise.normal(size=leaf.shape).astype(np.float32), state.params)
    offsets = [feed.slot.path for feed in network.wiring.layers[0].feeds if feed.slot.path.endswith("bias")]
    before = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.at[:2].set(-50.0) if [leaf_path(path)] == offsets[-1:] else leaf, before
    )
    state = state._replace(params=before)
    if method.name == "c-chain":
        state = state._replace(penalty=state.penalty._replace(updates=jnp.ones_like(state.penalty.updates)))

    def examples(key: Any, num_examples: int) -> Batch:
        return stream.train.batch((), (), jax.random.randint(key, (num_examples,), 0, len(TARGETS)))

    @jax.jit
    def step_on(state: TrainState, step: Any) -> TrainState:
        batch = stream.train.batch((), (), (step * 16 + jnp.arange(16)) % len(TARGETS))
        return train_step(network, parts, stream.objective, state, Lesson(batch, (), examples), step, keys).state

    for step in range(1, 13):
        if step == 4:
            state = switch_task(network, parts, state, keys, jnp.int32(1))[0]
        state = step_on(state, jnp.int32(step))
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), before, state.params)
    of_head = jax.tree.leaves(network.wiring.head(before))
    leaves = zip(jax.tree_util.tree_leaves_with_path(moved), of_head, strict=True)
    return {"head" if head else network.wiring.roles[leaf_path(path)] for (path, each), head in leaves if each}


def check_carry_is_stable(method: Method) -> None:
    values = values_of(method)
    static, traced = split_static(method, values)
    before = jax.eval_shape(lambda: start(method, values, 0)[0])
    after = jax.eval_shape(lambda state: run_steps(method, static, traced, state, seed_keys(0), 1), before)
    assert jax.tree.structure(before) == jax.tree.structure(after), "a step changes the structure of the state"
    assert jax.tree.leaves(before) == jax.tree.leaves(after), "a step changes shapes or dtypes of the state"


def check_carry_is_stable_where_numbers_are_wide(method: Method) -> None:
    """With JAX's 64 bits switched on, as others in the same process may want it, through a change of tasks."""
    with jax.enable_x64(True):
        static, traced = split_static(method, values_of(method))
        before = jax.eval_shape(lambda: start(method, static | traced, 0)[0])
        last = TASK_STEPS + 1
        after = jax.eval_shape(lambda state: run_steps(method, static, traced, state, seed_keys(0), last), before)
        assert jax.tree.leaves(before) == jax.tree.leaves(after)


def check_state_can_be_donated(method: Method) -> None:
    """No array is in it twice: a program that may overwrite the state would refuse it."""
    params, statistics, _ = drawn(method, jnp.array([0, 1]))
    state = begin(method, values_of(method), *jax.tree.map(lambda leaf: leaf[0], (params, statistics)))
    jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 0, state), donate_argnums=0)(state)


def check_keeps_bfloat16(method: Method) -> None:
    values = values_of(method)
    network, keys, stream = network_of(method), seed_keys(0), stream_of(method)
    parts = build(method, network.wiring, values)

    def init(key: Any) -> Any:
        params, state = network.init(key)
        return jax.tree.map(lambda p: p.astype(jnp.bfloat16), params), state

    narrow = network._replace(init=init)
    batch = stream.train.batch((), (), jnp.arange(16))
    batch = batch._replace(inputs=batch.inputs.astype(jnp.bfloat16))

    def after() -> TrainState:
        state = init_state(narrow, parts, keys.network)
        step = jnp.int32(4)
        lesson = Lesson(batch, (), lambda key, _: batch)
        state = train_step(narrow, parts, stream.objective, state, lesson, step, keys).state
        return switch_task(narrow, parts, state, keys, jnp.int32(1))[0]

    dtypes = {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(after).params)}
    assert dtypes == {jnp.dtype(jnp.bfloat16)}, "bfloat16 parameters are upcast"


GENERAL = (
    check_seeds_differ,
    check_same_seed_same_program,
    check_noise_follows_the_key,
    check_vmap_changes_nothing,
    check_no_recompilation,
    check_carry_is_stable,
    check_carry_is_stable_where_numbers_are_wide,
    check_state_can_be_donated,
    check_keeps_bfloat16,
)
