"""The short name of facts: 16 hex digits that are the same on every machine."""

import hashlib
import json
from typing import Any, Final

DIGITS: Final = 16
"""Hex digits of a digest."""


def digest_facts(facts: Any) -> str:
    """Return 16 hex digits over facts: equal ones have equal digits.

    Args:
        facts: What JSON can say, in whatever order of keys; of anything else its text counts.
    """
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
