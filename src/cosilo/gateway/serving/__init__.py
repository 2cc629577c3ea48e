"""One request on its way: the point that answers it, what it may spend, the server behind it."""
