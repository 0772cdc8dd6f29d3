"""The key `cleaning`: what is done to a chip's values when it is read."""

from typing import Literal, TypeAlias

CleaningName: TypeAlias = Literal["none", "winner", "second", "third"]
"""The rules are those of the competition's three winners; biomassters/cleaning.py has them."""
