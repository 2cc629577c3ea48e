"""Writing with a mixture of what models at home and the large one say comes next."""
