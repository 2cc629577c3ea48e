"""Answers that were given before: replayed from a store, recorded in the data, scripted."""
