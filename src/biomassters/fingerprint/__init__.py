"""What a stage is made from: the meaning of its code, its params, its data."""
