"""What the train chips' values are, and what normalises the inputs."""
