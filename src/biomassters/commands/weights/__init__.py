"""What others published as weights, read without running any of it."""
