"""What parties compute together: JAX functions of the arrays of both owners, which neither sees whole.

Each module has `build(shape)`, which gives a function of (the LM owner's arrays, the data owner's
arrays) that can be compiled, `arrays(shape)`, which says what each of them hands in, and `SEES`:
who is told the result. They run in the engine's own environment and import nothing of Cosilo.
"""
