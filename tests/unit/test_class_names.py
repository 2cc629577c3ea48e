"""One word for one thing: a class name that others may import stands for one class."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import cosilo

ROOT = Path(cosilo.__file__).parent


def test_no_public_class_name_is_defined_twice() -> None:
    found = defaultdict(list)
    for file in ROOT.rglob("*.py"):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(file.relative_to(ROOT).as_posix())
    assert {name: files for name, files in found.items() if len(files) > 1} == {}
