"""How a stage's processes start, lock, speak and end; none of it changes a result."""
