"""Code and technical text: how many words are hidden that are nobody's secret.

    python benchmarks/pseudonyms/technical.py

Cosilo's own modules and documentation, what has changed in them lately as `git` shows it, stack traces
of the standard library, manual pages and the SQL of `text2sql_defog` (training split) go through the
pseudonym defence in pieces of 20 lines. Counted are words that a placeholder took the place of, apart
from e-mail addresses, URLs and IP addresses, which are looked for on purpose. Sections of manual pages
that name people are left out, and so are the values between the quotes of SQL.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import cosilo
from cosilo.boundary.messages import Ask
from cosilo.defences.hiding import DetectorName, Hiding
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.objectives.intervals import wilson
from cosilo.types import user
from kept import ROOT, Kept

LINES = 20
PIECES = 120  # of each sort
ON_PURPOSE = {"EMAIL", "URL", "IP"}
PAGES = {
    "dev": ["grep", "sed", "tar", "find", "sort", "ssh", "rsync", "awk", "xargs", "ps"],
    "test": ["ls", "cp", "diff", "gzip", "cut", "make", "curl", "tr", "head", "mount"],
}
MODULES = {"dev": ("models", "boundary", "tasks"), "test": ("gateway", "strategies", "selection")}
PEOPLE = re.compile(
    r"(?ms)^(?:AUTHORS?|COPYRIGHT|REPORTING BUGS|HISTORY|BUGS|THANKS|CREDITS|COLOPHON|SEE ALSO"
    r"|EXAMPLES?|STANDARDS?|CONFORMING TO)\n.*?(?=^\S|\Z)"
)


def pieces(text: str) -> list[str]:
    lines = text.splitlines()
    return ["\n".join(lines[i : i + LINES]) for i in range(0, len(lines), LINES)]


def code(split: str) -> list[str]:
    root = Path(cosilo.__file__).parent
    files = [f for folder in MODULES[split] for f in sorted((root / folder).rglob("*.py"))]
    return [piece for f in files for piece in pieces(f.read_text("utf-8"))]


def manuals(split: str) -> list[str]:
    found = []
    for name in PAGES[split]:
        command = ["man", "--encoding=UTF-8", "--no-hyphenation", "--no-justification", "1", name]
        page = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={"MANWIDTH": "100", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        ).stdout
        text = re.sub(r".\x08", "", page)
        body = "\n".join(text.splitlines()[1:-1])  # without its head and foot
        found += pieces(PEOPLE.sub("", body))
    return found


def queries(split: str) -> list[str]:
    data = ROOT.parent / "shared" / "data" / "text2sql_defog" / "train.jsonl"
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    rows = [r for i, r in enumerate(rows) if i % 2 == (split == "test")]
    return [r["gold_sql"][0] for r in rows]


def documents(split: str) -> list[str]:
    some = [f for f in sorted((ROOT / "docs").rglob("*.md")) if "clients" not in str(f)]
    files = some[split == "test" :: 2]  # without the recipes, which name made-up people
    return [piece for f in files for piece in pieces(f.read_text("utf-8"))]


def changes(split: str) -> list[str]:
    """What forty commits up to a fixed one changed, where this is a clone with a history."""
    start = {"dev": "a504c40", "test": "565287a"}[split]
    command = ["git", "log", "-p", "-n", "40", "--format=%h %s", start, "--", "src", "docs"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout
    return pieces(shown)


FAILING = {
    "dev": [
        "json.loads('{\"a\":')", "re.compile('(a')", "decimal.Decimal('x')", "ast.parse('def f(')",
        "zipfile.ZipFile('/none')", "tomllib.loads('a=')", "base64.b64decode('a')",
        "sqlite3.connect(':memory:').execute('SELEC 1')", "struct.unpack('<I', b'a')",
        "urllib.request.urlopen('http://127.0.0.1:9/')", "importlib.import_module('nonesuch')",
    ],
    "test": [
        "uuid.UUID('z')", "datetime.datetime.fromisoformat('x')", "ipaddress.ip_address('1.2')",
        "shlex.split('\"')", "logging.config.dictConfig({'version': 2})", "csv.reader([1]).__next__()",
        "concurrent.futures.ThreadPoolExecutor(1).submit(int, 'x').result()",
        "configparser.ConfigParser().read_string('a')", "pathlib.Path('/none').read_text()",
        "xml.etree.ElementTree.fromstring('<a>')", "fractions.Fraction('a/b')", "gzip.open('/none')",
    ],
}  # fmt: skip


def traces(split: str) -> list[str]:
    """What Python prints when calls of its standard library fail."""
    found = []
    for call in FAILING[split]:
        imports = "import " + call.rpartition("(")[0].split("(")[0].rpartition(".")[0]
        done = subprocess.run(
            [sys.executable, "-c", f"{imports}\n{call}"], capture_output=True, text=True
        )
        found.append(done.stderr)
    return found


async def hidden_words(hiding: Hiding, text: str, source: str) -> list[tuple[str, str]]:
    """The words that would be hidden, each with its kind."""
    ask = Ask(chat=user(text))
    spans = next(iter(await hiding.spans(ask)), ())  # of an empty file there are none
    found: list[tuple[str, str]] = []
    quoted = [m.span() for m in re.finditer(r"'[^']*'", text)] if source == "SQL" else []
    for word in re.finditer(r"\S+", text):
        if any(a < word.end() and word.start() < b for a, b in quoted):
            continue
        span = next((s for s in spans if s.start < word.end() and word.start() < s.end), None)
        if span is not None and span.kind not in ON_PURPOSE:
            found.append((span.kind, word.group()))
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--split", default="dev", choices=["dev", "test"])
    arguments.add_argument("--detectors", nargs="+", default=["presidio"])
    arguments.add_argument("--show", action="store_true", help="print what was hidden")
    options = arguments.parse_args()
    sources = {
        "code": code(options.split),
        "documentation": documents(options.split),
        "stack traces": traces(options.split),
    }
    if found := changes(options.split):
        sources["differences"] = found
    if shutil.which("man"):
        sources["manual pages"] = manuals(options.split)
    if (ROOT.parent / "shared" / "data" / "text2sql_defog").is_dir():
        sources["SQL"] = queries(options.split)
    names: list[DetectorName] = options.detectors
    kept = Kept(f"technical_{options.split}", seed=0, settings={"detectors": names})
    with tempfile.TemporaryDirectory() as folder:
        defence = Pseudonym(detectors=names, key_file=Path(folder, "key"))
        assert isinstance(defence.hiding, Hiding)
        whole = wrong = 0
        for source, some in sources.items():
            chosen = random.Random(0).sample(some, min(PIECES, len(some)))
            words, found = 0, []
            for text in chosen:
                words += len(text.split())
                found += asyncio.run(hidden_words(defence.hiding, text, source))
            low, high = wilson(len(found), words)
            print(
                f"{source:14} {len(found):5}/{words} words hidden {len(found) / words:.2%} ["
                f"{low:.2%}, {high:.2%}]"
            )
            print("   by kind:", dict(Counter(kind for kind, _ in found).most_common()))
            if options.show:
                print("  ", Counter(found).most_common(60))
            kept.put(
                source, "share of words hidden", len(found) / words, n=words, low=low, high=high
            )
            whole, wrong = whole + words, wrong + len(found)
    low, high = wilson(wrong, whole)
    print(f"all            {wrong}/{whole} {wrong / whole:.2%} [{low:.2%}, {high:.2%}]")
    kept.put("all", "share of words hidden", wrong / whole, n=whole, low=low, high=high)
    kept.write()


if __name__ == "__main__":
    main()
