"""torch inside this process: logits, states, gradients, training. Nothing else names torch."""
