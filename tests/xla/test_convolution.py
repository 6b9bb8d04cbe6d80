import collections
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

from pliant.xla import convolution as module_under_test
from pliant.xla.convolution import convolution, max_pool

# (height, wide), (rows, columns), strides, padding
CASES = [
    ((7, 8), (3, 3), (1, 1), "SAME"),
    ((7, 8), (3, 3), (2, 2), "SAME"),
    ((8, 8), (3, 3), (2, 2), ((1, 1), (1, 1))),
    ((6, 6), (1, 1), (2, 2), "VALID"),
    ((7, 5), (1, 1), (2, 2), ((0, 0), (0, 0))),
    ((9, 7), (2, 5), (2, 3), ((3, 1), (0, 2))),
    ((8, 8), (5, 4), (3, 1), "VALID"),
    ((5, 6), (3, 2), (3, 4), "SAME"),
    ((2, 3), (7, 7), (2, 2), ((3, 3), (3, 3))),
    ((1, 1), (3, 3), (1, 1), "SAME"),
    ((9, 9), (3, 3), (2, 2), ((-1, -2), (2, -1))),
    ((1, 3), (3, 3), (1, 1), ((3, 1), (3, 1))),  # to the input with padding (-1, 1), where XLA:CPU is wrong
    ((3, 5), (3, 3), (1, 1), ((0, 0), (-1, 1))),
    ((2, 4), (3, 3), (1, 1), "VALID"),  # no output
    ((1, 1), (1, 3), (1, 1), "VALID"),
]
FEW = [CASES[i] for i in (4, 5)]
MARGIN = 8
CANONICAL = "b01f_01io->b01f"


def stock(x, kernel, *, strides, padding):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers)


def arrays(size, kernel_size, batch=3, channels=4, out=5):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(batch, *size, channels)), rng.normal(size=(*kernel_size, channels, out))
    return jnp.float32(x), jnp.float32(kernel)


def slices(x, kernel, strides, padding):
    """The images in float64 with MARGIN zeros around; for every kernel position the pixels it sees; their number."""
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    wide = np.pad(np.float64(x), ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)))
    out = [max(0, (x.shape[1 + i] + sum(padding[i]) - kernel.shape[i]) // strides[i] + 1) for i in (0, 1)]

    def along(i, place):
        start = MARGIN - padding[i][0] + place
        return slice(start, start + strides[i] * out[i], strides[i])

    seen = {place: np.s_[:, along(0, place[0]), along(1, place[1])] for place in np.ndindex(kernel.shape[:2])}
    return wide, seen, out


def by_hand(x, kernel, strides, padding):
    wide, seen, out = slices(x, kernel, strides, padding)
    y = np.zeros((x.shape[0], *out, kernel.shape[3]))
    for place, where in seen.items():
        y += wide[where] @ np.float64(kernel[place])
    return y


def gradients_by_hand(g, x, kernel, strides, padding):
    wide, seen, _ = slices(x, kernel, strides, padding)
    to_wide, to_kernel = np.zeros_like(wide), np.zeros(kernel.shape)
    for place, where in seen.items():
        to_wide[where] += np.float64(g) @ np.float64(kernel[place]).T
        to_kernel[place] = np.einsum("bhwi,bhwo->io", wide[where], np.float64(g))
    return to_wide[:, MARGIN : MARGIN + x.shape[1], MARGIN : MARGIN + x.shape[2]], to_kernel


def assert_near(got, wanted, tolerance=2e-6):
    """Within `tolerance` of the largest entry."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert np.shape(a) == np.shape(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(initial=1.0))


@pytest.mark.parametrize(("size", "kernel_size", "strides", "padding"), CASES)
def test_computes_what_it_says(size, kernel_size, strides, padding):
    x, kernel = arrays(size, kernel_size)
    ours = functools.partial(convolution, strides=strides, padding=padding)
    got = ours(x, kernel)
    assert_near(got, by_hand(x, kernel, strides, padding))
    assert_near(got, jax.jit(ours)(x, kernel))
    if padding != ((0, 0), (-1, 1)):
        assert_near(got, stock(x, kernel, strides=strides, padding=padding))


@pytest.fixture
def rounds_of_eight(monkeypatch):
    """Gradients of kernels are summed over eight examples after others, even of such small images."""
    monkeypatch.setattr(module_under_test, "_POSITIONS", 1)


@pytest.mark.parametrize("batch", [3, 8, 19, 24])
@pytest.mark.parametrize(("size", "kernel_size", "strides", "padding"), CASES)
def test_gradients_by_hand(rounds_of_eight, size, kernel_size, strides, padding, batch):
    x, kernel = arrays(size, kernel_size, batch=batch)
    y, back = jax.vjp(functools.partial(convolution, strides=strides, padding=padding), x, kernel)
    g = jnp.float32(np.random.default_rng(1).normal(size=y.shape))
    assert_near(back(g), gradients_by_hand(g, x, kernel, strides, padding))


def test_an_empty_batch():
    x, kernel = arrays((5, 5), (3, 3), batch=0)
    y, back = jax.vjp(convolution, x, kernel)
    to_input, to_kernel = back(y)
    assert y.shape == (0, 5, 5, 5)
    assert to_input.shape == x.shape
    np.testing.assert_array_equal(to_kernel, np.zeros_like(kernel))


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_gradients_for_any_shape(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    size, kernel_size = (draw(1, 9), draw(1, 9)), (draw(1, 5), draw(1, 5))
    strides = (draw(1, 4), draw(1, 4))
    pairs = (draw(-2, 4), draw(-2, 4)), (draw(-2, 4), draw(-2, 4))
    padding = data.draw(st.sampled_from(["SAME", "VALID", pairs]))
    assume(all(n + sum(pair) >= 0 for n, pair in zip(size, pairs, strict=True)))
    x, kernel = arrays(size, kernel_size, batch=draw(1, 3), channels=draw(1, 6), out=draw(1, 3))
    y, back = jax.vjp(functools.partial(convolution, strides=strides, padding=padding), x, kernel)
    assert_near(y, by_hand(x, kernel, strides, padding))
    g = jnp.float32(np.random.default_rng(1).normal(size=y.shape))
    assert_near(back(g), gradients_by_hand(g, x, kernel, strides, padding))


def loss(run, x, kernel):
    return (jnp.sin(run(x, kernel)) ** 2).sum()


def grad(run):
    return jax.grad(functools.partial(loss, run), (0, 1))


def gradient_norm(run):
    return lambda x, kernel: sum((g**2).sum() for g in grad(run)(x, kernel))


def along(x, kernel):
    """A direction that has something of everything."""
    return (0.3 * x + 1.0, 0.1 * kernel - 1.0)


def two(array):
    return jnp.stack([array, 0.5 * array[::-1]])


TRANSFORMATIONS = {
    "grad": lambda run: grad(run),
    "jvp": lambda run: lambda x, k: jax.jvp(run, (x, k), along(x, k)),
    "jvp of the input alone": lambda run: lambda x, k: jax.jvp(lambda x: run(x, k), (x,), (along(x, k)[0],)),
    "forward over reverse": lambda run: lambda x, k: jax.jvp(grad(run), (x, k), along(x, k)),
    "reverse over forward": lambda run: (
        lambda x, k: jax.grad(lambda x, k: jax.jvp(functools.partial(loss, run), (x, k), along(x, k))[1], (0, 1))(x, k)
    ),
    "grad of grad": lambda run: jax.grad(gradient_norm(run), (0, 1)),
    "vmap over images": lambda run: lambda x, k: jax.vmap(run, (0, None))(two(x), k),
    "vmap over images' channels": lambda run: lambda x, k: jax.vmap(run, (4, None), 2)(jnp.moveaxis(two(x), 0, 4), k),
    "vmap over kernels": lambda run: lambda x, k: jax.vmap(run, (None, 0))(x, two(k)),
    "vmap over kernels' last axis": lambda run: lambda x, k: jax.vmap(run, (None, 4), 1)(x, jnp.moveaxis(two(k), 0, 4)),
    "vmap over both": lambda run: lambda x, k: jax.vmap(run, (0, 4), 3)(two(x), jnp.moveaxis(two(k), 0, 4)),
    "vmap of grad, images": lambda run: lambda x, k: jax.vmap(grad(run), (0, None))(two(x), k),
    "vmap of grad, kernels": lambda run: lambda x, k: jax.vmap(grad(run), (None, 0))(x, two(k)),
    "vmap of grad, both": lambda run: lambda x, k: jax.vmap(grad(run))(two(x), two(k)),
    "vmap of vmap of grad": lambda run: (
        lambda x, k: jax.vmap(jax.vmap(grad(run), (None, 0)), (0, None))(two(x), two(k))
    ),
    "grad of vmap": lambda run: lambda x, k: grad(jax.vmap(run))(two(x), two(k)),
    "jvp of vmap of grad": lambda run: (
        lambda x, k: jax.jvp(jax.vmap(grad(run)), (two(x), two(k)), along(two(x), two(k)))
    ),
    "grad with remat": lambda run: grad(jax.checkpoint(run)),
}


@pytest.mark.parametrize(("batch", "channels"), [(2, 2), (2, 4), (11, 4)])  # by patches, at once, in rounds
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformations_are_those_of_the_stock_convolution(rounds_of_eight, name, batch, channels):
    transform = TRANSFORMATIONS[name]
    for size, kernel_size, strides, padding in FEW:
        x, kernel = arrays(size, kernel_size, batch=batch, channels=channels, out=3)
        options = {"strides": strides, "padding": padding}
        got = jax.jit(transform(functools.partial(convolution, **options)))(x, kernel)
        wanted = jax.jit(transform(functools.partial(stock, **options)))(x, kernel)
        assert_near(got, wanted, tolerance=2e-5)


def two_layers(kernels, x, run=convolution):
    x = jax.nn.relu(run(x, kernels[0], strides=(1, 1), padding="SAME"))
    x = max_pool(x, 3, stride=2, padding=1)
    x = jax.nn.relu(run(x, kernels[1], strides=(2, 2), padding="SAME"))
    return (run(x, kernels[2], strides=(2, 2), padding="VALID") ** 2).mean()


def kernels_of(key):
    shapes = [(3, 3, 4, 4), (3, 3, 4, 6), (1, 1, 6, 5)]
    return [0.3 * jax.random.normal(k, shape) for k, shape in zip(jax.random.split(key, 3), shapes, strict=True)]


def descend(kernels, x, steps, run=convolution):
    def step(_, kernels):
        return jax.tree.map(lambda k, g: k - 0.1 * g, kernels, jax.grad(two_layers)(kernels, x, run))

    return jax.lax.fori_loop(0, steps, step, kernels)


def test_a_loop_computes_what_single_steps_do(key):
    kernels = wanted = kernels_of(key)
    x = jax.random.normal(key, (4, 11, 10, 4))
    together = jax.jit(descend)(kernels, x, 3)
    for _ in range(3):
        wanted = jax.tree.map(lambda k, g: k - 0.1 * g, wanted, jax.grad(two_layers)(wanted, x, stock))
    assert_near(together, wanted)


@pytest.mark.parametrize("batching", ["vmap", "map"])
def test_seeds_spread_over_devices(key, batching):
    mesh = Mesh(np.array(jax.devices()[:2]), ("seed",))
    seeds, everywhere = PartitionSpec("seed"), PartitionSpec()

    def on_one_device(kernels, x):
        def one(kernels):
            return descend(kernels, x, 2)

        return jax.vmap(one)(kernels) if batching == "vmap" else jax.lax.map(one, kernels)

    spread = jax.shard_map(on_one_device, mesh=mesh, in_specs=(seeds, everywhere), out_specs=seeds, check_vma=False)
    x = jax.random.normal(key, (4, 11, 10, 4))
    all_kernels = [kernels_of(k) for k in jax.random.split(key, 4)]
    got = jax.jit(spread)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *all_kernels), x)
    alone = [jax.jit(descend)(kernels, x, 2) for kernels in all_kernels]
    assert_near(got, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone))


def forms(compiled):
    """The dimension numbers and grouping of all convolutions of a compiled program."""
    lines = re.findall(r"= \S+ convolution\(.*", compiled.as_text())
    grouped = [line for line in lines if "group_count" in line]
    return [re.search(r"dim_labels=([^\s,]+)", line).group(1) for line in lines], grouped


def operations(f, arguments, platform):
    """What a program computes before XLA compiles it for a platform, which need not be here; without how axes lie."""
    text = jax.jit(f).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    return collections.Counter(re.findall(r"\bstablehlo\.(?!transpose|reshape|reverse)\w+", text))


LOOPS = {
    "gradient": lambda kernels, x, run: jax.grad(two_layers)(kernels, x, run),
    "curvature": lambda kernels, x, run: jax.jvp(lambda k: jax.grad(two_layers)(k, x, run), (kernels,), (kernels,))[1],
    "gradient's gradient": lambda kernels, x, run: jax.grad(
        lambda k: sum((g**2).sum() for g in jax.tree.leaves(jax.grad(two_layers)(k, x, run)))
    )(kernels),
    "seeds": lambda kernels, x, run: jax.tree.map(
        lambda leaf: leaf.mean(0),
        jax.vmap(jax.grad(lambda k: two_layers(k, x, run)))(jax.tree.map(lambda k: jnp.stack([k, 2 * k]), kernels)),
    ),
}


@pytest.mark.exact
@pytest.mark.parametrize("batch", [4, 16])
@pytest.mark.parametrize("size", [(11, 10), (4, 4)])
@pytest.mark.parametrize("name", LOOPS)
def test_all_convolutions_in_loops_are_canonical(rounds_of_eight, key, name, size, batch):
    """What XLA:CPU has no fast kernel for in a loop is any other order of dimensions, and groups.

    In the smaller images there is a kernel with more rows and columns than its image.
    """

    def compiled(run):
        def loop(kernels, x):
            return jax.lax.fori_loop(
                0, 3, lambda _, k: jax.tree.map(lambda a, b: a - 0.1 * b, k, LOOPS[name](k, x, run)), kernels
            )

        return jax.jit(loop).lower(kernels_of(key), jnp.ones((batch, *size, 4))).compile()

    numbers, grouped = forms(compiled(convolution))
    assert len(numbers) >= 5  # of three forward, two to the inputs, three to the kernels; 1 × 1 ones become products
    assert set(numbers) == {CANONICAL}
    assert not grouped
    numbers, grouped = forms(compiled(stock))
    assert set(numbers) != {CANONICAL} or grouped


@pytest.mark.parametrize(("size", "kernel_size", "strides", "padding"), CASES)
def test_few_channels_go_by_patches(size, kernel_size, strides, padding):
    x, kernel = arrays(size, kernel_size, channels=3)
    run = functools.partial(convolution, strides=strides, padding=padding)
    y, back = jax.vjp(run, x, kernel)
    assert_near(y, by_hand(x, kernel, strides, padding))
    g = jnp.float32(np.random.default_rng(1).normal(size=y.shape))
    assert_near(back(g), gradients_by_hand(g, x, kernel, strides, padding))
    assert "stablehlo.convolution" not in operations(run, (x, kernel), "cpu")


@pytest.mark.parametrize(
    ("batch", "size", "padding", "both_ways"),
    [
        (3, (32, 32), "SAME", True),
        (32, (8, 6), "SAME", True),
        (6, (18, 20), "VALID", True),
        (6, (20, 33), ((0, 2), (2, 1)), False),  # the image is not even
        (32, (8, 8), ((3, 1), (2, 2)), False),  # the gradient to the image would be padded by −1
    ],
)
def test_winograd(batch, size, padding, both_ways):
    """Where outputs are even and channels many, nothing is a convolution of XLA's any more."""
    x, kernel = arrays(size, (3, 3), channels=64, out=65, batch=batch)
    run = jax.jit(functools.partial(convolution, padding=padding))
    back = jax.jit(lambda x, kernel, g: jax.vjp(run, x, kernel)[1](g))
    y = run(x, kernel)
    assert_near(y, by_hand(x, kernel, (1, 1), padding))
    g = jnp.float32(np.random.default_rng(1).normal(size=y.shape))
    assert_near(back(x, kernel, g), gradients_by_hand(g, x, kernel, (1, 1), padding))
    assert not forms(run.lower(x, kernel).compile())[0]
    assert (not forms(back.lower(x, kernel, g).compile())[0]) == both_ways


def through_a_rule(run):
    """The gradient through a `custom_vjp`, in a loop, for several seeds."""
    ruled = jax.custom_vjp(run)
    ruled.defvjp(lambda x, k: jax.vjp(run, x, k), lambda back, g: back(g))

    def descend(x, kernel):
        return jax.lax.scan(lambda k, _: (k - grad(ruled)(x, k)[1], None), kernel, length=2)[0]

    return lambda x, k: jax.vmap(descend)(two(x), two(k))


CHOSEN = ("grad", "forward over reverse", "vmap over both", "vmap of grad, both")
CHOSEN = {name: TRANSFORMATIONS[name] for name in CHOSEN} | {
    "forward": lambda run: run,
    "custom_vjp, scan and vmap": through_a_rule,
}


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("name", CHOSEN)
def test_the_form_is_chosen_for_the_platform_that_a_program_is_lowered_for(name, channels):
    """Elsewhere than on the CPU exactly the stock convolution's program, with no trace of another form."""
    x, kernel = arrays((7, 8), (3, 3), channels=channels)
    run = functools.partial(convolution, strides=(2, 1))
    plain = functools.partial(stock, strides=(2, 1), padding="SAME")
    for platform in ("cuda", "rocm", "tpu"):
        ours, theirs = (operations(CHOSEN[name](each), (x, kernel), platform) for each in (run, plain))
        assert ours == theirs
    on_cpu = operations(CHOSEN[name](run), (x, kernel), "cpu")
    assert "stablehlo.case" not in on_cpu
    assert ("stablehlo.convolution" in on_cpu) == (channels > 2)
    if name != "forward" or channels == 2:
        assert on_cpu != theirs


def test_one_program_for_several_platforms():
    x, kernel = arrays((7, 8), (3, 3))
    exported = jax.export.export(jax.jit(grad(convolution)), platforms=("cpu", "cuda"))(x, kernel)
    assert_near(exported.call(x, kernel), grad(functools.partial(stock, strides=(1, 1), padding="SAME"))(x, kernel))


def test_runs_without_compilation():
    x, kernel = arrays((5, 5), (3, 3))
    with jax.disable_jit():
        assert_near(convolution(x, kernel), by_hand(x, kernel, (1, 1), "SAME"))


def test_nothing_recompiles(compilations):
    x, kernel = arrays((5, 5), (3, 3), channels=1, out=2)
    other = x + 1
    convolution(x, kernel)
    before = len(compilations)
    convolution(other, kernel)
    assert len(compilations) == before


def test_keeps_narrow_types():
    x, kernel = arrays((5, 5), (3, 3))
    narrow = convolution(jnp.bfloat16(x), jnp.bfloat16(kernel))
    assert narrow.dtype == jnp.bfloat16
    assert_near(np.float32(narrow), by_hand(x, kernel, (1, 1), "SAME"), tolerance=0.02)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_kernel_gradients_of_narrow_types_are_summed_in_float32(dtype):
    """Rounded once: 4,096 examples go in rounds of 512, whose sum bfloat16 soon doesn't notice any more."""
    rng = np.random.default_rng(1)
    x, g = (np.float32(jnp.asarray(rng.uniform(0, 2, (4096, 2, 2, 4)) / 16, dtype)) for _ in range(2))

    def gradient(x, g):
        kernel = jnp.zeros((1, 1, 4, 4), x.dtype)
        return jax.vjp(lambda kernel: convolution(x, kernel), kernel)[1](g)[0]

    found = jax.jit(gradient)(jnp.asarray(x, dtype), jnp.asarray(g, dtype))
    assert found.dtype == dtype
    wanted = np.einsum("nijc,nijo->co", np.float64(x), np.float64(g))
    np.testing.assert_allclose(np.float64(found[0, 0]), wanted, rtol=float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(2, None, 0), (3, None, 0), (3, 2, 1), (2, 1, 0), (1, None, 0), (1, 2, 0)]
)
@pytest.mark.parametrize("shape", [(2, 7, 8, 3), (1, 9, 4, 1), (2, 3, 3, 2)])
def test_max_pool_is_the_windowed_maximum(key, shape, size, stride, padding):
    x = jax.random.normal(key, shape)
    step = size if stride is None else stride

    def windowed(x):
        pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, step, step, 1), pads)

    def pool(x):
        return max_pool(x, size, stride=stride, padding=padding)

    def forward_and_back(pool):
        y, back = jax.vjp(pool, x)
        return y, jax.jvp(pool, (x,), (jnp.cos(x),))[1], *back(jnp.sin(y))

    got, wanted = jax.jit(lambda: (forward_and_back(pool), forward_and_back(windowed)))()
    np.testing.assert_array_equal(got[0], wanted[0])
    assert_near(got, wanted)


def test_max_pool_shares_the_gradient_of_what_is_equally_large():
    gradient = jax.grad(lambda x: max_pool(x).sum())(jnp.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient, np.full((1, 2, 2, 1), 0.25))


def test_max_pool_of_many_seeds(key):
    x = jax.random.normal(key, (3, 2, 6, 6, 2))
    gradient = jax.grad(lambda x: (max_pool(x, 3, stride=2, padding=1) ** 2).sum())
    together, alone = jax.jit(lambda x: (jax.vmap(gradient)(x), jax.lax.map(gradient, x)))(x)
    np.testing.assert_array_equal(together, alone)


def test_max_pool_passes_on_what_is_not_finite():
    x = jnp.array([[1.0, jnp.nan], [2.0, jnp.inf]]).reshape(1, 2, 2, 1)
    assert np.isnan(max_pool(x)[0, 0, 0, 0])
    assert max_pool(x[:, 1:, :], 1)[0, 0, 1, 0] == jnp.inf
