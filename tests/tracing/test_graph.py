import jax
import jax.numpy as jnp
import pytest

from pliant.tracing._graph import graph_of

X = jnp.ones((2, 3))


def values(function):
    """The graph of `function(x) -> (output, value, ...)`, and where the values are."""
    graph = graph_of(function, X)
    return graph, graph.outputs


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, lambda f: jax.jit(jax.jit(f))])
def test_calls_are_written_out(wrap):
    graph, _ = values(wrap(lambda x: jnp.sin(x) * 2))
    assert [node.name for node in graph.nodes] == ["sin", "mul"]


def test_what_is_above_and_below():
    def function(x):
        a = jnp.sin(x)
        b = jax.lax.stop_gradient(jnp.cos(a))
        return b + a, a, b, jnp.tan(a)

    graph, (output, a, b, aside) = values(function)
    assert {a, b, *graph.inputs} <= graph.above([output])
    assert aside not in graph.above([output])
    assert not graph.above([output], stop=[a]) & set(graph.inputs)
    assert {output, aside} <= graph.below([a])
    assert aside not in graph.above([output], without=["stop_gradient"])
    assert graph.above([b], without=["stop_gradient"]) == {b}


def test_copies():
    def function(x):
        a = jnp.sin(x)
        return a * 2, a.astype(jnp.float16).T[None], a + 1, jnp.round(a).astype(int)

    graph, (_, copy, other, whole) = values(function)
    assert [node.name for node in graph.readers[graph.original(copy)]][:1] == ["mul"]
    assert graph.original(other) == other
    assert graph.producer[graph.original(whole)].name == "convert_element_type"
    assert graph.is_read(graph.original(copy))
    assert not graph.is_read(other)


def test_what_can_be_perturbed():
    def function(x):
        a = jax.nn.relu(x)  # of a function with a derivative of its own, in which nothing else reads it
        last, each = jax.lax.scan(lambda h, _: (jnp.sin(h), h * 2), a, length=3)
        chosen = jax.lax.cond(x.sum() > 0, jnp.cos, jnp.tan, last)
        return chosen.sum(), x, a, each, last, chosen

    graph, (_, x, a, each, last, chosen) = values(function)
    assert [graph.can_be_perturbed(value) for value in (x, a, last, chosen)] == [False, True, True, True]
    assert not graph.can_be_perturbed(graph.original(each))
    looped, (_, inner) = values(lambda x: jax.lax.scan(lambda h, _: ((s := jnp.sin(h)) * 2, s), x, length=3))
    assert not looped.can_be_perturbed(looped.original(inner))


def test_loops_depend_on_what_they_carry():
    def function(x):
        _, out = jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, 0 * X))
        return jax.lax.fori_loop(0, 3, lambda i, h: h + x, out), out

    graph, (output, out) = values(function)
    assert set(graph.inputs) <= graph.above([output])
    assert not set(graph.inputs) & graph.above([out])
