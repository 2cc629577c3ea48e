"""What the gateway says in HTTP: requests as clients write them, answers as they expect them."""
