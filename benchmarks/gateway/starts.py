"""How long the gateway takes from its command to the first request it would serve, and its memory then.

    python benchmarks/gateway/starts.py --times 20
    python benchmarks/gateway/starts.py --times 10 --private

Each start is a new process on one core, over a store of its own; ready is the first 200 of /readyz. Its
memory is that of all its processes, shared pages counted once (PSS). With `--private` a point has the
pseudonym defence, so that a second process looks for private values. The exit code is 0 when the
medians are at most 2 s and 120 MB, with the defence 3 s and 380 MB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path

from side_by_side import servers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kept import Kept

PRIVATE = """
[[points]]
name = "private"
strategy = "large"
large = "lm"
defences = ["pseudonym"]
"""
# Whether a point is defended → the most seconds and MB.
MOST = {False: (2.0, 120.0), True: (3.0, 380.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Start the gateway again and again.")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--core", type=int, default=1, help="where the gateway runs (0 or 1)")
    parser.add_argument("--private", action="store_true", help="with the pseudonym defence")
    a = parser.parse_args()
    os.sched_setaffinity(0, {1 - a.core})
    seconds, cpu, memory = [], [], []
    for _ in range(a.times):
        with servers(["cosilo"], "", a.core, also=PRIVATE if a.private else "") as found:
            server = found["cosilo"]
            seconds.append(server.ready_s)
            cpu.append(server.ready_cpu_s)
            memory.append(sum(map(pss_mb, below(server.pid))))
    row = "with the pseudonym defence" if a.private else "without a defence"
    kept = Kept("gateway_starts", fresh=False)
    for name, values in (("start s", seconds), ("CPU s", cpu), ("PSS MB", memory)):
        kept.put(row, name, statistics.median(values), n=a.times)
        kept.put(row, f"{name}, most", max(values), n=a.times)
        print(f"{name:8} {statistics.median(values):8.2f} (median) {max(values):8.2f} (most)")
    kept.write()
    most_seconds, most_mb = MOST[a.private]
    late = statistics.median(seconds) > most_seconds or statistics.median(memory) > most_mb
    raise SystemExit(1 if late else 0)


def below(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for one in found:
        found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found


def pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
