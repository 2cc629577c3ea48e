"""The network against a slow, obvious version of it, and the file against what is said of it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys

import numpy as np

from cosilo.defences.tagger.detector import FILE, network
from cosilo.defences.tagger.network import DILATIONS, WHOLE
from cosilo.defences.tagger.reading import LANGUAGES, read, tokens

TEXT = "Guten Tag, ich heiße Maud Ottokar und wohne in Trier. " * 9


def obvious(text: str, language: int) -> np.ndarray:
    """What the docstring of the network says, word by word."""
    with np.load(FILE) as held:
        data = {name: held[name] for name in held.files}
    seen = read(text, tokens(text), language, network().lists)
    table = data["table"].astype(np.float64) * data["scale"].astype(np.float64)[:, None]
    state = []
    for forms, word in zip(seen.forms, seen.words, strict=True):
        rows = seen.rows[word]
        rest = max(len(rows) - WHOLE, 1) ** -0.5
        vector = (
            table[forms].sum(0) + table[rows[:WHOLE]].sum(0) + table[rows[WHOLE:]].sum(0) * rest
        )
        state.append(np.maximum(vector @ data["weight0"].astype(float) + data["bias0"], 0))
    for i, apart in enumerate(DILATIONS, 1):
        even = [(v - v.mean()) / np.sqrt(v.var() + 1e-5) for v in state]
        nothing = np.zeros_like(even[0])
        made = []
        for at in range(len(even)):
            near = [
                even[j] if 0 <= j < len(even) else nothing for j in (at - apart, at, at + apart)
            ]
            new = np.concatenate(near) @ data[f"weight{i}"].astype(float) + data[f"bias{i}"]
            made.append(state[at] + np.maximum(new, 0))
        state = made
    last = len(DILATIONS) + 1
    even = [(v - v.mean()) / np.sqrt(v.var() + 1e-5) for v in state]
    scores = np.array(even) @ data[f"weight{last}"].astype(float) + data[f"bias{last}"]
    exp = np.exp(scores - scores.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


def test_the_network_computes_what_it_says() -> None:
    for language in range(len(LANGUAGES)):
        seen = read(TEXT, tokens(TEXT), language, network().lists)
        assert np.allclose(network().shares(seen), obvious(TEXT, language), atol=1e-4)


def test_the_file_is_the_one_that_is_described_beside_it() -> None:
    said = FILE.with_suffix(".txt").read_text("utf-8")
    found = re.search(r"^sha256: (\w{64})$", said, re.M)
    assert found is not None
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == found[1]
    assert f"size: {FILE.stat().st_size}\n" in said
    assert FILE.stat().st_size < 3_000_000
    assert "licence: " in said


def test_the_tagger_needs_no_other_package() -> None:
    code = (
        "import sys; from cosilo.defences.tagger.detector import TaggerDetector;"
        "TaggerDetector().detect('Ich heiße Anna.');"
        "sys.exit(any(m in sys.modules for m in ('torch', 'spacy', 'onnxruntime', 'sklearn', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
