"""What a small model's owner can afford under a limit on what leaks: `cosilo fit --for STRATEGY`."""
