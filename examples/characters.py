"""A text to predict: the language reference that Python ships for its own help, cut into pieces of equal length."""

from pydoc_data.topics import topics

import numpy as np

LENGTH = 64


def load():
    """Pieces of the text, and the same pieces one character later."""
    text = "\n".join(topics[name] for name in sorted(topics))
    known = sorted({character for character in text if character.isascii()})
    numbers = np.array([known.index(character) for character in text if character.isascii()])
    pieces = (len(numbers) - 1) // LENGTH
    inputs, targets = (numbers[start : start + pieces * LENGTH].reshape(pieces, LENGTH) for start in (0, 1))
    return {"inputs": inputs, "targets": targets}
