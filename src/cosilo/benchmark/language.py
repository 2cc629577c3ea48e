"""What language texts are in, as far as the commonest words and the script tell.

A detector of names knows one language; on another it misses names and hides ordinary words, so whoever
runs a plan is told.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import islice

_WORDS = {
    "English": "the and of to in is that it for you was with on are this have my not be please",
    "German": "der die das und ist nicht ich zu den mit ein eine für auf es bitte von dem sie wir",
    "French": "le la les et est des un une pour dans que pas je vous sur avec ne du au mon",
    "Spanish": "el la los las y es de que en un una por con para no mi se su del como",
    "Italian": "il lo gli e è di che un una per con non mi sono del della le ho questo al",
    "Portuguese": "o os e é de que um uma para com não por meu minha se do da em no foi",
    "Dutch": "de het een en is van ik niet dat op te voor met zijn mijn er aan heb maar om",
    "Polish": "i w nie na się jest z do to że proszę nie mi jak od po za ale czy mam",
    "Swedish": "och att det är en ett jag inte på för med som har av till den min om kan",
    "Turkish": "ve bir bu için ile de da ne çok var ama daha değil olarak gibi en benim ben mi",
}
_LANGUAGE_OF = {word: set[str]() for words in _WORDS.values() for word in words.split()}
for _name, _words in _WORDS.items():
    for _word in _words.split():
        _LANGUAGE_OF[_word].add(_name)

_EAST = ("CJK", "HIRAGANA", "KATAKANA")
_LOOKED_AT = 300
_LEAST = 0.05
"""Share of the words that must be among a language's commonest to call it that."""


def language_of(texts: Iterable[str]) -> str:
    """The language of most of `texts`, or the script they are written in where that is not Latin;
    empty where it is not clear.
    """
    hits: Counter[str] = Counter()
    scripts: Counter[str] = Counter()
    words = 0
    for text in islice(texts, _LOOKED_AT):
        for word in re.findall(r"[^\W\d_]+", text[:2000]):
            words += 1
            scripts[unicodedata.name(word[0], "?").split()[0]] += 1
            hits.update(_LANGUAGE_OF.get(word.casefold(), ()))
    if not words:
        return ""
    script, count = scripts.most_common(1)[0]
    if script not in ("LATIN", "?") and 2 * count > words:
        return "Chinese or Japanese" if script in _EAST else f"{script.capitalize()} script"
    (first, most), (_, next_most) = (*hits.most_common(2), ("", 0), ("", 0))[:2]
    clear = most >= _LEAST * words and most > 1.2 * next_most
    return first if clear else ""
