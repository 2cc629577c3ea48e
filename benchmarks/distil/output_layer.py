"""How wide is SmolLM2 inside? The attack on its real logits, packed as they cross, for several k.

Reads what `codec.py` has kept. "all": the whole distribution, of which 4,096 tokens are looked at.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cosilo.attacks.output_layer import output_space
from cosilo.boundary.wire.logits import TopK, pack, top_k, unpack
from kept import Kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/distil/logits"))
    options = parser.parse_args()
    files = sorted(options.folder.glob("*.npy"))
    kept = Kept("output_layer", settings={"precision": "float32"})
    for k in (64, 1024, 4096, None):
        tops: list[TopK] = []
        for path in files:
            logits = np.load(path)
            exact = top_k(logits[:, :4096].copy(), 4096) if k is None else top_k(logits, k)
            tops.append(unpack(pack(exact)))
        space = output_space(tops)
        found = (
            "no width stands out" if space is None else f"{space.width}, {space.gap:.1f} × noise"
        )
        places = sum(map(len, tops))
        print(f"k = {k or 'all'}: {found}; n = {places} places", flush=True)
        kept.put(f"k = {k or 'all'}", "width", 0 if space is None else space.width, n=places)
        if space is not None:
            kept.put(f"k = {k or 'all'}", "gap", space.gap, n=places)
    kept.write()


if __name__ == "__main__":
    main()
