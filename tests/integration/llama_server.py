"""A process that serves a real model over llama.cpp's own HTTP server: argv holds GGUF and port."""

from __future__ import annotations

import os
import signal
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import xllamacpp


def main(path: str, port: int) -> None:
    options = xllamacpp.CommonParams()
    options.model.path = path
    options.n_ctx = 1024
    options.n_parallel = 2
    options.n_gpu_layers = 0
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
    options.cpuparams.poll = options.cpuparams_batch.poll = 0
    options.warmup = False
    options.verbosity = -1
    options.ui = False
    options.port = port
    server = xllamacpp.Server(options)
    print(server.listening_address, flush=True)
    signal.pause()


main(sys.argv[1], int(sys.argv[2]))
