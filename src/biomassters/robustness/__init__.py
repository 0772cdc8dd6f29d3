"""How a model does with less than it was trained on: fewer months, fewer bands."""
