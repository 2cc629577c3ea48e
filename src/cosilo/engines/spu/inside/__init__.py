"""What runs in the environment of SPU, and imports nothing of Cosilo."""
