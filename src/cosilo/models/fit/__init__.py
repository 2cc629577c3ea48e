"""A smaller model out of a larger one, sized to this machine: `cosilo fit`."""
