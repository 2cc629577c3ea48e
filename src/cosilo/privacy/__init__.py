"""Differential privacy: mechanisms, their accountant, secret keys that noise is made with."""
