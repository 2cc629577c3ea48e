"""How encoded messages get to the other party and back."""
