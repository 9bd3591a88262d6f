"""Where a conversation begins when not all of it fits. Pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from itertools import accumulate

STEP = 5 / 16
"""The share of the limit by which a stable window moves."""


class Window(StrEnum):
    """Where the most recent turns begin when not all of them fit.

    Attributes:
        SLIDING: At the oldest turn that fits, so the beginning moves with nearly every turn.
        STABLE: At one of the oldest turns that fit, so that up to five sixteenths of the limit remain unused, but the
            beginning stays where it is for several turns. Providers charge less for a prompt that begins like the one
            before.
    """

    SLIDING = "sliding"
    STABLE = "stable"


def count_from_step(ids: Sequence[str], sizes: Sequence[int], budget: int) -> int:
    """Count the turns of a stable window.

    The beginning must be the same in all processes and in successive prompts, though nothing is stored and turns have
    no numbers. So positions are counted from a landmark, the turn with the smallest hash, which remains the same until
    it no longer fits or one with a smaller hash comes. The window begins at the oldest turn that contains a whole
    number of steps before the landmark.

    Args:
        ids: The ids of the turns that fit, most recent first.
        sizes: Their sizes, 1 or more.
        budget: The size of all that could fit.
    """
    step = max(1, int(budget * STEP))
    ends = list(accumulate(sizes))
    if not ids or ends[-1] < budget - step:
        # The turn before is larger than a step, so the beginning stays where it is anyway.
        return len(ids)
    landmark = min(range(len(ids)), key=lambda number: _hash(ids[number]))
    begins = [end - ends[landmark] for end in ends]
    older = range(landmark, len(ids))
    return 1 + max(number for number in older if begins[number] // step > (begins[number] - sizes[number]) // step)


def similar(number: int) -> int:
    """Round a size down to two binary digits, so that budgets that differ by little have the same steps."""
    shift = max(0, number.bit_length() - 2)
    return max(1, number >> shift << shift)


def _hash(text: str) -> bytes:
    """Hash a text; the result is the same in all processes."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
