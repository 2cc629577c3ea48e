"""Computing on what neither party may see, each engine in processes of its own."""
