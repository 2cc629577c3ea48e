"""The book of ε: what runs compose to, what a booked release costs, and whether it is ever overspent.

    python benchmarks/privacy_book.py [--races 20] [--kills 20]

Runs of private evolution (ε = 2, four rounds of Gaussian noise, δ = 10⁻⁵) over the same records are
composed exactly, by privacy loss distributions, and summed. Then releases are booked under a budget
over records of several sizes, each in ten overlapping files. Then processes race for the last of a
budget, and others are killed when they have booked and nothing has left. Exits 1 when a budget was
overspent or a booking lost.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

from cosilo.privacy.accountant import noise_for
from cosilo.privacy.book import PrivacyBook
from cosilo.privacy.composition import composed
from cosilo.privacy.mechanisms import Gaussian, Laplace, Release
from kept import Kept

DELTA = 1e-5
ROUNDS = 4
VOTE = Release(mechanism=Gaussian(sigma=noise_for(2.0, DELTA, rounds=ROUNDS)))
SPENDER = Path(__file__).parents[1] / "tests" / "integration" / "spender.py"


def compositions(kept: Kept) -> None:
    tiny = Release(mechanism=Laplace(scale=1e9))  # so that the whole is convolved
    for runs in (1, 2, 3, 4, 8):
        votes = [VOTE] * (ROUNDS * runs)
        (exact,) = composed(votes, DELTA)
        (convolved,) = composed([*votes, tiny], DELTA)
        row = f"{runs} runs"
        kept.put(row, "exact", exact.epsilon)
        kept.put(row, "convolved", convolved.epsilon)
        kept.put(row, "sum", 2.0 * runs)
        print(
            f"{row}: {exact.epsilon:.4f} exactly, {convolved.epsilon:.4f} convolved, {2 * runs} summed"
        )
    other = Release(mechanism=VOTE.mechanism, neighbours="replace")
    (both,) = composed([*[VOTE] * ROUNDS, *[other] * ROUNDS], DELTA)
    kept.put("one run of each relation", "exact", both.epsilon)
    print(f"one run of each relation: {both.epsilon:.4f} for {both.neighbours}")


def costs(kept: Kept) -> None:
    for records in (1_000, 10_000, 100_000):
        with TemporaryDirectory() as folder, closing(PrivacyBook(Path(folder) / "book")) as book:
            noted, booked = [], []
            for file in range(10):
                texts = [f"record {i + file * records // 20}" for i in range(records)]
                began = process_time()
                data = book.data(texts)
                noted.append(process_time() - began)
                began = process_time()
                book.reserve(data, VOTE, spender="run", epsilon=50.0, delta=DELTA)
                booked.append(process_time() - began)
        row = f"{records:,} records"
        kept.put(row, "note, CPU-ms", 1000 * median(noted), n=len(noted))
        kept.put(row, "book, CPU-ms", 1000 * median(booked), n=len(booked))
        print(
            f"{row}: noted in {1000 * median(noted):.0f}, booked in {1000 * median(booked):.1f} CPU-ms"
        )


def spenders(book: Path, each: list[tuple[float, int, str]]) -> list[subprocess.Popen[str]]:
    """Processes that are ready: limit, tries, and the records, a letter each."""
    found = [
        subprocess.Popen(
            [sys.executable, str(SPENDER), str(book), str(limit), str(tries), *records],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for limit, tries, records in each
    ]
    for process in found:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    return found


def said(processes: list[subprocess.Popen[str]]) -> list[str]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate(timeout=120)[0].strip() for process in processes]


def races(count: int, limit: float = 2.5) -> int:
    """In how many of `count` races three processes spent more than `limit`, or less than there was."""
    one = Release(mechanism=Gaussian(sigma=noise_for(1.0, DELTA, rounds=1)))
    most = 0
    while composed([one] * (most + 1), DELTA)[0].epsilon <= limit:
        most += 1
    wrong = 0
    for _ in range(count):
        with TemporaryDirectory() as folder:
            book = Path(folder) / "book"
            let = said(spenders(book, [(limit, 6, "abc"), (limit, 6, "cba"), (limit, 6, "cx")]))
            with closing(PrivacyBook(book)) as found:
                (figure,) = found.figures(found.data("c"), DELTA)
            wrong += figure.releases != most or sum(map(int, let)) != most
    return wrong


def kills(count: int) -> int:
    """How many bookings of `count` processes that were killed right after them are not there."""
    with TemporaryDirectory() as folder:
        book = Path(folder) / "book"
        for _ in range(count):
            (process,) = spenders(book, [(1e6, -1, "abc")])
            assert said([process]) == ["booked"]
            assert process.returncode == -signal.SIGKILL
        with closing(PrivacyBook(book)) as found:
            return count - len(found.lines())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--races", type=int, default=20)
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    kept = Kept("privacy_book", settings={"delta": DELTA, "rounds": ROUNDS})
    compositions(kept)
    costs(kept)
    overspent, lost = races(given.races), kills(given.kills)
    kept.put("races", "wrong", overspent, n=given.races)
    kept.put("kills", "lost", lost, n=given.kills)
    print(f"races that ended over or under the budget: {overspent} of {given.races}")
    print(f"bookings lost by a kill: {lost} of {given.kills}")
    kept.write()
    return int(bool(overspent or lost))


if __name__ == "__main__":
    sys.exit(main())
