import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.streams import beam_search, greedy, shifted
from pliant.types import Text

END = 1
SEEDS = range(4)


def _model(key, length, vocabulary, end=0.0):
    """A random autoregressive network: the logits at t depend on the source and on the decoder's tokens up to t.

    The end token is the likelier, the larger `end`; padding is a token that may be written, as for any network.
    """
    a, b = jax.random.split(key)
    tables = jax.random.normal(a, (length, vocabulary, vocabulary))  # by distance: token read -> logits
    of_source = jax.random.normal(b, (vocabulary, length, vocabulary))

    @jax.jit
    def logits(text):
        distance = jnp.arange(length)[:, None] - jnp.arange(length)[None]
        read = tables[distance[None], text.decoder[:, None, :]]  # (batch, now, then, vocabulary)
        causal = jnp.where((distance >= 0)[None, ..., None], read, 0.0).sum(axis=2)
        return causal + of_source[text.source].sum(axis=1) + end * jax.nn.one_hot(END, vocabulary)[None, None]

    return logits


def _source(key, batch, vocabulary, dtype=jnp.int32):
    return jax.random.randint(key, (batch, 3), 0, vocabulary, dtype)


def _next(logits, source, written, length):
    """Log-probabilities of the next token of one text, in float64."""
    decoder = ([0, *written] + [0] * length)[:length]
    text = Text(np.asarray(source)[None], np.array([decoder], np.int32))
    row = np.asarray(logits(text), np.float64)[0, len(written)]
    return row - np.log(np.exp(row).sum())


def _padded(written, length):
    return written + [0] * (length - len(written))


def _written_one_by_one(logits, source, length):
    written = []
    while len(written) < length and END not in written:
        written.append(int(_next(logits, source, written, length).argmax()))
    return _padded(written, length)


def _beam_one_by_one(logits, source, length, num_beams):
    """A beam in plain Python: all continuations of all kept texts, the best of which are kept."""
    beams = [(0.0, [])]
    for _ in range(length):
        grown = []
        for score, written in beams:
            if END in written:
                grown.append((score, written))
                continue
            chances = _next(logits, source, written, length)
            grown += [(score + chance, [*written, token]) for token, chance in enumerate(chances)]
        beams = sorted(grown, key=lambda beam: -beam[0])[:num_beams]
    return _padded(beams[0][1], length)


def _best_of_all(logits, source, length, vocabulary):
    """The likeliest text of all that there are."""
    others = [token for token in range(vocabulary) if token != END]
    texts = [list(text) for text in itertools.product(others, repeat=length)]
    for so_far in range(length):
        texts += [[*text, END] for text in itertools.product(others, repeat=so_far)]

    def score(text):
        return sum(_next(logits, source, text[:t], length)[token] for t, token in enumerate(text))

    return _padded(max(texts, key=score), length), len(texts)


def test_shifted():
    assert shifted(jnp.array([[5, 6, 1], [3, 1, 0]])).tolist() == [[0, 5, 6], [0, 3, 1]]
    assert shifted(jnp.array([[5]])).tolist() == [[0]]


@pytest.mark.parametrize("seed", SEEDS)
def test_greedy_is_writing_one_by_one(seed):
    logits = _model(jax.random.key(seed), length=7, vocabulary=6, end=-0.5)
    source = _source(jax.random.key(seed + 100), 20, 6)
    found = jax.jit(lambda source: greedy(logits, source, 7))(source).tolist()
    assert found == [_written_one_by_one(logits, text, 7) for text in np.asarray(source)]
    ends = {text.index(END) if END in text else 7 for text in found}
    assert 7 in ends
    assert len(ends) > 2


@pytest.mark.parametrize(("length", "vocabulary"), [(1, 3), (2, 3), (9, 4)])
def test_greedy_without_end_tokens_takes_as_long_as_it_must(length, vocabulary):
    """The last token depends on the first, so all passes are needed."""
    logits = _model(jax.random.key(5), length, vocabulary, end=-100.0)
    source = _source(jax.random.key(6), 10, vocabulary)
    found = greedy(logits, source, length).tolist()
    assert found == [_written_one_by_one(logits, text, length) for text in np.asarray(source)]
    assert END not in np.array(found)


def test_padding_in_the_midst_is_no_end():
    """A bad network may write it; what follows is written too, by a beam as well."""
    table = jnp.array([[[9.0, 0, 0, 0], [0, 0, 0, 9.0], [0, 9.0, 0, 0]]])
    source = jnp.zeros((1, 1), jnp.int32)
    assert greedy(lambda _: table, source, 3).tolist() == [[0, 3, 1]]
    assert beam_search(lambda _: jnp.tile(table, (2, 1, 1)), source, 3, 2).tolist() == [[0, 3, 1]]


def _counting(text):
    """Writes the token after the last: 2, 3, 4, … Every position waits for the one before it."""
    return jax.nn.one_hot(jnp.maximum(text.decoder + 1, 2), 10)


@pytest.mark.parametrize(
    ("logits", "num_passes"),
    [(lambda text: jax.nn.one_hot(text.source, 10), 2), (_counting, 7)],
    ids=["knows the answer", "needs what is written"],
)
def test_passes_of_greedy(logits, num_passes):
    """The last one is to see that nothing changes."""
    passes = []

    def counted(text):
        passes.append(1)
        return logits(text)

    source = jnp.arange(2, 8)[None]
    with jax.disable_jit():
        assert greedy(counted, source, 6).tolist() == [[2, 3, 4, 5, 6, 7]]
    assert len(passes) == num_passes


@pytest.mark.parametrize("seed", SEEDS)
def test_a_beam_of_one_is_greedy(seed):
    logits = _model(jax.random.key(seed), length=6, vocabulary=5, end=1.0)
    source = _source(jax.random.key(seed + 100), 20, 5)
    np.testing.assert_array_equal(beam_search(logits, source, 6, 1), greedy(logits, source, 6))


def test_a_beam_as_wide_as_all_texts_finds_the_best():
    """By enumeration; it is often not what greedy writes, and may end early."""
    missed, ended = 0, 0
    for seed in SEEDS:
        logits = _model(jax.random.key(seed), length=4, vocabulary=3, end=1.0)
        source = _source(jax.random.key(seed + 100), 12, 3)
        best, counts = zip(*[_best_of_all(logits, text, 4, 3) for text in np.asarray(source)], strict=True)
        assert counts[0] == 2**4 + 1 + 2 + 4 + 8
        found = beam_search(logits, source, 4, counts[0])
        assert found.tolist() == list(best)
        missed += int((found != greedy(logits, source, 4)).any(axis=1).sum())
        ended += int((found == END)[:, :-1].any(axis=1).sum())
    assert missed > 5
    assert ended > 5


@pytest.mark.parametrize("num_beams", [2, 3, 7])
def test_a_narrow_beam_is_one_in_plain_python(num_beams):
    logits = _model(jax.random.key(8), length=5, vocabulary=5, end=1.0)
    source = _source(jax.random.key(9), 8, 5)
    found = jax.jit(lambda source: beam_search(logits, source, 5, num_beams))(source).tolist()
    assert found == [_beam_one_by_one(logits, text, 5, num_beams) for text in np.asarray(source)]
    assert any(END in text[:-1] for text in found)


@pytest.mark.parametrize("write", [greedy, functools.partial(beam_search, num_beams=3)])
def test_seeds_map_and_types_stay(write):
    """vmap over networks, as seeds are, for tokens of any integer type."""
    keys = jax.random.split(jax.random.key(3), 3)
    source = _source(jax.random.key(4), 5, 5, jnp.int8)

    def of_seed(key):
        return write(_model(key, length=4, vocabulary=5), source, 4)

    found = jax.vmap(of_seed)(keys)
    assert (found.shape, found.dtype) == ((3, 5, 4), jnp.int8)
    np.testing.assert_array_equal(found, [of_seed(key) for key in keys])
