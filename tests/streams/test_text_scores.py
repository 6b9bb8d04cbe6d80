import collections

import numpy as np
import pytest

from pliant.errors import UserError
from pliant.streams import text_scores

ALPHABET = "\0\1 abcdefghijklmnopqrstuvwxyz"


def _tokens(*texts):
    rows = [[ALPHABET.index(letter) for letter in text] + [1] for text in texts]
    return np.array([row + [0] * (20 - len(row)) for row in rows], np.int8)


def _bleu(written, wanted):
    """BLEU-2 of a corpus in plain Python, by its definition."""
    matches, totals = [0, 0], [0, 0]
    for ours, theirs in zip(written, wanted, strict=True):
        for i in (0, 1):
            words = [text.split() for text in (ours, theirs)]
            found, there = (collections.Counter(zip(*[each[j:] for j in range(i + 1)], strict=False)) for each in words)
            matches[i] += (found & there).total()
            totals[i] += found.total()
    ours, theirs = (sum(len(text.split()) for text in texts) for texts in (written, wanted))
    brevity = min(1.0, np.exp(1 - theirs / ours))
    return brevity * np.sqrt(np.prod(np.divide(matches, totals)))


def test_identical_texts_are_perfect():
    tokens = _tokens("ab cd ef", "gh ij", "z z z z")
    assert text_scores(tokens, tokens) == {"bleu": 1.0, "exact_match": 1.0}


def test_by_hand():
    """Words 3 of 4 right, pairs 1 of 3, and no penalty, since both texts have four words: √(3/4 · 1/3) = ½."""
    assert text_scores(_tokens("a b c d"), _tokens("a b x c")) == {"bleu": 0.5, "exact_match": 0.0}


def test_short_texts_are_penalised():
    """All that is written is right, but 2 words for 4: exp(1 − 4/2)."""
    scores = text_scores(_tokens("a b"), _tokens("a b c d"))
    assert scores["bleu"] == pytest.approx(np.exp(-1))


def test_a_word_counts_no_more_often_than_it_is_wanted():
    """Of "a a a a" one word and no pair is in "a b a c" but twice: words 2/4, pairs 0."""
    assert text_scores(_tokens("a a a a"), _tokens("a b a c"))["bleu"] == 0.0


def test_a_corpus_is_not_the_mean_of_its_texts():
    written, wanted = ("a b c", "x y z w v"), ("a b c", "x y q w v")
    scores = text_scores(_tokens(*written), _tokens(*wanted))
    assert scores["bleu"] == pytest.approx(np.sqrt(7 / 8 * 4 / 6))  # words 3 + 4 of 3 + 5, pairs 2 + 2 of 2 + 4
    assert scores["exact_match"] == 0.5


def test_random_texts_against_the_definition():
    draw = np.random.default_rng(0)
    written, wanted = ([" ".join(draw.choice(list("abcd"), draw.integers(2, 9))) for _ in range(30)] for _ in range(2))
    assert text_scores(_tokens(*written), _tokens(*wanted))["bleu"] == pytest.approx(_bleu(written, wanted), abs=1e-9)


def test_only_what_is_before_the_end_token_counts():
    tokens = _tokens("a b", "c d")
    rubbish = np.where(tokens == 0, 5, tokens)
    assert text_scores(rubbish, tokens) == {"bleu": 1.0, "exact_match": 1.0}


def test_nothing_written_is_worth_nothing():
    nothing = np.zeros((2, 20), np.int8)
    nothing[0, 0] = 1
    assert text_scores(nothing, _tokens("a b", "c d")) == {"bleu": 0.0, "exact_match": 0.0}


def test_a_wrong_space_is_no_exact_match():
    scores = text_scores(_tokens("ab  cd"), _tokens("ab cd"))
    assert scores == {"bleu": 1.0, "exact_match": 0.0}


def test_no_texts():
    with pytest.raises(UserError, match="got no texts; wanted at least one"):
        text_scores(np.zeros((0, 3), np.int8), np.zeros((0, 3), np.int8))
