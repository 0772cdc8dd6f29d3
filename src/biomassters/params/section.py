"""What every section of params.yaml has in common: typed, frozen, unknown keys refused."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping of params.yaml. Unknown keys and values out of range are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
