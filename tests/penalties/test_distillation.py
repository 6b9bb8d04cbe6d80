import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.penalties import distillation
from pliant.types import Forward
from strict_types import unchecked

X = jnp.array([[1.0, 0.0], [0.0, 1.0]])
TEACHER = {"w": jnp.array([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]])}
STUDENT = {"w": jnp.zeros((2, 3))}


def evaluate(params, inputs):
    return inputs @ params["w"], {}


def forward_of(params, evaluate=evaluate):
    return Forward(X, evaluate(params, X)[0], {}, jnp.float32(0.0), evaluate, lambda number: X)


def value_and_gradient(penalty, state, student=STUDENT):
    def value(params):
        value, after = penalty.loss(params, state, forward_of(params))
        return value, after

    return jax.value_and_grad(value, has_aux=True)(student)


def taught(penalty, num_switches=1):
    state = penalty.init(STUDENT)
    for _ in range(num_switches):
        state = penalty.switch(TEACHER, state)
    return state


def test_golden_divergence():
    """KL(teacher ‖ student), of the mean over examples, by hand; its gradient is xᵀ(q − p)/2."""
    (value, _), gradient = value_and_gradient(distillation(0.3), taught(distillation(0.3)))
    logits = np.asarray(TEACHER["w"], np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(value, 0.3 * np.mean(np.sum(p * np.log(3 * p), axis=1)), rtol=1e-6)
    np.testing.assert_allclose(gradient["w"], 0.3 * (1 / 3 - p) / 2, rtol=1e-5)


def test_golden_square():
    penalty = distillation(0.5, distance="squared")
    (value, _), gradient = value_and_gradient(penalty, taught(penalty))
    np.testing.assert_allclose(value, 0.5 * (1 + 0 + 1 + 0.25 + 0.25 + 4) / 6, rtol=1e-6)
    np.testing.assert_allclose(gradient["w"], -0.5 * 2 * TEACHER["w"] / 6, rtol=1e-6)


def test_batched_students_of_different_age_hear_what_single_ones_do():
    """The teacher's forward pass is a branch that nobody takes once all are done."""
    penalty = distillation(0.3, distill_steps=4)
    states = [taught(penalty)._replace(taught=jnp.int32(age)) for age in (1, 9)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    batched = jax.jit(jax.vmap(lambda state: value_and_gradient(penalty, state)))
    (values, _), gradients = batched(together)
    for i, state in enumerate(states):
        (value, _), gradient = value_and_gradient(penalty, state)
        np.testing.assert_allclose(values[i], value, rtol=1e-6)
        np.testing.assert_allclose(gradients["w"][i], gradient["w"], rtol=1e-5)
    assert values[1] == 0 < values[0]
    assert "stablehlo.case" in batched.lower(together).as_text()


def test_a_student_that_is_the_teacher_has_nothing_to_learn():
    (value, _), gradient = value_and_gradient(distillation(), taught(distillation()), TEACHER)
    np.testing.assert_allclose(value, 0.0, atol=1e-7)
    np.testing.assert_allclose(gradient["w"], np.zeros((2, 3)), atol=1e-7)


def test_the_weight_falls_linearly_to_zero():
    penalty = distillation(1.0, distill_steps=4)
    state, values = taught(penalty), []
    for _ in range(6):
        (value, state), gradient = value_and_gradient(penalty, state)
        values.append(float(value))
    np.testing.assert_allclose(np.array(values[:4]) / values[0], [1.0, 0.75, 0.5, 0.25], rtol=1e-6)
    assert values[4:] == [0.0, 0.0]
    assert not np.any(gradient["w"])
    (again, _), _ = value_and_gradient(penalty, penalty.switch(TEACHER, state))
    assert float(again) == values[0]


@pytest.mark.parametrize(
    ("options", "num_switches"),
    [({}, 0), ({"strength": 0.0}, 1), ({"every_tasks": 0}, 1), ({"every_tasks": 2}, 1)],
)
def test_without_a_teacher_it_is_exactly_zero(options, num_switches):
    penalty = distillation(**options)
    (value, _), gradient = value_and_gradient(penalty, taught(penalty, num_switches))
    assert float(value) == 0.0
    assert not np.any(gradient["w"])


def test_every_second_teacher():
    penalty = distillation(every_tasks=2)
    state = taught(penalty, 2)
    np.testing.assert_array_equal(state.teacher["w"], TEACHER["w"])
    third = penalty.switch(jax.tree.map(lambda leaf: leaf + 1, TEACHER), state)
    np.testing.assert_array_equal(third.teacher["w"], TEACHER["w"])
    assert int(third.switches) == 3


def test_the_teacher_is_asked_only_while_it_counts():
    asked = []

    def counted(params, inputs):
        jax.debug.callback(lambda: asked.append(1))
        return evaluate(params, inputs)

    penalty = distillation(distill_steps=2)

    @jax.jit
    def step(state):
        forward = forward_of(STUDENT)._replace(evaluate=counted)
        return penalty.loss(STUDENT, state, forward)[1]

    state = step(step(penalty.init(STUDENT)))
    jax.effects_barrier()
    assert not asked
    state = penalty.switch(TEACHER, state)
    for _ in range(5):
        state = step(state)
    jax.effects_barrier()
    assert len(asked) == 2


def test_the_teacher_gets_no_gradient():
    penalty = distillation()
    state = taught(penalty)

    def value(teacher):
        kept = state._replace(teacher=jax.lax.stop_gradient(teacher))
        return penalty.loss(STUDENT, kept, forward_of(STUDENT))[0]

    assert not np.any(jax.grad(value)(TEACHER)["w"])


def test_seeds_have_teachers_of_their_own():
    penalty = distillation()

    def value(scale):
        state = penalty.switch(jax.tree.map(lambda leaf: scale * leaf, TEACHER), penalty.init(STUDENT))
        return penalty.loss(STUDENT, state, forward_of(STUDENT))[0]

    scales = jnp.array([0.5, 2.0])
    np.testing.assert_allclose(jax.vmap(value)(scales), [value(scale) for scale in scales], rtol=1e-6)


def test_narrow_outputs_are_compared_in_float32():
    def narrow(params, inputs):
        return evaluate(params, inputs)[0].astype(jnp.bfloat16), {}

    penalty = distillation()
    value, _ = penalty.loss(STUDENT, taught(penalty), forward_of(STUDENT, narrow))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, value_and_gradient(penalty, taught(penalty))[0][0], rtol=1e-2)


def test_divergence_of_single_values_is_refused():
    single = Forward(X, X[:, :1], {}, jnp.float32(0.0), lambda params, x: (x[:, :1], {}), lambda number: X)
    with pytest.raises(UserError, match=r"got distance='kl' between outputs of size 1, .* Use distance='squared'"):
        distillation().loss(STUDENT, taught(distillation()), single)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, r"got strength=-1.0; wanted a finite number ≥ 0\. Use 0 to switch"),
        ({"distill_steps": 0}, r"got distill_steps=0; wanted a finite number ≥ 1\. Use the number of updates"),
        ({"every_tasks": -1}, "got every_tasks=-1"),
        ({"distance": "mse"}, "got the distance 'mse'; wanted one of kl, squared"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        unchecked(distillation)(**options)


def test_a_network_that_diverged_does_not_teach():
    penalty = distillation(0.5, distance="squared")
    lost = {"w": TEACHER["w"].at[0, 0].set(jnp.nan)}
    first, second = penalty.switch(lost, penalty.init(STUDENT)), penalty.switch(lost, taught(penalty))
    assert (int(first.taught), int(first.switches)) == (-1, 1)
    jax.tree.map(np.testing.assert_array_equal, second.teacher, TEACHER)


@pytest.mark.parametrize("distance", ["squared", "kl"])
def test_distances_of_named_outputs_are_added(distance):
    """With "kl", too, values are compared by their squared difference."""

    def both(params, inputs):
        return {"policy": inputs @ params["w"], "value": inputs @ params["v"]}, {}

    teacher, student = (
        {**weights, "v": jnp.full((2, 1), value)} for weights, value in ((TEACHER, 2.0), (STUDENT, 0.5))
    )
    penalty = distillation(1.0, distance=distance)
    state = penalty.switch(teacher, penalty.init(teacher))
    value, _ = penalty.loss(student, state, forward_of(student, both))
    alone, _ = penalty.loss(STUDENT, penalty.switch(TEACHER, penalty.init(TEACHER)), forward_of(STUDENT))
    np.testing.assert_allclose(value, alone + 1.5**2, rtol=1e-6)
