"""The winner's network, with all scaling of inputs and output."""
