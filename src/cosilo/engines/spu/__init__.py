"""SPU: secret sharing and two-party cryptography, in an environment of its own."""
