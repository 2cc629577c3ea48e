"""A tiny large model that learns from opinions, and the file of what they are of. Needs torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cosilo.models.fit.taught import TaughtLM, TaughtTerms
from mutual_pair import public
from white_box import tiny

TAUGHT: dict[str, Any] = {"steps": 3, "batch": 3, "learning_rate": 1e-2, "rank": 2, "share": 0.5}


def taught(large: Any = None, *, count: int = 6, **options: Any) -> TaughtLM:
    return TaughtLM(large or tiny(0, layers=3), public(count), TaughtTerms(**TAUGHT | options))


def public_file(path: Path, count: int = 6) -> Path:
    rows = [{"text": each.chat[-1].content, "target": each.target} for each in public(count)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path
