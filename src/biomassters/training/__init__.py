"""The epoch loop and all that it needs."""
