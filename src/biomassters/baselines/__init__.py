"""What a network should beat: gradient-boosted trees, pixel by pixel."""
