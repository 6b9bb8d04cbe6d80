import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from pliant.errors import UserError
from pliant.interventions import MASSES, MOMENTS, clear_moments, reset_units, slot_mask
from pliant.interventions._surgery import lowest, mean_magnitude, require_owned_outputs
from pliant.networks import mlp
from pliant.optimizers import ScaleByAdamPerWeightState, adamo, scale_by_adam_per_weight
from pliant.penalties import l2_init
from pliant.types import Feed, HiddenLayer, Learned, Slot, Wiring, leaf_path


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def by_path(tree):
    return {leaf_path(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def trained(params, tx=None, seed=1, num_updates=2):
    """An optimizer state that has seen random gradients."""
    tx = tx or optax.adam(1e-2)
    state = tx.init(params)
    for update in range(num_updates):
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), update), len(leaves))
        gradients = structure.unflatten(
            [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
        )
        _, state = tx.update(gradients, state, params)
    return state


@pytest.mark.parametrize(
    ("slot", "shape", "index"),
    [
        (Slot("w", -1), (4, 3), np.s_[:, 1]),
        (Slot("w", -1), (3,), np.s_[1]),
        (Slot("w", -2), (3, 4), np.s_[1, :]),
        (Slot("w", 0), (3, 4), np.s_[1, :]),
        (Slot("w", -1), (2, 2, 4, 3), np.s_[..., 1]),
        (Slot("w", -2), (2, 2, 3, 4), np.s_[:, :, 1, :]),
        (Slot("w", -2, tiles=4), (12, 2), np.s_[1::3, :]),
        (Slot("w", -2, groups=3), (2, 1, 6), np.s_[..., 2:4]),
        (Slot("w", 1, tiles=2, groups=2, across=0), (4, 3, 2), np.s_[:, 1, :]),
    ],
)
def test_slot_mask_selects_the_units_entries_only(slot, shape, index):
    wanted = np.zeros(shape, bool)
    wanted[index] = True
    same(slot_mask(slot, jnp.array([False, True, False]), jnp.zeros(shape)), wanted)


def test_slot_mask_tiles_with_the_unit_index_fastest():
    mask = slot_mask(Slot("w", -2, tiles=2), jnp.array([True, False]), jnp.zeros((4, 3)))
    same(mask, np.broadcast_to(np.array([True, False, True, False])[:, None], (4, 3)))


@jax.jit
def conv_net(params, x):
    hidden = jax.lax.conv_general_dilated(
        x, params["conv"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    hidden = jax.nn.relu(hidden + params["bias"][None, None, None])
    return hidden.reshape(hidden.shape[0], -1) @ params["head"]


CONV = HiddenLayer(
    name="conv",
    width=3,
    feeds=(
        Feed(Slot("conv", -1), jax.nn.initializers.he_normal()),
        Feed(Slot("bias", -1), jax.nn.initializers.zeros),
    ),
    readers=(Slot("head", -2, tiles=4),),
    activation="relu",
    elementwise=True,
)
CONV_WIRING = Wiring((CONV,), {"conv": "matrix", "bias": "bias", "head": "head"})


def conv_params(key):
    a, b = jax.random.split(key)
    return {"conv": jax.random.normal(a, (2, 2, 2, 3)), "bias": jnp.zeros(3), "head": jax.random.normal(b, (12, 5))}


def test_flattened_conv_units_are_read_by_their_tiles(key):
    params, x = conv_params(key), jax.random.normal(key, (6, 3, 3, 2))
    params["head"] = jnp.where(
        slot_mask(CONV.readers[0], jnp.array([False, True, False]), params["head"]), 0.0, params["head"]
    )
    for unit in range(3):
        changed = params | {"conv": params["conv"].at[..., unit].add(1.0)}
        assert np.array_equal(conv_net(changed, x), conv_net(params, x)) == (unit == 1)


def test_a_silent_channel_is_recycled_behind_a_flatten(key):
    params, x = conv_params(key), jax.random.normal(key, (6, 3, 3, 2))
    params["bias"] = params["bias"].at[1].set(-1e6)
    units = {"conv": jnp.array([False, True, False])}
    new = reset_units(key, Learned(params, {}, ()), CONV_WIRING, units).params
    same(conv_net(new, x), conv_net(params, x))
    assert float(new["bias"][1]) == 0.0
    gradient = jax.grad(lambda p: (conv_net(p, x) ** 2).sum())(new)["head"]
    assert np.all(np.any(np.asarray(gradient[1::3]) != 0, axis=1))
    gradient = jax.grad(lambda p: (conv_net(p, x) ** 2).sum())(params)["head"]
    same(gradient[1::3], np.zeros((4, 5)))


WIDTHS = (5, 4)
UNITS = {"dense_0": jnp.array([True, False, True, False, False]), "dense_1": jnp.array([False, False, False, True])}


@functools.cache
def _network(norm, activation):
    network = mlp((3,), 2, widths=WIDTHS, norm=norm, activation=activation)
    params, state = network.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    return network, params, state, trained(params)


def network_with_statistics(norm="layer", activation="relu"):
    network, params, state, opt_state = _network(norm, activation)
    return network, jax.tree.map(lambda leaf: leaf, params), state, opt_state  # a copy of the dicts: tests edit them


def touched_entries(params):
    """By hand, for the 3-5-4-2 network: feeds are columns and vectors, readers are rows."""
    entries = {path: np.zeros(leaf.shape, bool) for path, leaf in by_path(params).items()}
    for layer, reader in (("0", "dense_1"), ("1", "head")):
        flags = np.asarray(UNITS[f"dense_{layer}"])
        entries[f"dense_{layer}/kernel"][:, flags] = True
        for vector in (f"dense_{layer}/bias", f"norm_{layer}/scale", f"norm_{layer}/bias"):
            entries[vector][flags] = True
        entries[f"{reader}/kernel"][flags] = True
    return entries


def test_only_wired_entries_change(key):
    network, params, _, opt_state = network_with_statistics()
    reset = jax.jit(
        lambda params, opt_state: reset_units(key, Learned(params, {}, opt_state), network.wiring, UNITS)[::2]
    )
    new, new_state = reset(params, opt_state)
    entries = touched_entries(params)
    for before, after, resets in (
        (params, new, False),
        (opt_state[0].mu, new_state[0].mu, True),
        (opt_state[0].nu, new_state[0].nu, True),
    ):
        before, after = by_path(before), by_path(after)
        for path, mask in entries.items():
            same(after[path][~mask], before[path][~mask])
            assert np.all(after[path][mask] != before[path][mask])
            assert not resets or np.all(after[path][mask] == 0)
    assert int(new_state[0].count) == int(opt_state[0].count) == 2


def test_fresh_units_start_as_their_initializers_say(key):
    network, params, _, _ = network_with_statistics()
    new = reset_units(key, Learned(params, {}, ()), network.wiring, UNITS).params
    on = np.asarray(UNITS["dense_0"])
    same(new["norm_0"]["scale"][on], np.ones(2))
    same(new["norm_0"]["bias"][on], np.zeros(2))
    same(new["dense_0"]["bias"][on], np.zeros(2))
    everything = {name: jnp.ones(width, bool) for name, width in zip(UNITS, WIDTHS, strict=True)}
    new = reset_units(key, Learned(params, {}, ()), network.wiring, everything).params
    np.testing.assert_allclose(np.linalg.svd(new["dense_0"]["kernel"])[1], np.full(3, 2**0.5), rtol=1e-6)


def test_an_entry_both_fed_and_read_ends_at_zero(key):
    network, params, _, _ = network_with_statistics()
    new = reset_units(key, Learned(params, {}, ()), network.wiring, UNITS).params
    kernel = np.asarray(new["dense_1"]["kernel"])
    same(kernel[[0, 2]], np.zeros((2, 4)))
    fresh = kernel[[1, 3, 4], 3]
    assert np.all(fresh != 0)
    assert np.all(fresh != np.asarray(params["dense_1"]["kernel"])[[1, 3, 4], 3])


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_no_unit_is_a_bitwise_no_op(key, norm):
    network, params, _, opt_state = network_with_statistics(norm=norm)
    units = {name: jnp.zeros_like(flags) for name, flags in UNITS.items()}
    learned = Learned(params, {}, opt_state)
    same(reset_units(key, learned, network.wiring, units), learned)
    same(reset_units(key, learned, network.wiring, {}), learned)


def test_layers_may_be_missing(key):
    network, params, _, opt_state = network_with_statistics()
    new = reset_units(key, Learned(params, {}, opt_state), network.wiring, {"dense_1": UNITS["dense_1"]}).params
    same(new["dense_0"], params["dense_0"])
    assert not np.array_equal(new["dense_1"]["kernel"], params["dense_1"]["kernel"])


@pytest.mark.parametrize("activation", ["relu", "crelu"])
def test_resetting_silent_units_leaves_the_output(key, activation):
    network, params, state, _ = network_with_statistics(norm="none", activation=activation)
    x = jax.random.normal(key, (16, 3))
    for name, flags in UNITS.items():
        params[name] = {
            "kernel": jnp.where(flags[None], 0.0, params[name]["kernel"]),
            "bias": jnp.where(flags, 0.0 if activation == "crelu" else -1.0, params[name]["bias"]),
        }
    new = reset_units(key, Learned(params, {}, ()), network.wiring, UNITS).params

    def output(params):
        return network.apply(params, state, x, train=False, key=None)[0]

    same(output(new), output(params))
    assert not np.array_equal(new["dense_0"]["kernel"], params["dense_0"]["kernel"])


def test_a_recycled_unit_learns_again(key):
    network, params, state, _ = network_with_statistics(norm="none")
    x = jax.random.normal(key, (64, 3))
    params["dense_1"]["bias"] = params["dense_1"]["bias"].at[3].set(-1e3)

    def gradient(params):
        return jax.grad(lambda p: (network.apply(p, state, x, train=True, key=None)[0] ** 2).sum())(params)

    same(gradient(params)["head"]["kernel"][3], np.zeros(2))
    new = reset_units(key, Learned(params, {}, ()), network.wiring, {"dense_1": UNITS["dense_1"]}).params
    same(new["head"]["kernel"][3], np.zeros(2))
    assert np.all(np.asarray(gradient(new)["head"]["kernel"][3]) != 0)


def test_another_key_draws_other_weights(key):
    network, params, _, _ = network_with_statistics()
    a, b, c = (
        reset_units(jax.random.key(seed), Learned(params, {}, ()), network.wiring, UNITS).params for seed in (1, 2, 1)
    )
    same(a, c)
    on = np.asarray(UNITS["dense_0"])
    assert np.all(np.asarray(a["dense_0"]["kernel"][:, on]) != np.asarray(b["dense_0"]["kernel"][:, on]))


def test_each_layer_gets_its_own_draw(key):
    network = mlp((4,), 4, widths=(4, 4))
    params, _ = network.init(key)
    unread = [layer._replace(readers=()) for layer in network.wiring.layers]
    units = {layer.name: jnp.ones(4, bool) for layer in unread}
    new = reset_units(key, Learned(params, {}, ()), Wiring(tuple(unread), network.wiring.roles), units).params
    assert np.all(np.asarray(new["dense_0"]["kernel"]) != np.asarray(new["dense_1"]["kernel"]))


PARAMS = {"bias": jnp.ones(3), "kernel": jnp.arange(12.0).reshape(4, 3) / 12}
WHERE = {"bias": jnp.array([True, False, False]), "kernel": jnp.zeros((4, 3), bool).at[:, 0].set(True).at[2].set(True)}


def adam_moments(state):
    return [moment[leaf] for moment in (state.mu, state.nu) for leaf in ("bias", "kernel")]


def per_weight(state, *leaves):
    """The moments of single weights, and what tells how long these have been updated."""
    return [
        field[leaf]
        for field in (state.mu_mass, state.nu_mass, state.mu, state.nu)
        for leaf in leaves or ("bias", "kernel")
    ]


OPTIMIZERS = {
    "adam": (optax.adam(1e-2), lambda s: adam_moments(s[0])),
    "momentum": (optax.sgd(1e-2, momentum=0.9), lambda s: [s[0].trace["bias"], s[0].trace["kernel"]]),
    "adamw": (optax.adamw(1e-2, mask={"bias": False, "kernel": True}), lambda s: adam_moments(s[0])),
    "chain": (optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2)), lambda s: adam_moments(s[1][0])),
    "masked": (
        optax.masked(optax.adam(1e-2), {"bias": False, "kernel": True}),
        lambda s: [s.inner_state[0].mu["kernel"], s.inner_state[0].nu["kernel"]],
    ),
    "partition": (
        optax.partition({"a": optax.adam(1e-2), "b": optax.sgd(1e-2, momentum=0.9)}, {"bias": "b", "kernel": "a"}),
        lambda s: [
            s.inner_states["a"].inner_state[0].mu["kernel"],
            s.inner_states["a"].inner_state[0].nu["kernel"],
            s.inner_states["b"].inner_state[0].trace["bias"],
        ],
    ),
    "multi_steps": (
        optax.MultiSteps(optax.adam(1e-2), 2).gradient_transformation(),
        lambda s: adam_moments(s.inner_opt_state[0]),
    ),
    "inject": (optax.inject_hyperparams(optax.adam)(1e-2), lambda s: adam_moments(s.inner_state[0])),
    "schedule_free": (
        contrib.schedule_free_adamw(1e-2),
        lambda s: [s.base_optimizer_state[0].nu["bias"], s.base_optimizer_state[0].nu["kernel"]],
    ),
    "muon": (
        contrib.muon(1e-2),
        lambda s: [
            s.inner_states["muon"].inner_state[0].mu["kernel"],
            s.inner_states["adam"].inner_state[0].mu["bias"],
            s.inner_states["adam"].inner_state[0].nu["bias"],
        ],
    ),
    "amsgrad": (
        optax.amsgrad(1e-2),
        lambda s: [*adam_moments(s[0]), s[0].nu_max["bias"], s[0].nu_max["kernel"]],
    ),
    "lion": (optax.lion(1e-3), lambda s: [s[0].mu["bias"], s[0].mu["kernel"]]),
    "per_weight": (scale_by_adam_per_weight(), per_weight),
    "per_weight_chain": (
        optax.chain(optax.clip_by_global_norm(1.0), optax.chain(scale_by_adam_per_weight(), optax.scale(-1e-2))),
        lambda s: per_weight(s[1][0]),
    ),
    "per_weight_masked": (
        optax.masked(scale_by_adam_per_weight(), {"bias": False, "kernel": True}),
        lambda s: per_weight(s.inner_state, "kernel"),
    ),
    "per_weight_partition": (
        optax.partition({"a": scale_by_adam_per_weight(), "b": optax.adam(1e-2)}, {"bias": "b", "kernel": "a"}),
        lambda s: [
            *per_weight(s.inner_states["a"].inner_state, "kernel"),
            s.inner_states["b"].inner_state[0].mu["bias"],
            s.inner_states["b"].inner_state[0].nu["bias"],
        ],
    ),
    "per_weight_multi_steps": (
        optax.MultiSteps(scale_by_adam_per_weight(), 2).gradient_transformation(),
        lambda s: per_weight(s.inner_opt_state),
    ),
    "per_weight_inject": (
        optax.inject_hyperparams(scale_by_adam_per_weight)(b1=0.9),
        lambda s: per_weight(s.inner_state),
    ),
    "per_weight_schedule_free": (
        contrib.schedule_free(
            optax.chain(scale_by_adam_per_weight(b1=0.0), optax.scale(-1e-2)), learning_rate=1e-2, b1=0.9
        ),
        lambda s: per_weight(s.base_optimizer_state[0]),
    ),
    "finite": (optax.apply_if_finite(optax.adam(1e-2), 3), lambda s: adam_moments(s.inner_state[0])),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_are_cleared_and_nothing_else(name):
    tx, moments = OPTIMIZERS[name]
    state = trained(PARAMS, tx, num_updates=3)
    assert all(np.all(np.asarray(moment) != 0) for moment in moments(state))
    wanted = eqx.tree_at(
        moments, state, replace_fn=lambda m: jnp.where(WHERE["bias" if m.ndim == 1 else "kernel"], 0, m)
    )
    cleared = jax.jit(clear_moments)(state, WHERE)
    assert jax.tree.structure(cleared) == jax.tree.structure(state)
    assert [leaf.dtype for leaf in jax.tree.leaves(cleared)] == [leaf.dtype for leaf in jax.tree.leaves(state)]
    same(cleared, wanted)


def test_multi_steps_was_in_the_middle_of_an_accumulation():
    state = trained(PARAMS, OPTIMIZERS["multi_steps"][0], num_updates=3)
    assert np.all(np.asarray(state.acc_grads["kernel"]) != 0)


def test_moments_of_the_isometry_chain_keep_their_counts(key):
    state = trained(PARAMS, adamo(1e-2), num_updates=3)
    cleared = clear_moments(state, WHERE)
    assert int(cleared[0].count) == int(cleared[2].count) == 3
    same(cleared[0].mu["kernel"], jnp.where(WHERE["kernel"], 0.0, state[0].mu["kernel"]))


def test_copies_of_parameters_are_left_alone():
    state = {"optimizer": trained(PARAMS), "penalty": l2_init(0.1).init(PARAMS)}
    cleared = clear_moments(state, WHERE)
    same(cleared["penalty"], PARAMS)
    assert float(cleared["optimizer"][0].mu["bias"][0]) == 0.0


def test_moment_names_are_those_of_optax():
    assert set(optax.ScaleByAmsgradState._fields) == {"count", "mu", "nu", "nu_max"}
    assert set(optax.ScaleByAdanState._fields) == {"m", "v", "n", "g", "t"}
    assert optax.TraceState._fields == ("trace",)
    assert set(ScaleByAdamPerWeightState._fields) <= {*MOMENTS, *MASSES}


FORGETTING = {
    "adan": optax.adan(1e-2),
    "ademamix": contrib.ademamix(1e-2),
    "adadelta": optax.adadelta(1e-2),
    "adagrad": optax.adagrad(1e-2),
    "averaged": optax.chain(optax.ema(0.9), optax.scale(-1e-2)),
    "optimistic": optax.optimistic_gradient_descent(1e-2),
    "rmsprop": optax.rmsprop(1e-2, momentum=0.9),
    "momo_adam": contrib.momo_adam(1e-2),
    "simplified_ademamix": contrib.simplified_ademamix(1e-2),
}


@pytest.mark.parametrize("name", FORGETTING)
def test_all_that_has_a_parameters_shape_is_forgotten_by_others(name):
    tx = FORGETTING[name]
    state = tx.init(PARAMS)
    for i in range(3):
        gradients = jax.tree.map(lambda leaf, i=i: jnp.cos(i + leaf), PARAMS)
        extra = {"value": jnp.float32(1)} if name == "momo_adam" else {}
        _, state = tx.update(gradients, state, PARAMS, **extra)
    cleared = clear_moments(state, WHERE)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim > 0]
    assert {(3,), (4, 3)} == set(shapes)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(cleared), strict=True):
        where = WHERE["bias" if old.ndim == 1 else "kernel"] if old.ndim else jnp.array(False)
        same(new, jnp.where(where, 0, old))


@pytest.mark.parametrize(
    ("tx", "field"),
    [
        (optax.adafactor(1e-2, min_dim_size_to_factor=2), "'v'"),
        (optax.sm3(1e-2), "'mu'"),
        (optax.novograd(1e-2), "'nu'"),
        (optax.flatten(optax.adam(1e-2)), "'mu'"),
    ],
    ids=["adafactor", "sm3", "novograd", "flatten"],
)
def test_statistics_that_weights_share_are_refused(tx, field):
    with pytest.raises(UserError, match=rf"got the field {field} .*, that weights share, .* Use Adam, momentum"):
        clear_moments(tx.init(PARAMS), WHERE)


def test_unknown_statistics_are_refused():
    class Strange(NamedTuple):
        hunches: dict

    fits, shared = r"that may be statistics, of shape \(3,\) for 'bias'", r"that weights share, of shape \(4, 4\)"
    with pytest.raises(UserError, match=rf"got the field 'hunches' .*, {fits}"):
        clear_moments(Strange(PARAMS), WHERE)
    with pytest.raises(UserError, match="got the field 'updates' of an optimizer's state"):
        clear_moments(optax.scale_by_lbfgs().init(PARAMS), WHERE)
    for several in ({"kernel": [jnp.ones((4, 4)), jnp.ones((3, 3))]}, {"kernel": jnp.ones((4, 4))}):  # as of Shampoo
        with pytest.raises(UserError, match=rf"got the field 'hunches' .*, {shared}"):
            clear_moments(Strange(several), WHERE)


def test_states_made_of_dictionaries_have_keys_for_fields():
    cleared = clear_moments({"mu": PARAMS, "count": jnp.int32(3)}, WHERE)
    same(cleared["mu"], jax.tree.map(lambda leaf, where: jnp.where(where, 0, leaf), PARAMS, WHERE))


def test_states_of_parameters_in_lists_are_cleared():
    params, where = [jnp.ones(2), jnp.ones(3)], {"1": jnp.array([True, False, True])}
    state = jax.tree.map(lambda leaf: leaf + 1, optax.chain(optax.identity(), optax.trace(0.9)).init(params))
    assert [leaf.tolist() for leaf in clear_moments(state, where)[1].trace] == [[1, 1], [0, 1, 0]]


def test_a_layer_named_like_a_parameter_does_not_take_its_place(key):
    """Else the moments of the rows that read a unit would stay."""
    params = conv_params(key)
    optimizer = trained(params)
    units = {"conv": jnp.array([False, True, False])}
    after = reset_units(key, Learned(params, {}, optimizer), CONV_WIRING, units).optimizer[0]
    for moments in (after.mu, after.nu):
        assert not np.any(moments["conv"][..., 1])
        assert not np.any(moments["head"][1::3])
        assert np.all(np.asarray(moments["conv"][..., 0]) != 0)


def test_layers_that_share_a_leaf_draw_it_once_and_others_with_another_key(key):
    normal = jax.nn.initializers.normal()
    layers = [
        HiddenLayer(name, 2, tuple(Feed(Slot(path, -1), normal) for path in paths), (), "relu", elementwise=True)
        for name, paths in (("a", ("shared", "one")), ("b", ("shared", "two")))
    ]
    params = {name: jnp.zeros((3, 2)) for name in ("shared", "one", "two")}
    wiring = Wiring(tuple(layers), dict.fromkeys(params, "matrix"))
    flags = jnp.array([True, True])
    new = reset_units(key, Learned(params, {}, ()), wiring, {"a": flags, "b": flags}).params
    draws = [np.asarray(leaf) for leaf in new.values()]
    assert not any(np.array_equal(draws[i], draws[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_unknown_layers_are_refused(key):
    learned = Learned(conv_params(key), {}, ())
    with pytest.raises(UserError, match=r"got the hidden layer 'convv'; wanted one of conv\. Did you mean 'conv'"):
        reset_units(key, learned, CONV_WIRING, {"convv": jnp.ones(3, bool)})
    with pytest.raises(UserError, match="got parameters without 'bias', which the wiring names"):
        reset_units(
            key, learned._replace(params={"head": jnp.zeros((12, 5))}), CONV_WIRING, {"conv": jnp.ones(3, bool)}
        )


def test_no_state_of_optax_has_a_field_named_like_a_counter():
    """Else `clear_moments` would take it for one."""
    states = [state for state in vars(optax).values() if isinstance(state, type) and hasattr(state, "_fields")]
    assert len(states) > 10
    assert not {field for state in states for field in state._fields} & set(MASSES)


def test_first_step_after_a_partial_reset_is_three_learning_rates():
    """Adam's count is shared, so the old bias correction (≈ 1) meets new moments: (1 − b1) / √(1 − b2) = 3.162."""
    rate = 1e-2
    tx = optax.adam(rate)
    params = {"w": jnp.zeros(2)}
    gradients = {"w": jnp.array([0.3, 0.3])}

    def body(state, _):
        return tx.update(gradients, state, params)[1], None

    state, _ = jax.lax.scan(body, tx.init(params), length=20_000)
    cleared = clear_moments(state, {"w": jnp.array([True, False])})
    updates, _ = tx.update(gradients, cleared, params)
    np.testing.assert_allclose(-updates["w"] / rate, [0.1 / 0.001**0.5, 1.0], rtol=1e-3)


def test_layers_that_share_a_leaf_are_both_reset(key):
    feeds = (Feed(Slot("in", -1), jax.nn.initializers.ones),)
    layers = tuple(HiddenLayer(name, 3, feeds, (Slot("out", -2),), "relu", elementwise=True) for name in ("a", "b"))
    params = {"in": jnp.full((2, 3), 5.0), "out": jnp.full((3, 2), 5.0)}
    units = {"a": jnp.array([True, False, False]), "b": jnp.array([False, False, True])}
    new = reset_units(key, Learned(params, {}, ()), Wiring(layers, {}), units).params
    same(new["in"], [[1.0, 5.0, 1.0]] * 2)
    same(new["out"], [[0.0, 0.0], [5.0, 5.0], [0.0, 0.0]])


def test_a_reset_clears_the_masses_of_the_same_weights_as_their_moments(key):
    network, params, _, _ = network_with_statistics()
    opt_state = trained(params, scale_by_adam_per_weight(), num_updates=5)
    new = reset_units(key, Learned(params, {}, opt_state), network.wiring, UNITS).optimizer
    entries = touched_entries(params)
    for path, mass in by_path(new.nu_mass).items():
        np.testing.assert_allclose(mass, np.where(entries[path], 0, 1 - 0.999**5), rtol=1e-4)
        same(by_path(new.mu_mass)[path] == 0, entries[path])
        same(by_path(new.mu)[path] == 0, entries[path])


def test_units_go_back_to_given_parameters(key):
    network, params, _, _ = network_with_statistics()
    start = jax.tree.map(lambda leaf: leaf - 7.0, params)
    by_name = jax.tree.map(jnp.asarray, by_path(start))
    new = reset_units(key, Learned(params, {}, ()), network.wiring, UNITS, start=by_name).params
    on = np.asarray(UNITS["dense_0"])
    same(new["dense_0"]["kernel"], np.where(on, start["dense_0"]["kernel"], params["dense_0"]["kernel"]))
    same(new["norm_0"]["scale"], np.where(on, start["norm_0"]["scale"], params["norm_0"]["scale"]))
    same(new["head"]["kernel"][3], np.zeros(2))


def test_magnitudes_are_means_over_all_that_a_unit_has():
    leaves = {"a": jnp.array([[1.0, -3.0], [3.0, 5.0]]), "b": jnp.arange(24.0).reshape(2, 4, 3)}
    same(mean_magnitude(leaves, [Slot("a", -1)], 2), [2.0, 4.0])
    same(mean_magnitude(leaves, [Slot("a", -2)], 2), [2.0, 4.0])
    tiled = np.asarray(leaves["b"]).reshape(2, 2, 2, 3).mean(axis=(0, 1, 3))
    same(mean_magnitude(leaves, [Slot("b", -2, tiles=2)], 2), tiled)
    both = mean_magnitude(leaves, [Slot("a", -1), Slot("b", -2, tiles=2)], 2)
    np.testing.assert_allclose(both, (2 * np.array([2.0, 4.0]) + 12 * tiled) / 14, rtol=1e-6)


def test_lowest_takes_equal_ones_in_order_and_nan_last():
    scores = jnp.array([2.0, jnp.nan, 1.0, 1.0, jnp.inf])
    assert lowest(scores, 1).tolist() == [False, False, True, False, False]
    assert lowest(scores, 2).tolist() == [False, False, True, True, False]
    assert lowest(scores, jnp.int32(4)).tolist() == [True, False, True, True, True]
    assert not lowest(scores, 0).any()


def test_lowest_is_a_stable_sort():
    draw = np.random.default_rng(0)
    scores = np.round(draw.normal(size=500), 1).astype(np.float32)  # many are equal
    scores[draw.integers(0, 500, 60)] = draw.choice([np.inf, -np.inf, np.nan, -0.0, 0.0, 1e-45, -1e-45], 60)
    # Numbers that XLA:CPU cannot tell from 0 are equal to it.
    order = np.argsort(np.where(np.abs(scores) < 1e-38, 0, scores), stable=True)
    for number in (0, 1, 17, 250, 499, 500, 501):
        same(np.flatnonzero(lowest(jnp.asarray(scores), number)), np.sort(order[:number]))
    several = jax.vmap(lowest)(jnp.stack([scores, -scores]), jnp.array([17, 3]))
    assert several.sum(axis=1).tolist() == [17, 3]
    same(np.flatnonzero(several[0]), np.sort(order[:17]))


def test_lowest_with_a_key_sorts_equal_ones_by_chance(key):
    scores = jax.random.randint(key, (300,), 0, 4).astype(jnp.float32)
    order = np.lexsort((jax.random.uniform(key, (300,)), scores))
    for number in (-1, 0, 40, 299, 1000):
        found = jax.jit(lambda number: lowest(scores, number, key=key))(number)
        same(np.flatnonzero(found), np.sort(order[: max(number, 0)]))


def test_lowest_with_a_key_decides_between_equal_ones_only():
    scores = jnp.array([2.0, jnp.nan, 1.0, 1.0, 1.0, 0.0])
    chosen = np.stack([lowest(scores, 2, key=jax.random.key(seed)) for seed in range(40)])
    assert chosen[:, 5].all()
    assert not chosen[:, :2].any()
    assert chosen.sum(axis=1).tolist() == [2] * 40
    assert chosen[:, 2:5].sum(axis=0).min() > 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"activation": "maxmin"},
            r"got Pruning behind maxmin; wanted hidden layers in which every unit owns its output\.",
        ),
        ({"widths": ()}, "got Pruning on a network without hidden layers; wanted hidden layers"),
    ],
)
def test_units_that_own_no_output_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        require_owned_outputs(mlp((3,), 2, **({"widths": (4, 2)} | options)).wiring, "Pruning")
    require_owned_outputs(mlp((3,), 2, widths=(4, 2), activation="crelu").wiring, "Pruning")


def test_only_layers_that_lose_a_unit_are_drawn():
    """In batches of seeds too: where any of them loses one."""
    network, drawn = mlp((3,), 2, widths=(4, 5)), []
    params, _ = network.init(jax.random.key(0))

    def told(layer):
        def initializer(key, shape, dtype):
            jax.debug.callback(lambda _: drawn.append(layer.name), key)
            return jnp.full(shape, 7.0, dtype)

        feeds = tuple(feed._replace(initializer=initializer) for feed in layer.feeds)
        return layer._replace(feeds=feeds)

    wiring = network.wiring._replace(layers=tuple(map(told, network.wiring.layers)))

    @jax.jit
    @jax.vmap
    def reset(unit):
        units = {"dense_0": jnp.zeros(4, bool), "dense_1": jnp.arange(5) == unit}
        return reset_units(jax.random.key(1), Learned(params, {}, ()), wiring, units).params

    for unit, layers in ((-1, set()), (2, {"dense_1"})):
        drawn.clear()
        after = jax.block_until_ready(reset(jnp.array([-1, unit])))
        jax.effects_barrier()
        assert set(drawn) == layers
        same(after["dense_0"], jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params["dense_0"]))
        same(after["dense_1"]["kernel"][0], params["dense_1"]["kernel"])
        assert bool((after["dense_1"]["kernel"][1, :, 2] == 7.0).all()) == bool(layers)


def test_a_reset_under_a_schedule_free_optimizer_lasts():
    """Its iterate z is a copy of the parameters: left as it was, z would bring the old weights back."""
    tx = contrib.schedule_free_sgd(1e-2, b1=0.9)
    params, state = PARAMS, tx.init(PARAMS)
    update = jax.jit(tx.update)
    for _ in range(5):
        updates, state = update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    reset = jax.tree.map(lambda leaf, where: jnp.where(where, 7.0, leaf), params, WHERE)
    cleared = clear_moments(state, WHERE, params=reset)
    same(cleared.z, jax.tree.map(lambda z, where: jnp.where(where, 7.0, z), state.z, WHERE))
    for _ in range(5):
        updates, cleared = update(jax.tree.map(jnp.zeros_like, params), cleared, reset)
        reset = optax.apply_updates(reset, updates)
    for leaf, where in zip(jax.tree.leaves(reset), jax.tree.leaves(WHERE), strict=True):
        np.testing.assert_allclose(np.asarray(leaf)[np.asarray(where)], 7.0, rtol=1e-5)


def test_units_reset_under_a_schedule_free_optimizer_are_reset_in_its_iterate(key):
    params = conv_params(key)
    state = contrib.schedule_free_adamw(1e-2).init(params)
    units = {"conv": jnp.array([False, True, False])}
    after = reset_units(key, Learned(params, {}, state), CONV_WIRING, units)
    same(after.optimizer.z, after.params)
