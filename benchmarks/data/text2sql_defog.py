"""SQLite files out of the dumps of ../shared/data/text2sql_defog, and the questions beside them.

    python benchmarks/data/text2sql_defog.py [--shared ../shared/data] [--out runs/data]

The task itself builds dumps on its own; the files are for the pseudonym defence, whose "literals"
detector reads the values of the owner's databases. They stay outside git.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "text2sql_defog"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "data")
    arguments = parser.parse_args()
    source, target = arguments.shared / NAME, arguments.out / NAME
    (target / "db").mkdir(parents=True, exist_ok=True)
    for name in ("train.jsonl", "test.jsonl"):
        shutil.copyfile(source / name, target / name)
    dumps = sorted((source / "db").glob("*.sql"))
    for dump in dumps:
        file = target / "db" / f"{dump.stem}.sqlite"
        file.unlink(missing_ok=True)
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript(dump.read_text(encoding="utf-8"))
    print(f"{len(dumps)} databases and 2 files of questions in {target}")


if __name__ == "__main__":
    main()
