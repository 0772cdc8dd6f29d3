"""What one should know of the data before training on them."""
