"""Importing Cosilo loads no torch: it would cost every gateway worker seconds and its memory."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import sys
import cosilo.benchmark.runner, cosilo.cli, cosilo.gateway.process.server, cosilo.session
from cosilo.cli import make_parser
from cosilo.models.base import models

make_parser()
assert {"torch", "llamacpp"} <= set(models.names())
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "transformers", "peft"}))
"""


def test_the_command_line_and_the_gateway_load_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.strip() == "[]", done.stderr
