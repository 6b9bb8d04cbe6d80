"""What holds for every network: its wiring says the truth about its units and parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from pliant.interventions import slot_mask
from pliant.networks import ACTIVATIONS
from pliant.types import ROLES, by_path, leaf_path

STEPS = (0.9, -0.9)
"""How far feeds are moved: one way or the other, a rectified unit is heard."""


def assert_roles_are_complete(network):
    """Every parameter leaf has a role, nothing else has one, and the head's inputs are a feature."""
    params, _ = jax.eval_shape(network.init, jax.random.key(0))
    leaves = {leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    roles = network.wiring.roles
    assert set(roles) == leaves, f"no role: {leaves - set(roles)}; no leaf: {set(roles) - leaves}"
    assert set(roles.values()) <= set(ROLES), f"unknown roles: {set(roles.values()) - set(ROLES)}"
    _assert_all_is_said(network)


def _assert_all_is_said(network):
    """Every bias is added to what some kernel makes, kernels of role "head" are heads', and the state is somebody's."""
    wiring = network.wiring
    kernels = {path for path, role in wiring.roles.items() if role == "head"}
    assert kernels <= wiring.head_leaves, f"no head's: {kernels - wiring.head_leaves}"
    biases = {path for path, role in wiring.roles.items() if role == "bias"}
    assert biases == set(wiring.biases.values()), f"no kernel's: {biases - set(wiring.biases.values())}"
    said = {path for layer in wiring.layers for path in (*layer.state, *(slot.path for slot in layer.statistics or ()))}
    state = set(by_path(jax.eval_shape(network.init, jax.random.key(0))[1]))
    assert said <= state, f"not in the state: {said - state}"


def assert_wiring_is_true(network, inputs, *, through=None, state=None, seed=0):
    """Cuts every unit of every layer of the wiring off, one at a time, and moves what feeds it.

    With the rows of its readers at zero the output must not depend on a unit's feeds; it must depend on them before,
    and on the next unit's feeds still. Moving a unit's feeds must change that unit's features and no other's. Units
    that are sorted together (MaxMin) are cut off together.

    Args:
      network: the network; small, since every unit costs forward passes.
      inputs: a batch of inputs, any pytree; some dozens of examples, so that rectified units are heard.
      through: roles of the feeds to move. By default those of the layer's norm where it has one, since a norm's
        statistics give every unit of the layer a share in the feeds before it; otherwise all.
      state: the network's state, if not that of the start.
      seed: for the parameters.
    """
    assert_roles_are_complete(network)
    params, fresh = network.init(jax.random.key(seed))
    state = fresh if state is None else state
    wiring = network.wiring
    names = [layer.name for layer in wiring.layers]
    features = jax.eval_shape(lambda: network.apply(params, state, inputs, train=False, key=None)[1])
    read = {head.reads for head in wiring.heads.values()} - {None}
    assert read <= set(features), f"no features {read - set(features)}"
    assert len(set(names)) == len(names), f"two layers of one name among {names}"
    for layer in wiring.layers:
        assert layer.name in features, f"no feature {layer.name!r}"
        slots = _own_feeds(wiring, layer, through)

        @jax.jit
        def run(cut, moved, by, layer=layer, slots=slots):
            """Output and features with the readers of `cut` at zero and the feeds of `moved` moved."""
            changed = _changed(params, layer.readers, cut, lambda leaf: jnp.zeros_like(leaf))
            changed = _changed(changed, slots, moved, lambda leaf: leaf + by)
            output, features, _ = network.apply(changed, state, inputs, train=False, key=None)
            return output, features[layer.name]

        size = 1 if layer.elementwise else ACTIVATIONS[layer.activation].group_size
        for first in range(0, layer.width, size):
            _assert_unit_speaks_to_its_readers_only(run, layer, first, size)


def _assert_unit_speaks_to_its_readers_only(run, layer, first, size):
    where = f"{layer.name}, unit {first}"
    unit = np.arange(layer.width) // size == first // size
    nobody = np.zeros_like(unit)
    before, features = run(nobody, nobody, 0.0)
    moved = [run(nobody, unit, by) for by in STEPS]
    assert any(_differ(output, before) for output, _ in moved), f"{where}: its feeds change nothing"
    _assert_only_these_features(features, [others for _, others in moved], unit, where)
    silent = run(unit, nobody, 0.0)[0]
    for by in STEPS:
        assert not _differ(run(unit, unit, by)[0], silent), f"{where}: heard although its readers are zero"
    if layer.width > size:
        outputs = [run(unit, np.roll(unit, size), by)[0] for by in STEPS]
        assert any(_differ(output, silent) for output in outputs), f"{where}: the next unit is cut off as well"


def _own_feeds(wiring, layer, through):
    roles = {feed.slot.path: wiring.roles[feed.slot.path] for feed in layer.feeds}
    wanted = through or (("norm",) if "norm" in roles.values() else ROLES)
    slots = [feed.slot for feed in layer.feeds if roles[feed.slot.path] in wanted]
    assert slots, f"{layer.name}: no feed has one of the roles {wanted}"
    return slots


def _changed(params, slots, units, change):
    """The parameters with the units' entries changed."""
    by_path = {}
    for slot in slots:
        by_path.setdefault(slot.path, []).append(slot)
    missing = set(by_path)

    def at(path, leaf):
        name = leaf_path(path)
        missing.discard(name)
        for slot in by_path.get(name, ()):
            places = slot.groups * leaf.shape[slot.axis]
            assert places == units.size * slot.tiles * slot.repeats, f"{units.size} units in {slot}, {leaf.shape}"
            leaf = jnp.where(slot_mask(slot, units, leaf), change(leaf), leaf)
        return leaf

    params = jax.tree_util.tree_map_with_path(at, params)
    assert not missing, f"no leaves {missing}"
    return params


def _assert_only_these_features(features, moved, unit, where):
    assert features.shape[-1] % unit.size == 0, f"{where}: {features.shape[-1]} features of {unit.size} units"
    changed = sum(np.asarray(others != features).reshape(-1, unit.size).any(axis=0) for others in moved) > 0
    assert not (changed & ~unit).any(), f"{where}: its feeds change the features of {np.flatnonzero(changed & ~unit)}"
    assert (changed & unit).any(), f"{where}: its feeds do not change its features"


def _differ(a, b):
    return not np.array_equal(a, b)
