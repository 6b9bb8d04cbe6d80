"""Methods that reset units take longer than the 24 updates of the contract tests to act; here they are hurried."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contracts import method_checks as checks
from pliant.errors import UserError
from pliant.methods import METHODS, build, defaults, find, with_settings
from pliant.networks import mlp
from pliant.types import Learned, Signals

UNITS = ("redo", "redo-scheduled", "continual-backprop", "regrama", "snr")


def hurried(name, **options):
    """The method with other defaults of its intervention."""
    method = METHODS[name]
    return method._replace(name=f"{name}-hurried", intervention=functools.partial(method.intervention, **options))


HURRIED = {
    "continual-backprop": hurried("continual-backprop", replacement_rate=0.05, maturity=3),
    "snr": hurried("snr", max_silence=6),
    "redo-initial": hurried("redo", source="initial"),
}


@pytest.mark.exact
@pytest.mark.parametrize(
    "check",
    [
        checks.check_off_is_adam,
        checks.check_touches_parameters,
        checks.check_noise_follows_the_key,
        checks.check_vmap_changes_nothing,
        checks.check_no_recompilation,
    ],
    ids=lambda check: check.__name__,
)
@pytest.mark.parametrize("name", HURRIED)
def test_contract_while_it_acts(name, check):
    if (name, check) == ("redo-initial", checks.check_noise_follows_the_key):
        return  # it draws examples, but which of them hardly ever matters
    check(HURRIED[name])


@pytest.mark.parametrize("name", ["snr", "redo-initial"])
def test_dead_units_are_revived(name):
    method = HURRIED[name]
    with_it = checks._target(method._replace(lowers="dormant_fraction"), checks.train(method))
    without = checks._target(method._replace(lowers="dormant_fraction"), checks.train(method, **method.off))
    assert with_it < without


@pytest.mark.parametrize("name", UNITS)
def test_all_refuse_sorted_outputs(name):
    wiring = mlp((4,), 2, widths=(4,), activation="maxmin").wiring
    with pytest.raises(
        UserError, match=r"got .* behind maxmin; wanted hidden layers in which every unit owns its output"
    ):
        build(METHODS[name], wiring, defaults(METHODS[name]))


def test_weights_begin_again_behind_sorted_outputs():
    method = METHODS["selective-weight-reinit"]
    wiring = mlp((4,), 2, widths=(4,), activation="maxmin").wiring
    assert build(method, wiring, defaults(method)).intervention


@pytest.mark.parametrize("name", [*UNITS, "selective-weight-reinit"])
def test_all_go_together_with_other_optimizers(name):
    """A method with plain Adam may be combined with AdamO, and with Adam per weight."""
    assert METHODS[name].optimizer is None
    for other in ("adamo", "adam-per-weight"):
        assert find(f"{name}+{other}").optimizer is METHODS[other].optimizer


@functools.cache
def first_update_after_a_reset(name):
    """Of the weights of a unit that is dead when ReDo comes, in learning rates."""
    method, rate = find(name), 1e-3
    network = mlp((3,), 2, widths=(4,))
    values = with_settings(method, {"every": 1, "threshold": 0.0}, rate)
    parts = build(method, network.wiring, values)
    params, state = network.init(jax.random.key(0))
    dead = {"bias": jnp.array([0.1, -99.0, 0.1, 0.1]), "kernel": params["dense_0"]["kernel"]}
    params = params | {"dense_0": dead}
    x = jax.random.normal(jax.random.key(1), (32, 3))
    gradients = jax.tree.map(jnp.ones_like, params)
    update = jax.jit(lambda opt_state: parts.optimizer.update(gradients, opt_state, params, step=1, key=None)[0])

    opt_state = parts.optimizer.init(params)
    opt_state = jax.jit(
        lambda s: jax.lax.fori_loop(
            0, 5000, lambda i, s: parts.optimizer.update(gradients, s, params, step=i + 1, key=None)[1], s
        )
    )(opt_state)

    def probe(learned, key, num_examples):
        return network.apply(learned.params, state, x, train=False, key=None)[1]

    learned, part = Learned(params, state, opt_state), parts.intervention
    signals = Signals(gradients, {}, probe, None)
    learned, _, _ = part.update(jax.random.key(2), 1, learned, part.init(learned), signals)
    return np.asarray(-update(learned.optimizer)["dense_0"]["kernel"] / rate)


@pytest.mark.parametrize(("name", "wanted"), [("redo", 0.1 / 0.001**0.5), ("redo+adam-per-weight", 1.0)])
def test_bias_correction_after_a_partial_reset(name, wanted):
    updates = first_update_after_a_reset(name)
    np.testing.assert_allclose(updates[:, 1], np.full(3, wanted), rtol=1e-2)
    np.testing.assert_allclose(updates[:, [0, 2, 3]], np.ones((3, 3)), rtol=1e-2)
