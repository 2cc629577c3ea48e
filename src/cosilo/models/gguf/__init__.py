"""llama.cpp inside this process: GGUF files, grammars, log-probabilities."""
