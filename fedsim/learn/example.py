"""What is one example? A prompt, the text that should follow it, and, for a choice, the options."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """One of the answers that a model may prefer.

    Args:
        context: What stands before it.
        continuation: The answer, with the blank that parts it from the context.
        length: Characters of the answer as the data set has it, for normalisation by length.
    """

    context: str
    continuation: str
    length: int


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt with the text that should follow.

    A prompt that ends in a blank is tokenised apart from its target; every other one together with it, and
    the target then begins with its own blank.

    Args:
        prompt: All that the model sees before it has to speak.
        target: What it should say.
        options: The answers to choose from; none where the task asks for free text.
        answer: Index of the right option; None without options.
        references: Other texts that are as good as the target when generated text is scored.
        group: What kind of example it is, for non-IID shards: a label, a place, a speaker.
        learn_prompt: Whether training counts the loss of the prompt too; evaluation never does.
    """

    prompt: str
    target: str
    options: tuple[Option, ...] = ()
    answer: int | None = None
    references: tuple[str, ...] = ()
    group: str = ""
    learn_prompt: bool = False

    @property
    def accepted(self) -> tuple[str, ...]:
        """Every text that counts as right."""
        return self.references or (self.target,)
