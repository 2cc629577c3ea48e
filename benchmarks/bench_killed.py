"""`cosilo bench` killed at random moments: the same result, and nothing paid for twice?

    python benchmarks/bench_killed.py [--kills 20] [--seed 1]

Four points over an endpoint that counts its calls. Each process is killed (SIGKILL) while it starts,
or after one to eight calls, and the same command is given again; at last it may finish. Fails where
an answer that was kept is asked for again, or anything differs from a run that was not killed. The
test suite does it six times (tests/integration/test_bench.py).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from kept import ROOT

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))
from tests.integration.endpoint import serving
from tests.integration.test_bench import killed_and_resumed, write_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    calls = [rng.choice([0, 1, 1, 2, 3, 4, 5, 8]) for _ in range(asked.kills)]
    with tempfile.TemporaryDirectory() as folder, serving() as endpoint:
        write_data(Path(folder))
        kept = killed_and_resumed(Path(folder), endpoint, calls, rng)
    print(f"{asked.kills} kills, {kept} answers kept before the last start: nothing differs")


if __name__ == "__main__":
    main()
