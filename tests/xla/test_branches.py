import jax
import jax.numpy as jnp

from pliant.xla.branches import anywhere


def test_anywhere_is_one_flag_for_all_of_a_batch():
    flags = jnp.array([[False, False, True], [False, False, False]])
    assert bool(anywhere(jnp.array(True)))
    assert jax.vmap(anywhere)(flags[0]).tolist() == [True] * 3
    assert jax.vmap(anywhere)(flags[1]).tolist() == [False] * 3
    assert jax.jit(jax.vmap(jax.vmap(anywhere)))(flags).tolist() == [[True] * 3] * 2
    assert jax.lax.map(anywhere, flags[0]).tolist() == flags[0].tolist()

    def body(flag):
        return jax.lax.fori_loop(0, 3, lambda i, n: jax.lax.cond(anywhere(flag), lambda n: n + i, lambda n: n, n), 0)

    looped = jax.jit(jax.vmap(body))
    assert "stablehlo.case" in looped.lower(flags[0]).as_text()
    assert looped(flags[0]).tolist() == [3] * 3
