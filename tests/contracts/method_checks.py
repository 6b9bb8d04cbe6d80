"""What every method must satisfy. Each check raises AssertionError; `test_methods.py` runs them over the registry,
and over methods that are broken on purpose, which must fail.

The bench is a small ReLU-like network with a few dead units, on fixed random data; periods are cut to 4 updates.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pliant.diagnostics import dormant, isometry_deviation, weight_norm
from pliant.methods import adam_optimizer, as_arrays, build, split_static, with_settings
from pliant.networks import mlp
from pliant.streams import CLASSIFICATION
from pliant.training import SeedKeys, TrainState, init_state, seed_keys, train_step
from pliant.types import Batch, Method, Network

NUM_STEPS = 24
LEARNING_RATE = 1e-2
_draw = np.random.default_rng(0)
INPUTS = jnp.asarray(_draw.normal(size=(64, 6)), jnp.float32)
TARGETS = jnp.asarray(_draw.integers(0, 3, 64), jnp.int32)


def once_a_method(make: Any) -> Any:
    """Caches by identity: methods hold dicts, so they cannot be hashed."""
    made: dict[int, Any] = {}

    @functools.wraps(make)
    def get(method: Method) -> Any:
        if id(method) not in made:
            made[id(method)] = (method, make(method))  # the method is kept, so its id is not given to another
        return made[id(method)][1]

    return get


@once_a_method
def network_of(method: Method) -> Network:
    return mlp((6,), 3, **{"widths": (16, 12)} | dict(method.network))


def values_of(method: Method, **settings: Any) -> dict[str, Any]:
    """Defaults with short periods, then `settings`."""
    values = with_settings(method, {}, LEARNING_RATE)
    values |= {name: 4 for name in values if name.endswith("every")}
    return values | settings


def base_of(method: Method) -> Method:
    """The method without its mechanism: plain Adam on the same network."""
    return method._replace(optimizer=adam_optimizer, penalty=None, intervention=None, off={})


def start(method: Method, values: dict[str, Any], seed: Any) -> tuple[TrainState, SeedKeys]:
    """The initial state, with the first two units of the first layer dead."""
    network = network_of(method)
    keys = seed_keys(seed)
    state = init_state(network, build(method, network.wiring, values), keys.network)
    params = dict(state.params)
    bias = params["dense_0"]["bias"].at[:2].set(-50.0)
    return state._replace(params={**params, "dense_0": {**params["dense_0"], "bias": bias}}), keys


def run_steps(
    method: Method, static: Any, traced: Any, state: TrainState, keys: SeedKeys, num_steps: int
) -> TrainState:
    network = network_of(method)
    parts = build(method, network.wiring, static | traced)

    def probe_batch(key: Any, num_examples: int) -> Batch:
        chosen = jax.random.randint(key, (num_examples,), 0, len(TARGETS))
        return Batch(INPUTS[chosen], TARGETS[chosen])

    def body(i: Any, state: TrainState) -> TrainState:
        chosen = (i * 16 + jnp.arange(16)) % len(TARGETS)
        batch = Batch(INPUTS[chosen], TARGETS[chosen])
        return train_step(network, parts, CLASSIFICATION, state, batch, (), jnp.int32(i + 1), keys, probe_batch)[0]

    return jax.lax.fori_loop(0, num_steps, body, state)


@once_a_method
def program(method: Method) -> Any:
    """`(seed, traced values, key for method noise or None) -> final state`, compiled once a method."""
    static, _ = split_static(method, values_of(method))

    @jax.jit
    def train(seed: Any, noise: Any, traced: Any) -> TrainState:
        state, keys = start(method, static | traced, seed)
        return run_steps(method, static, traced, state, keys._replace(method=jax.random.key(noise)), NUM_STEPS)

    return train


def train(method: Method, seed: int = 0, noise: int = 0, **settings: Any) -> TrainState:
    _, traced = split_static(method, values_of(method, **settings))
    return program(method)(jnp.int32(seed), jnp.int32(noise), as_arrays(traced))


def equal(a: Any, b: Any) -> bool:
    return all(bool((x == y).all()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def check_off_is_adam(method: Method) -> None:
    off, base = train(method, **method.off), train(base_of(method))
    assert equal(off.params, base.params), "switched off, the method is not Adam to the bit"


def check_touches_parameters(method: Method) -> None:
    assert not equal(train(method).params, train(method, **method.off).params), "the method changes no parameter"


def check_lowers(method: Method) -> None:
    with_it, without = _target(method, train(method)), _target(method, train(method, **method.off))
    assert with_it < without, f"{method.lowers} is {with_it} with the method and {without} without"


def _target(method: Method, state: TrainState) -> float:
    network = network_of(method)
    first, _ = start(method, values_of(method), 0)
    _, features, _ = network.apply(state.params, state.network, INPUTS, train=False, key=None)
    distance = weight_norm(jax.tree.map(jnp.subtract, state.params, first.params))
    measured = {
        "isometry_deviation": isometry_deviation(state.params, network.wiring.mask(state.params, "matrix")).mean,
        "weight_norm": weight_norm(state.params),
        "dormant_fraction": dormant(features).pooled,
        "distance_from_init": distance,
    }
    return float(measured[method.lowers])


def check_learns(method: Method) -> None:
    """The loss on the training data falls; catches an optimizer of the wrong sign."""
    network = network_of(method)

    def loss(state: TrainState) -> float:
        output, _, _ = network.apply(state.params, state.network, INPUTS, train=False, key=None)
        return float(-jax.nn.log_softmax(output)[jnp.arange(len(TARGETS)), TARGETS].mean())

    first, _ = start(method, values_of(method), 0)
    after = train(method)
    assert loss(after) < loss(first), "the loss does not fall"


def check_seeds_differ(method: Method) -> None:
    first, second = train(method, seed=0), train(method, seed=1)
    kernels = [(a, b) for a, b in zip(*map(jax.tree.leaves, (first.params, second.params)), strict=True) if a.ndim == 2]
    assert all(bool((a != b).any()) for a, b in kernels), "two seeds share a kernel"


def check_same_seed_same_bits(method: Method) -> None:
    """Traced and compiled twice: nothing drawn at trace time may end in the program."""
    values = as_arrays(split_static(method, values_of(method))[1])
    again = program.__wrapped__(method)(jnp.int32(2), jnp.int32(2), values)
    assert equal(train(method, seed=2, noise=2), again), "the same seed gives other bits"


def check_noise_follows_the_key(method: Method) -> None:
    """A method that draws must draw from the key it is handed: not from one of its own, the same for all seeds."""
    values = values_of(method)
    static, traced = split_static(method, values)
    state, keys = start(method, values, 0)
    jaxpr = str(jax.make_jaxpr(lambda state: run_steps(method, static, traced, state, keys, 4))(state))
    if "random_bits" in jaxpr:
        assert not equal(train(method, noise=1).params, train(method, noise=2).params), "the key has no effect"


def check_jit_changes_nothing(method: Method) -> None:
    values = values_of(method)
    static, traced = split_static(method, values)
    state, keys = start(method, values, 0)
    compiled = jax.jit(lambda state: run_steps(method, static, traced, state, keys, 4))(state)
    with jax.disable_jit():
        plain = run_steps(method, static, traced, state, keys, 4)
    _assert_close(compiled.params, plain.params)


def check_vmapped_seeds_are_a_loop(method: Method) -> None:
    static, traced = split_static(method, values_of(method))

    def final(seed: Any) -> Any:
        state, keys = start(method, static | traced, seed)
        return run_steps(method, static, traced, state, keys._replace(method=jax.random.key(0)), NUM_STEPS).params

    together = jax.jit(jax.vmap(final))(jnp.arange(3))
    for seed in range(3):
        _assert_close(jax.tree.map(lambda leaf, i=seed: leaf[i], together), train(method, seed=seed).params)


def check_no_recompilation(method: Method) -> None:
    train(method)
    train(method, seed=5, noise=3, learning_rate=0.5, **method.off)
    assert program(method)._cache_size() == 1, "other numbers compile another program"


def check_carry_is_stable(method: Method) -> None:
    values = values_of(method)
    static, traced = split_static(method, values)
    state, keys = start(method, values, 0)
    after = jax.eval_shape(lambda state: run_steps(method, static, traced, state, keys, 1), state)
    before = jax.eval_shape(lambda: state)
    assert jax.tree.structure(before) == jax.tree.structure(after), "a step changes the structure of the state"
    assert jax.tree.leaves(before) == jax.tree.leaves(after), "a step changes shapes or dtypes of the state"


def check_keeps_bfloat16(method: Method) -> None:
    values = values_of(method)
    network, keys = network_of(method), seed_keys(0)
    parts = build(method, network.wiring, values)
    narrow = network._replace(
        init=lambda key: (jax.tree.map(lambda p: p.astype(jnp.bfloat16), network.init(key)[0]), {})
    )
    state = init_state(narrow, parts, keys.network)
    batch = Batch(INPUTS[:16].astype(jnp.bfloat16), TARGETS[:16])
    after, _ = train_step(
        narrow, parts, CLASSIFICATION, state, batch, (), jnp.int32(4), keys, lambda key, number: batch
    )
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(after.params)), "bfloat16 parameters are upcast"


def _assert_close(a: Any, b: Any) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


GENERAL = (
    check_learns,
    check_seeds_differ,
    check_same_seed_same_bits,
    check_noise_follows_the_key,
    check_jit_changes_nothing,
    check_vmapped_seeds_are_a_loop,
    check_no_recompilation,
    check_carry_is_stable,
    check_keeps_bfloat16,
)
OF_MECHANISMS = (check_off_is_adam, check_touches_parameters, check_lowers)
