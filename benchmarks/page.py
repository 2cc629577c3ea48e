"""Makes docs/results.md and docs/secure.md from templates and the numbers that benchmarks have kept.

    python benchmarks/page.py            writes the pages
    python benchmarks/page.py --check    says whether they are what the files make them; 1 if not

In a template, {{FILE / ROW / COLUMN | FORMAT}} stands for a number of benchmarks/results/FILE.json,
with its interval where it has one, and {{FILE | made}} for the commit, day and machine that made it.
Formats are Python's (`.3f`, `+.1f`, `,`), after a factor where there is one: `100 .1f %` is a
percentage. Parts of a number: `COLUMN.n`, `.low`, `.high`, and `.value` for it without its interval.
{{contents}} stands for links to all sections (###) under the names of their parts (##).
"""

from __future__ import annotations

import argparse
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from kept import ROOT, load

TEMPLATE, PAGE = ROOT / "benchmarks" / "results.md.in", ROOT / "docs" / "results.md"
SECURE_TEMPLATE, SECURE_PAGE = ROOT / "benchmarks" / "secure.md.in", ROOT / "docs" / "secure.md"
PAGES = ((TEMPLATE, PAGE), (SECURE_TEMPLATE, SECURE_PAGE))
NOTE = "<!-- Made by `python benchmarks/page.py` from benchmarks/{}: edit that. -->\n"
_CONTENTS = "\0"  # no text has it
_HOLE = re.compile(r"\{\{(.+?)\}\}")
_FORMAT = re.compile(r"(?:(\d+) )?([+,]*(?:\.\d+)?[fg]?)( %)?")


def made(template: str, name: str = TEMPLATE.name) -> str:
    """The page of the template called `name`, every hole filled.

    Raises:
        ValueError: a hole names a file, row or column that is not there, or has no such format.
    """
    page = NOTE.format(name) + _HOLE.sub(lambda hole: _put(hole.group(1)), template)
    return page.replace(_CONTENTS, contents(page)) if _CONTENTS in page else page


def _put(hole: str) -> str:
    return _CONTENTS if hole.strip() == "contents" else filled(hole)


def contents(page: str) -> str:
    """A list of the parts of `page`, its headings of the second level, with links to their sections."""
    lines: list[str] = []
    for level, title in re.findall(r"^(##|###) (.+)$", page, re.MULTILINE):
        link = f"[{title}](#{anchor(title)})"
        if level == "##":
            lines.append(f"* **{link}**")
        elif not lines:
            raise ValueError(f"the section {title!r} is in no part")
        else:
            lines.append(f"  * {link}")
    return "\n".join(lines)


def anchor(title: str) -> str:
    """What a heading with this title is linked to by, as most renderers of Markdown have it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def filled(hole: str) -> str:
    path, _, form = (part.strip() for part in hole.partition("|"))
    name, *place = (part.strip() for part in path.split(" / "))
    try:
        found = _file(name)
    except FileNotFoundError:
        raise ValueError(f"{{{{{hole}}}}}: there is no benchmarks/results/{name}.json") from None
    if form == "made":
        return provenance(found)
    row, column = [*place, "", ""][:2]
    column, _, part = column.partition(".")
    rows = found["rows"]
    if row not in rows or column not in rows[row]:
        known = ", ".join(rows[row]) if row in rows else ", ".join(rows)
        raise ValueError(f"{{{{{hole}}}}}: not in {name}.json, which has {known}")
    number = rows[row][column]
    if part:
        if part not in number:
            raise ValueError(f"{{{{{hole}}}}}: that number has no {part!r}")
        return written(number[part], form)
    if "low" not in number:
        return written(number["value"], form)
    low, high = (written(number[k], form).removesuffix(" %") for k in ("low", "high"))
    return f"{written(number['value'], form)} [{low}, {high}]"


def written(value: float, form: str) -> str:
    """`value` in `form`, with the sign that typography has for minus."""
    found = _FORMAT.fullmatch(form or "g")
    if found is None:
        raise ValueError(f"{form!r} is no format such as .3f, +.1f or 100 .1f %")
    text = format(value * int(found[1] or 1), found[2]) + (found[3] or "")
    if re.fullmatch(r"-0(\.0+)?( %)?", text):
        text = text[1:]
    return text.replace("-", "−")


def provenance(found: dict[str, Any]) -> str:
    machine = found["machine"]
    changed = " with uncommitted changes" if found["uncommitted_changes"] else ""
    return (
        f"commit {found['commit']}{changed}, {found['date']}, {machine['cores']} cores of "
        f"{machine['processor']}"
    )


@cache
def _file(name: str) -> dict[str, Any]:
    return load(name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--template", type=Path, help="of one page alone")
    parser.add_argument("--page", type=Path, help="that page")
    told = parser.parse_args()
    for template, page in ((told.template, told.page),) if told.template else PAGES:
        wanted = made(template.read_text("utf-8"), template.name)
        if not told.check:
            page.write_text(wanted, "utf-8")
        elif differs(page, wanted):
            return 1
    return 0


def differs(page: Path, wanted: str) -> bool:
    """Whether `page` is another one; it says where."""
    old = page.read_text("utf-8").splitlines()
    for number, (is_, should) in enumerate(zip(old, wanted.splitlines(), strict=False), start=1):
        if is_ != should:
            print(f"{page}:{number} is not what the files make it:\n- {is_}\n+ {should}")
            return True
    if len(old) != len(wanted.splitlines()):
        print(f"{page} has {len(old)} lines where the files make {len(wanted.splitlines())}")
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
