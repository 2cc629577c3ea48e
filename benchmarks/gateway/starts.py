"""How long the gateway takes from its command to the first request it would serve, and its memory then.

    python benchmarks/gateway/starts.py --times 20

Each start is a new process on one core, over a store of its own; ready is the first 200 of /readyz. The
exit code is 0 when no start took more than 2 s and no process more than 120 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics

from side_by_side import servers

MOST_SECONDS, MOST_MB = 2.0, 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Start the gateway again and again.")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--core", type=int, default=1, help="where the gateway runs (0 or 1)")
    a = parser.parse_args()
    os.sched_setaffinity(0, {1 - a.core})
    seconds, cpu, memory = [], [], []
    for _ in range(a.times):
        with servers(["cosilo"], "", a.core) as found:
            server = found["cosilo"]
            seconds.append(server.ready_s)
            cpu.append(server.ready_cpu_s)
            memory.append(server.rss_mb)
    print(json.dumps({
        "starts": a.times,
        "ready_s_median": round(statistics.median(seconds), 3), "ready_s_most": round(max(seconds), 3),
        "cpu_s_median": round(statistics.median(cpu), 3), "rss_mb_most": round(max(memory), 1),
    }))  # fmt: skip
    raise SystemExit(1 if max(seconds) > MOST_SECONDS or max(memory) > MOST_MB else 0)


if __name__ == "__main__":
    main()
