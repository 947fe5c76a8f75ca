"""How good is generated text? ROUGE, BLEU and exact match against references; pure functions of strings.

Nothing is downloaded: the scorers are code, and METEOR, which needs a dictionary, is left out.
"""

import re
import string
from collections.abc import Callable, Mapping, Sequence

from fedsim.errors import ScenarioError

Scorer = Callable[[Sequence[str], Sequence[Sequence[str]]], float]

# The number after the last "####", as the data set writes answers; else the last number of the text.
_MARKED = re.compile(r"####\s*(-?\$?[.,]?[0-9][0-9.,]*)")
_NUMBER = re.compile(r"-?\$?[0-9][0-9,]*(?:\.[0-9]+)?|-?\$?\.[0-9]+")


def rouge(predictions: Sequence[str], references: Sequence[Sequence[str]], kind: str) -> float:
    """Mean over predictions of the best F-measure over their references.

    Args:
        predictions: Generated texts.
        references: Per prediction, the texts that are right.
        kind: ``rouge1``, ``rouge2`` or ``rougeL``.

    Source:
        Lin, "ROUGE: a package for automatic evaluation of summaries", 2004; no stemming.
    """
    from rouge_score import rouge_scorer  # noqa: PLC0415 - imports nltk, which only generation needs

    scorer = rouge_scorer.RougeScorer([kind])
    scores = [
        max(scorer.score(text, prediction)[kind].fmeasure for text in accepted)
        for prediction, accepted in zip(predictions, references, strict=True)
    ]
    return float(sum(scores) / len(scores))


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU from 0 to 100, with sacrebleu's own tokenisation and smoothing.

    Source:
        Post, "A call for clarity in reporting BLEU scores", WMT 2018.
    """
    from sacrebleu import BLEU  # noqa: PLC0415 - only generation needs it

    most = max(len(accepted) for accepted in references)
    streams = [
        [accepted[index] if index < len(accepted) else None for accepted in references]
        for index in range(most)
    ]
    return float(BLEU().corpus_score(list(predictions), streams).score)


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Share of predictions that equal a reference, but for case, punctuation and blanks."""
    return _share(predictions, references, _plain)


def gsm8k_exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Share of predictions whose answer is the reference's answer, as a number."""
    return _share(predictions, references, gsm8k_answer)


def gsm8k_answer(text: str) -> str | None:
    """Return the answer that a solution ends in, as a plain number.

    It is what follows the first ``####``; where a text has no such mark, its last number. Dollar signs,
    thousands separators and a full stop at the end do not count.

    Source:
        Cobbe et al., "Training verifiers to solve math word problems", 2021, for the mark; the two rules are
        those of lm-evaluation-harness, strict match first and flexible extraction where it finds nothing.
    """
    marked = _MARKED.search(text)
    found = marked[1] if marked else next(iter(_NUMBER.findall(text)[::-1]), None)
    if found is None:
        return None
    plain = found.replace(",", "").replace("$", "").rstrip(".")
    try:
        number = float(plain)
    except ValueError:
        return plain
    return f"{number:.10g}" if "." in plain else str(int(plain))


def worst_decile(losses: Sequence[float]) -> float:
    """Mean of the highest tenth of the losses, at least one of them."""
    count = max(1, len(losses) // 10)
    return sum(sorted(losses, reverse=True)[:count]) / count


SCORERS: Mapping[str, Scorer] = {
    "rouge_1": lambda predictions, references: rouge(predictions, references, "rouge1"),
    "rouge_2": lambda predictions, references: rouge(predictions, references, "rouge2"),
    "rouge_l": lambda predictions, references: rouge(predictions, references, "rougeL"),
    "bleu": bleu,
    "exact_match": exact_match,
    "gsm8k_exact_match": gsm8k_exact_match,
}
OPTION_METRICS = ("option_accuracy", "option_accuracy_norm")
METRIC_NAMES = (*SCORERS, *OPTION_METRICS)


def score(
    names: Sequence[str], predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Score generated texts.

    Args:
        names: Keys of `SCORERS`.
        predictions: Generated texts, at least one.
        references: Per prediction, at least one text that is right.

    Raises:
        ScenarioError: If a name is unknown.
    """
    unknown = [name for name in names if name not in SCORERS]
    if unknown:
        raise ScenarioError(f"expected metrics of {', '.join(SCORERS)}, got {', '.join(unknown)}")
    return {name: SCORERS[name](predictions, references) for name in names}


def _share(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    normal: Callable[[str], str | None],
) -> float:
    right = [
        normal(prediction) is not None and normal(prediction) in {normal(text) for text in accepted}
        for prediction, accepted in zip(predictions, references, strict=True)
    ]
    return sum(right) / len(right)


def _plain(text: str) -> str:
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())
