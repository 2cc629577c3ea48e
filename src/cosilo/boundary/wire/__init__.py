"""How arrays are packed into messages: logits and hidden states."""
