"""A part of the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from biomassters.report.pictures import Picture
from biomassters.report.tables import Table


@dataclass(kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: Its place in the page.
        title: Its heading.
        texts: Paragraphs, first of all.
        tables: Tables.
        pictures: Pictures.
        in_pairs: Whether pictures may stand side by side.
        points: A list.
        code: What to type.
        folded: A long table, to be opened.
    """

    anchor: str
    title: str
    texts: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    in_pairs: bool = False
    points: Sequence[str] = ()
    code: str = ""
    folded: Table | None = None

    @property
    def has_content(self) -> bool:
        """Whether there is anything but words to show, or words alone are what it is for."""
        shown = (self.tables, self.pictures, self.points, self.code, self.folded)
        return any(bool(part) for part in shown)
