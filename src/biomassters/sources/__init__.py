"""Where the bytes of chips come from: a folder, archives, S3, a hub, the simulator."""
