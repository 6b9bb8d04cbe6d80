import jax
import optax
import pytest

from contracts import method_checks as checks
from pliant.interventions import redo
from pliant.methods import METHODS, find
from pliant.optimizers import adam, add_isometry_step
from pliant.training import Checkpoints
from pliant.types import Intervention
from tiers import REPRESENTATIVES

SEVERAL = {name: find(name) for name in ("redo+l2-init", "adamo+redo", "gram-penalty+l2-init")}
ALL = METHODS | SEVERAL


def _each(names):
    return pytest.mark.parametrize("name", names)


def _is_another_network(method):
    """Adam on a network of another kind has nothing of its own that `test_networks.py` does not look at."""
    own = (method.penalty, method.intervention, method.schedule, method.wrap, method.targets)
    return method.optimizer is None and method.name != "adam" and not any(own)


EVERY = _each(ALL)
WITH_PARTS = _each([name for name in ALL if not _is_another_network(ALL[name])])
MECHANISMS = _each([name for name in ALL if ALL[name].off])
LOWERING = _each([name for name in ALL if ALL[name].lowers])


@EVERY
def test_learns(name):
    checks.check_learns(ALL[name])


@pytest.mark.parametrize("check", checks.GENERAL, ids=lambda check: check.__name__)
@WITH_PARTS
def test_contract(name, check):
    check(ALL[name])


@pytest.mark.whole
@_each(["adamo", "continual-backprop", "reset-distill"])  # hundreds of small programs each
def test_jit_changes_nothing(name):
    checks.check_jit_changes_nothing(ALL[name])


@MECHANISMS
def test_touches_parameters(name):
    checks.check_touches_parameters(ALL[name])


@_each([name for name in ALL if ALL[name].off and name in REPRESENTATIVES - {"infer"}])  # its last bits differ then
def test_off_is_its_base(name):
    checks.check_off_is_adam(ALL[name])


@pytest.mark.whole
@pytest.mark.exact
@MECHANISMS
def test_off_is_its_base_as_users_compile_it(name):
    checks.check_off_is_adam(ALL[name])


def test_the_network_of_these_contracts_draws():
    adam = checks.base_of(checks.on_noisy_network(METHODS["adam"]))
    first, second = (checks.train(adam, layers=layers).params for layers in (1, 2))
    assert not checks.equal(first, second)


MOVES = (
    dict.fromkeys(("adamo", "adamo-maxmin", "gram-penalty", "parseval", "unit-sphere"), "matrix")
    | dict.fromkeys(("newton-schulz", "newton-schulz-maxmin"), "matrix")
    | dict.fromkeys(("l2", "weight-decay", "layernorm-weight-decay"), "matrix head")
    | dict.fromkeys(("fire", "selective-weight-reinit"), "matrix head")
    | dict.fromkeys(("l2-init", "l2-init-decoupled", "wasserstein-init", "spectral"), "matrix head bias")
    | dict.fromkeys(("weight-clipping", "shrink-perturb", "soft-reset", "dash"), "matrix head bias")
    | dict.fromkeys(("redo", "redo-scheduled", "regrama", "continual-backprop", "snr"), "matrix head bias norm")
    | dict.fromkeys(("full-reset", "reset-distill", "last-k-reset", "hare-tortoise"), "matrix head bias norm")
    | dict.fromkeys(("adamw", "upgd", "effective-rank", "c-chain"), "matrix head bias norm")
    | {"feature-init": "matrix bias norm", "infer": "matrix bias norm other"}
    | {"nap": "matrix norm", "head-reset": "head", "plasticity-injection": "head"}
    | {"redo+l2-init": "matrix head bias norm", "adamo+redo": "matrix head bias norm"}
    | {"gram-penalty+l2-init": "matrix head bias"}
)
"""The roles that methods move where the loss has no gradient; parameters of all others stay, to the bit."""


@EVERY
def test_roles_that_move_without_a_gradient(name):
    assert checks.moved_without_a_gradient(ALL[name]) == set(MOVES.get(name, "").split())


@LOWERING
def test_lowers(name):
    checks.check_lowers(ALL[name])


@EVERY
def test_state_survives_a_checkpoint(name, tmp_path):
    state = checks.train(ALL[name])
    with Checkpoints(tmp_path / name, num_tasks_stored=1) as checkpoints:
        checkpoints.save(1, state)
    with Checkpoints(tmp_path / name, num_tasks_stored=1) as checkpoints:
        restored, _ = checkpoints.restore(state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert checks.equal(restored, state)


@pytest.mark.parametrize("name", METHODS)
def test_registry_row_is_complete(name):
    method = METHODS[name]
    assert method.name == name
    assert method.summary
    assert method.reference
    assert method.base in METHODS
    assert method.off or not (method.penalty or method.intervention or method.schedule), "what switches it off?"


def _ascending(wiring, *, learning_rate, isometry_strength=0.1):
    """Stoix' defect: the penalty's gradient with the wrong sign."""
    return optax.chain(
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(learning_rate),
        add_isometry_step(
            lambda count: -learning_rate * isometry_strength,
            every=1,
            mask=lambda params: wiring.mask(params, "matrix"),
        ),
    )


def _untouched(wiring, *, learning_rate, isometry_strength=0.1):
    """Stoix' other defect: a step that reaches no parameter."""
    del isometry_strength
    return adam(learning_rate)


def _shared_seed(wiring, *, threshold=0.025):
    """purejaxrl's defect: a key of its own, the same in every seed."""
    honest = redo(wiring, threshold=threshold, every=4)
    return honest._replace(update=lambda key, *rest: honest.update(jax.random.key(0), *rest))


def _moving_statistics(wiring):
    """Leaves the weights alone, but not the network's running statistics."""
    del wiring

    def update(key, step, learned, state, signals):
        del key, step, signals
        return learned._replace(statistics=jax.tree.map(lambda leaf: leaf + 1, learned.statistics)), state, {}

    return Intervention(init=lambda learned: (), update=update)


def _climbing(wiring, *, learning_rate):
    """An optimizer that goes up the loss."""
    del wiring
    return optax.with_extra_args_support(optax.sgd(-learning_rate))


BROKEN = {
    "wrong sign": (METHODS["adamo"]._replace(optimizer=_ascending), checks.check_lowers),
    "untouched parameters": (METHODS["adamo"]._replace(optimizer=_untouched), checks.check_touches_parameters),
    "shared seed": (METHODS["redo"]._replace(intervention=_shared_seed), checks.check_noise_follows_the_key),
    "climbs": (METHODS["sgd"]._replace(optimizer=_climbing), checks.check_learns),
    "moves statistics": (METHODS["adam"]._replace(intervention=_moving_statistics), checks.check_off_is_adam),
    "not off at 0": (METHODS["l2-init"]._replace(off={"strength": 0.001}), checks.check_off_is_adam),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_method_fails(defect):
    method, check = BROKEN[defect]
    with pytest.raises(AssertionError):
        check(method)
