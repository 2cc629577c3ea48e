"""Polish names in the cases that texts use, by the common patterns of declension."""

from __future__ import annotations

_ADJECTIVE = {"gen": "ego", "acc": "ego", "dat": "emu", "ins": "m", "voc": ""}
_SOFTENED = {
    "k": "ce", "g": "dze", "r": "rze", "t": "cie", "d": "dzie", "ł": "le", "l": "li", "j": "ji",
    "i": "ii", "c": "cy", "ż": "ży",
}  # fmt: skip


def declined(name: str, case: str, gender: str) -> str:
    """`name`, a given or a family name or several, in `case`: gen, dat, acc, ins or voc."""
    parts = [_hyphened(p, case, gender) for p in name.split(" ")]
    return " ".join(parts)


def _hyphened(name: str, case: str, gender: str) -> str:
    return "-".join(_declined(p, case, gender) for p in name.split("-"))


def _declined(name: str, case: str, gender: str) -> str:
    if name.endswith(("ska", "cka", "dzka")) and gender == "f":
        stem = name[:-1]
        return stem + {"gen": "iej", "dat": "iej", "acc": "ą", "ins": "ą", "voc": "a"}[case]
    if name.endswith("a"):
        return _ending_in_a(name[:-1], case)
    if gender == "f" or name[-1] in "eouóąęü":
        return name  # foreign, or a woman's family name: not declined
    if name[-1] in "yi":
        if case == "voc":
            return name
        stem = name if name[-1] == "i" else name[:-1]
        vowel = "" if name[-1] == "i" else "y"
        return stem + (vowel + "m" if case == "ins" else _ADJECTIVE[case])
    return _ending_in_consonant(name, case)


def _ending_in_a(stem: str, case: str) -> str:
    last = stem[-1]
    if case in ("acc", "ins", "voc"):
        return stem + {"acc": "ę", "ins": "ą", "voc": "o"}[case]
    if case == "gen":
        return stem + ("i" if last in "kgljiń" else "y")
    return stem[:-1] + _SOFTENED[last] if last in _SOFTENED else stem + "ie"


def _ending_in_consonant(name: str, case: str) -> str:
    stem = name
    if name.endswith("ek"):
        stem = name[:-2] + "k"
    elif name.endswith("iec"):
        stem = name[:-3] + "c"
    elif name.endswith(("ec", "eł")):
        stem = name[:-2] + name[-1]
    elif name == "Kacper":
        stem = "Kacpr"
    if case in ("gen", "acc"):
        return stem + "a"
    if case == "dat":
        return stem + "owi"
    if case == "ins":
        return stem + ("iem" if stem[-1] in "kg" else "em")
    last = stem[-1]
    if last in "rtdł":
        return stem[:-1] + _SOFTENED[last]
    return stem + ("ie" if last in "nwfbpmsz" and not stem.endswith(("sz", "cz", "rz")) else "u")
