"""How arrays are packed into messages: logits, hidden states, weights."""
