"""A sentence encoder, and the heads that are trained on it."""
