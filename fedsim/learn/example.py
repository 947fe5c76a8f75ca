"""What is one training example? A prompt source and the text that should follow it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One pair of the data-to-text task.

    Args:
        mr: Meaning representation, for instance ``name[The Quiet Fox], food[Thai]``.
        ref: Reference sentence that says it.
    """

    mr: str
    ref: str
