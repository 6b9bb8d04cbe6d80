"""Scores of written texts: BLEU-2 and exact matches."""

from types import ModuleType

import numpy as np
from jaxtyping import Int

from pliant.errors import UserError, extra
from pliant.streams._letters import spell


def text_scores(written: Int[np.ndarray, "texts tokens"], wanted: Int[np.ndarray, "texts tokens"]) -> dict[str, float]:
    r"""BLEU-2 and the fraction of exact matches of texts.

    `bleu` is the corpus' BLEU-2, :math:`\mathrm{BP}\sqrt{p_1 p_2}` over words and pairs of words, in [0, 1], computed
    by sacrebleu without smoothing or tokenisation. `exact_match` is the fraction of texts without a wrong letter.

    Args:
      written: tokens, see `pliant.streams.spell`.
      wanted: the reference for each text.

    Returns:
      The two numbers by name.

    Raises:
      UserError: for no texts.

    Example:
      >>> tokens = np.array([[3, 2, 4, 2, 5, 1]])  # "a b c"
      >>> text_scores(tokens, tokens)
      {'bleu': 1.0, 'exact_match': 1.0}

    References:
      Papineni et al., `BLEU <https://aclanthology.org/P02-1040>`_, 2002. Post, sacrebleu, 2018.

    Differs from:
      Averages of sentence scores, and smoothed scores.
    """
    sacrebleu = scorer()
    if len(written) == 0:
        raise UserError(got="no texts", wanted="at least one", do="Pass what the network wrote for the examples.")
    texts, references = ([spell(row) for row in tokens] for tokens in (written, wanted))
    metric = sacrebleu.BLEU(max_ngram_order=2, tokenize="none", smooth_method="none", force=True)
    bleu = metric.corpus_score(texts, [references]).score / 100
    exact = np.mean([text == reference for text, reference in zip(texts, references, strict=True)])
    return {"bleu": round(bleu, 12), "exact_match": float(exact)}


def scorer() -> ModuleType:
    """The package that scores; streams of texts ask for it before a task is trained."""
    with extra("text", "scores of texts"):
        import sacrebleu
    return sacrebleu
