import jax
import jax.numpy as jnp
import numpy as np

from pliant.finite import all_finite, keep_finite

BAD = {"w": jnp.array([1.0, jnp.nan, -jnp.inf], jnp.bfloat16), "n": jnp.array(3)}


def test_only_what_is_not_finite_is_kept():
    old = {"w": jnp.array([7.0, 8.0, 9.0]), "n": jnp.array(1)}
    new = jax.jit(keep_finite)(BAD, old)
    assert (new["w"].dtype, new["w"].tolist(), int(new["n"])) == (jnp.bfloat16, [1.0, 8.0, 9.0], 3)


def test_all_are_finite_or_not():
    large = {"w": jnp.full(3, 3e38), "n": jnp.array(3), "none": jnp.zeros((0, 2))}
    assert [bool(all_finite(tree)) for tree in (large, BAD, {})] == [True, False, True]
    np.testing.assert_array_equal(jax.vmap(lambda w: all_finite([w, large]))(BAD["w"]), [True, False, False])
