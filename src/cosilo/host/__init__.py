"""An LM owner in a process of its own, asked over HTTPS by the data owners it knows."""
