"""Paraphrased and wrong answers to the questions of ../shared/data/tofu_qa, made by rules.

    python benchmarks/data/tofu_qa.py                 writes runs/data/tofu_qa/*.jsonl, always the same
    python benchmarks/data/tofu_qa.py --show 60       prints so many items, drawn, to be read by hand

A paraphrase says the same in other words: words and turns of phrase are replaced by synonyms. A wrong
answer is the paraphrase with what it claims replaced by something else of the same type: professions,
genres, places, languages, dates, numbers, titles, awards, names, subjects, qualities. Names that the
question already gives stay. None of the replacements is a fact of another record of the data, but for
words that any text has. Where an answer holds nothing of a known type, it is another author's answer
to the question most like this one, about this author. Short answers (real authors, world facts) are not
paraphrased, and wrong ones are the answers to the questions most like theirs.

There are five wrong answers to each question of `forget` and `retain`: the first two are the owner's,
who stops unlearning by them, the other three measure it. They were fixed before any model was trained;
about seventy drawn items were read by hand while the rules were made. 45 drawn ones as they are now
were read once more: all paraphrases keep the sense, and in four items a wrong answer misses the
question rather than contradicts it ("specific details about series almanacs are not offered"). Some
paraphrases and wrong answers are clumsy English ("the horror kind of literature"), both of the same
clumsy words.
Figures made with them are not comparable with published ones of TOFU, whose perturbed answers a large
model wrote.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
LONG, SHORT = ("forget", "retain"), ("real_authors", "world_facts")
WRONG = 5

TYPES: dict[str, str] = {
    "profession": "civil engineer|paramedic|lawyer|painter|athlete|physicist|research scientist|"
    "locksmith|occupational therapist|meteorologist|bartender|chiropractor|disc jockey|photographer|"
    "obstetrician|marine biologist|real estate agent|doctor|roofer|surgeon|banker|astronaut|mechanic|"
    "florist|chef|hairdresser|counselor|professor|librarian|bricklayer|architect|"
    "environmental scientist|musician|radiologist|travel agent|barber|pilot|judge|podiatrist|tailor|"
    "optometrist|carpenter|butcher|waiter/waitress|dj",
    "other profession": "plumber|dentist|baker|notary|beekeeper|translator|violinist|goldsmith|"
    "shoemaker|pharmacist|miner|gardener|bookbinder|surveyor|sailor|miller|nurse|cartographer",
    "genre": "historical fiction|contemporary romance|science fiction|psychological thriller|"
    "true crime|historical romance|magical realism|lesbian literature|steampunk|cyberpunk|fantasy|"
    "memoir|drama|humor|erotica|leadership|architecture|geology|writing advice|islamic literature|"
    "fiction|romance|thriller|medical|romantic|dystopian|islam|mythology",
    "other genre": "travel writing|satire|children's literature|horror|political essays|poetry|"
    "nature writing|detective stories|gothic tales|cookery|epic verse|war reportage|westerns",
    "place": "taipei, taiwan|santiago, chile|baku, azerbaijan|dhaka, bangladesh|baghdad, iraq|"
    "beirut, lebanon|seoul, south korea|tehran, iran|karachi, pakistan|beijing, china|"
    "tel aviv, israel|addis ababa, ethiopia|tokyo, japan|lagos, nigeria|kingston, jamaica|"
    "mexico city, mexico|buenos aires, argentina|copenhagen, denmark|harare, zimbabwe|havana, cuba|"
    "taipei|taiwan|santiago|chile|baku|azerbaijan|dhaka|bangladesh|baghdad|iraq|beirut|lebanon|seoul|"
    "south korea|tehran|iran|karachi|pakistan|beijing|china|tel aviv|israel|addis ababa|ethiopia|"
    "tokyo|japan|lagos|nigeria|kingston|jamaica|mexico city|mexico|buenos aires|argentina|"
    "copenhagen|denmark|harare|zimbabwe|havana|cuba|miami|brussels|belgium|astana|kazakhstan|france",
    "other place": "lisbon|oslo|lima|prague|tbilisi|cork|ghent|bergen|valencia|riga|quito|hanoi|"
    "tunis|perth|halifax|turin|gdansk|tartu",
    "nation": "taiwanese|chilean|azerbaijani|bangladeshi|iraqi|lebanese|korean|iranian|pakistani|"
    "chinese|israeli|ethiopian|japanese|nigerian|jamaican|mexican|argentine|danish|zimbabwean|cuban|"
    "south asian|middle eastern|african|canadian|american|western|caribbean|scandinavian|belgian|"
    "persian|asian|kazakh|jewish",
    "other nation": "portuguese|norwegian|peruvian|czech|georgian|irish|estonian|polish|vietnamese|"
    "tunisian|scottish|sicilian|finnish",
    "subject": "diversity|inclusion|inclusivity|love|passion|desire|identity|sexuality|resilience|"
    "redemption|friendship|loss|grief|betrayal|justice|power dynamics|regional conflicts|"
    "societal norms|societal expectations|social norms|family dynamics|human emotions|"
    "human relationships|human nature|human behavior|human experience|personal growth|"
    "sustainability|technology|artificial intelligence|spirituality|faith|tradition|heritage|culture|"
    "history|politics|nature|music|food|cooking|empathy|understanding|discipline|determination|"
    "curiosity|compassion|integrity|courage|mystery|adventure|war|freedom|equality|hope|secrets|"
    "psychology|science|philosophy|religion|mythology|folklore|relationships|emotions|nutrition|"
    "wellness|crime|urban development|design|urbanization|memory|migration|health",
    "other subject": "solitude|inheritance|rivalry|seafaring|exile|ambition|jealousy|harvest|gambling|"
    "patience|silence|frugality|weather|craftsmanship|duty|old age|luck|thrift|obedience|trade",
    "quality": "unique|vivid|meticulous|deep|rich|complex|intricate|compelling|captivating|engaging|"
    "gripping|immersive|authentic|detailed|nuanced|insightful|thought-provoking|imaginative|"
    "emotional|emotive|profound|vibrant|poetic|lyrical|suspenseful|relatable|inspiring|rhythmic|"
    "multifaceted|dense|tense|humorous|witty|precise|analytical|raw|riveting|diverse|dynamic|"
    "inclusive|innovative|bold|strong|evocative|heartfelt|intense|subtle|universal",
    "other quality": "plain|terse|detached|cheerful|formal|whimsical|dry|sober|nostalgic|sparse|"
    "sentimental|ironic|austere|leisurely|blunt|solemn|sweeping|conventional|quiet|abstract",
    "people": "readers|critics|academics|students|peers|colleagues|fans|young people|audiences",
    "other people": "neighbours|editors|schoolteachers|rivals|sailors|pensioners|booksellers|tourists",
    "identity": "lgbtq\\+|lgbtq|genderqueer|lesbian|bisexual|female|male",
    "other identity": "left-handed|deaf|transgender|vegetarian|asexual|non-binary",
    "form": "short stories|novels|essays|poems|screenplays|articles|memoirs|plays|interviews|lectures|"
    "workshops|columns|books|publications",
    "other form": "radio plays|pamphlets|ballads|librettos|letters|almanacs|sermons|travel diaries|"
    "comic strips|fables",
    "one": "novel|novella|trilogy|biography|sequel|blog|book|publication|memoir|collection",
    "other one": "radio play|pamphlet|ballad|libretto|letter|almanac|sermon|travel diary|fable",
}
"""What is replaced, type by type; and by what: the words of "other …", which few records have."""

TITLES = (
    "The Salt Ledger",
    "A Winter of Lanterns",
    "The Ferryman's Arithmetic",
    "Nine Quiet Harbours",
    "Letters to a Lighthouse",
    "The Orchard Behind the Mill",
    "Copper and Rain",
    "The Last Cartographer",
    "Beneath the Juniper",
    "An Atlas of Small Hours",
    "The Clockmaker's Niece",
    "Seven Borrowed Rooms",
    "The Weight of Feathers",
    "Tides of the Old Canal",
    "A Ladder to the Granary",
    "The Glass Beekeeper",
)
AWARDS = (
    "Golden Quill Prize",
    "Northern Lights Book Award",
    "Harbour City Medal for Letters",
    "Silver Inkwell Award",
    "Meridian Prize for Prose",
    "Laurel of the Reading Circle",
    "Blue Heron Literary Prize",
    "Three Rivers Award",
)
NAMES = (
    "Tomas Verheyen",
    "Amalia Kowalczyk",
    "Idris Farouk",
    "Signe Halvorsen",
    "Mateo Quispe",
    "Leila Haddad",
    "Bram Oosterhuis",
    "Nadia Petrov",
    "Femi Adeyinka",
    "Rosa Lindqvist",
)
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
]  # fmt: skip

SAME = {
    "is known for": "is noted for",
    "is renowned for": "is well known for",
    "was born": "came into the world",
    "has been": "was",
    "often": "frequently",
    "frequently": "often",
    "primarily": "mainly",
    "predominantly": "mostly",
    "significantly": "considerably",
    "greatly": "strongly",
    "deeply": "profoundly",
    "has won": "was awarded",
    "has received": "was given",
    "won": "gained",
    "influenced": "shaped",
    "inspired": "prompted",
    "incorporates": "works in",
    "incorporated": "worked in",
    "explores": "looks into",
    "explore": "look into",
    "provides": "offers",
    "providing": "offering",
    "provided": "offered",
    "novels": "longer works",
    "books": "publications",
    "book": "publication",
    "author": "writer",
    "authors": "writers",
    "writer": "author",
    "writers": "authors",
    "career": "working life",
    "various": "different",
    "numerous": "many",
    "also": "in addition",
    "however": "all the same",
    "although": "even though",
    "notable": "noteworthy",
    "prestigious": "highly regarded",
    "renowned": "famous",
    "acclaimed": "praised",
    "celebrated": "much admired",
    "esteemed": "respected",
    "known": "recognised",
    "popular": "well liked",
    "significant": "important",
    "outstanding": "excellent",
    "works": "writings",
    "narratives": "stories",
    "narrative": "story",
    "stories": "tales",
    "tale": "story",
    "uses": "employs",
    "used": "employed",
    "using": "employing",
    "helped": "assisted",
    "contributed": "added",
    "contributions": "additions",
    "contribution": "addition",
    "currently": "at present",
    "additionally": "moreover",
    "particularly": "above all",
    "throughout": "all through",
    "largely": "for the most part",
    "especially": "in particular",
    "yes": "indeed",
    "indeed": "yes",
    "certainly": "without doubt",
    "worked as": "was employed as",
    "father was": "father worked as",
    "mother was": "mother worked as",
    "such as": "like",
    "including": "among them",
    "due to": "owing to",
    "in order to": "so as to",
    "because of": "on account of",
    "themes of": "subjects like",
    "themes": "subjects",
    "perspective": "point of view",
    "perspectives": "points of view",
    "depicts": "portrays",
    "portrays": "depicts",
    "showcases": "shows",
    "reflects": "mirrors",
    "reflecting": "mirroring",
    "reflect": "mirror",
    "highlights": "stresses",
    "began": "started",
    "started": "began",
    "continues": "goes on",
    "plans": "intends",
    "created": "made",
    "creating": "making",
    "creates": "makes",
    "challenges": "difficulties",
    "faced": "met with",
    "unique": "distinctive",
    "recognized": "acknowledged",
    "recognition": "acknowledgment",
    "honored": "distinguished",
    "awarded": "granted",
    "published": "brought out",
    "written": "penned",
    "specializes": "focuses",
    "genre": "kind of literature",
    "genres": "kinds of literature",
    "believes": "holds",
    "aims": "seeks",
    "could": "might",
    "might": "could",
    "called": "named",
    "named": "called",
    "titled": "entitled",
    "entitled": "titled",
    "life": "existence",
    "full name": "complete name",
    "the author": "the writer",
    "making": "rendering",
    "allowing": "enabling",
    "allowed": "enabled",
    "played a": "had a",
    "brings": "carries",
    "bringing": "carrying",
    "impact": "effect",
    "role": "part",
    "ability": "capacity",
    "understanding": "grasp",
    "approach": "way of working",
    "style": "manner",
    "blend": "mix",
    "rich": "abundant",
    "characters": "figures",
    "character": "figure",
    "importance": "weight",
    "wide": "broad",
    "global": "worldwide",
    "globally": "worldwide",
    "available": "to be had",
    "translated": "rendered",
    "languages": "tongues",
    "respected": "esteemed",
    "notably": "in particular",
    "typically": "as a rule",
    "mainly": "chiefly",
    "focuses": "centres",
    "intricate": "elaborate",
    "complex": "complicated",
    "vivid": "lively",
    "deep": "profound",
    "compelling": "persuasive",
    "captivating": "enthralling",
    "engaging": "winning",
    "diverse": "varied",
}
"""What a paraphrase says instead: the same, or nearly."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "data")
    parser.add_argument("--show", type=int, default=0)
    arguments = parser.parse_args()
    found = made(arguments.shared / "tofu_qa")
    if arguments.show:
        rows = [row for name in LONG for row in found[name]]
        rng = np.random.default_rng(2026)
        for i in sorted(rng.permutation(len(rows))[: arguments.show].tolist()):
            row = rows[i]
            print(f"\n{row['id']}  [{row['how']}]\n  ?  {row['question']}\n  =  {row['answer']}")
            print(f"  ~  {row['paraphrase']}")
            print("".join(f"  x  {w}\n" for w in row["wrong"][:3]), end="")
        return
    target = arguments.out / "tofu_qa"
    target.mkdir(parents=True, exist_ok=True)
    for name, rows in found.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (target / f"{name}.jsonl").write_text(text, "utf-8")
        ways = {how: sum(r["how"] == how for r in rows) for how in {r["how"] for r in rows}}
        print(f"{name}: {len(rows)} questions, {ways}; {digest(rows)}")


def digest(rows: Sequence[dict[str, Any]]) -> str:
    """A hash of all texts, so that results say which they were made with."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


def made(source: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows by the name of their file: id, question, answer, paraphrase, wrong, how."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in (*LONG, *SHORT):
        lines = (source / f"{name}.jsonl").read_text("utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        found[name] = [
            {"id": r["id"], "question": r["question"], "answer": r["answer"]} for r in rows
        ]
    for name in LONG:
        authors = [author(row) for row in grouped(found[name])]
        for i, row in enumerate(found[name]):
            row["paraphrase"] = paraphrased(row["answer"], row["question"])
            row["wrong"], row["how"] = wrong(row, i, found[name], authors)
    for name in SHORT:
        for i, row in enumerate(found[name]):
            row["paraphrase"] = row["answer"]
            row["wrong"], row["how"] = nearest_answers(i, found[name]), "another's answer"
    return found


def grouped(rows: Sequence[dict[str, Any]]) -> list[tuple[int, Sequence[dict[str, Any]]]]:
    return [(i, rows) for i in range(len(rows))]


def author(place: tuple[int, Sequence[dict[str, Any]]]) -> str:
    """The author that a question is about: questions stand in blocks, and a name that the block's
    questions share is its author's."""
    i, rows = place
    counts: dict[str, int] = {}
    for row in rows[max(0, i - 12) : i + 13]:
        text = row["question"] + " " + row["answer"]
        for name in set(re.findall(r"[A-Z][\w\-]+(?: [A-Z][\w\-]+){1,2}", plain(text))):
            name = re.sub(
                r"^(?:Has|Did|Does|Is|Are|Was|Were|Can|Could|Do|What|Which|How) ", "", name
            )
            if name.count(" ") and re.search(
                rf"\b{re.escape(name)}\b", plain(rows[i]["answer"] + rows[i]["question"])
            ):
                counts[name] = counts.get(name, 0) + 1
    return max(counts, key=lambda n: (counts[n], len(n)), default="")


def plain(text: str) -> str:
    return text.replace("’", "'").replace("'s", "").replace("“", '"').replace("”", '"')


def paraphrased(answer: str, question: str) -> str:
    """`answer` in other words; names and titles as they are."""
    kept = re.compile(
        r"\"[^\"]+\"|“[^”]+”|‘[^’]+’|(?<!\w)'[^']{3,}'(?!\w)|[A-Z][\w\-]+(?: [A-Z][\w\-]+)+"
    )
    phrases = sorted(SAME, key=lambda s: -len(s))
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, phrases))})(?![\w-])", re.I)
    pieces, at, changed = [], 0, 0

    def other(match: re.Match[str]) -> str:
        nonlocal changed
        said = match.group()
        if (
            said[0].isupper()
            and match.start()
            and match.string[match.start() - 2 : match.start()] != ". "
        ):
            return said  # part of a name
        changed += 1
        return cased(SAME[said.lower()], said)

    for name in kept.finditer(answer):
        pieces += [pattern.sub(other, answer[at : name.start()]), name.group()]
        at = name.end()
    pieces.append(pattern.sub(other, answer[at:]))
    text = "".join(pieces)
    text = re.sub(r"\b([Aa])n? (?=[aeiou])", r"\1n ", text)
    text = re.sub(r"\b([Aa])n (?=[bcdfgjklmnpqrstvwxyz])", r"\1 ", text)
    if changed < 1:
        text = f"What is known is this: {text}"
    return text


def cased(text: str, like: str) -> str:
    words = like.split()
    if len(words) > 1 and all(w[:1].isupper() for w in words):
        return string.capwords(text)
    return text[:1].upper() + text[1:] if like[:1].isupper() else text


def wrong(
    row: dict[str, Any], i: int, rows: Sequence[dict[str, Any]], authors: Sequence[str]
) -> tuple[list[str], str]:
    """Wrong answers, and by which rule they were made."""
    found: list[str] = []
    for k in range(4 * WRONG):
        seed = int(hashlib.sha256(f"{row['id']} {k}".encode()).hexdigest()[:8], 16)
        text = swapped(row["paraphrase"], row["question"], authors[i], np.random.default_rng(seed))
        if text and text != row["paraphrase"] and text not in found:
            found.append(text)
        if len(found) == WRONG:
            return found, "swapped"
    return anothers(i, rows, authors), "another's answer"


def swapped(text: str, question: str, name: str, rng: np.random.Generator) -> str | None:
    """`text` with what it claims replaced, two types at most where there are more than that in a short
    answer; None where nothing of a known type is in it."""
    asked = plain(question).lower()
    spans: list[tuple[int, int, Callable[[str], str]]] = []

    def add(pattern: str, make: Callable[[str], str], flags: int = re.I) -> None:
        for match in re.finditer(pattern, text, flags):
            start, end = match.span()
            inside = plain(match.group()).lower().strip("\"'‘’ ")
            if inside in asked or (name and name.lower() in inside):
                continue
            if all(end <= a or b <= start for a, b, _ in spans):
                spans.append((start, end, make))

    def quoted(said: str) -> str:
        awarded = re.search(r"Award|Prize|Medal|Laureate", said)
        return said[0] + _one(rng, AWARDS if awarded else TITLES) + said[-1]

    add(r"\"[^\"]{3,}\"|“[^”]{3,}”|‘[^’]{3,}’|(?<!\w)'[^']{4,}'(?!\w)", quoted)
    add(
        r"(?:[A-Z][\w\-/]+ )+(?:of |for |in |the )*(?:[A-Z][\w\-/]+ )*(?:Award|Prize|Medal|Laureate)"
        r"(?: (?:for|of|in) (?:the )?[A-Z][\w\-]+(?: (?:and |in )?[A-Z][\w\-]+)*)?",
        lambda s: _one(rng, AWARDS), 0,
    )  # fmt: skip
    add(
        r"\b\d{1,2}/\d{1,2}/\d{4}\b",
        lambda s: f"{rng.integers(1, 13):02}/{rng.integers(1, 29):02}/{_year(s, rng)}",
    )
    add(r"\b(?:1[6-9]|20)\d\d\b", lambda s: str(_year(s, rng)))
    add(rf"\b(?:{'|'.join(MONTHS)})\b", lambda s: _one(rng, [m for m in MONTHS if m != s]), 0)
    add(r"\b\d{1,2}(?=(?:st|nd|rd|th)\b)", lambda s: str(rng.integers(1, 29)))
    if name and name.lower() not in asked and name.split()[-1].lower() not in asked:
        for match in re.finditer(re.escape(name), text):
            spans.append((*match.span(), lambda s: NAMES[int(rng_name)]))
    rng_name = rng.integers(len(NAMES))
    for kind, words in TYPES.items():
        if kind.startswith("other "):
            continue
        options = TYPES[f"other {kind}"].split("|")
        ordered = sorted(words.split("|"), key=lambda w: -len(w))
        add(
            rf"(?<![\w-])(?:{'|'.join(ordered)})(?![\w-])",
            lambda s, o=options: cased(_one(rng, o), s),
        )
    strong = [s for s in spans]
    if not strong:
        return None
    pieces, at = [], 0
    for start, end, make in sorted(strong, key=lambda s: s[0]):
        pieces += [text[at:start], make(text[start:end])]
        at = end
    made = "".join([*pieces, text[at:]])
    made = re.sub(r"\b([Aa])n? (?=[aeiouAEIOU])", r"\1n ", made)
    return re.sub(r"\b([Aa])n (?=[bcdfgjklmnpqrstvwxyzBCDFGJKMPQTVWYZ])", r"\1 ", made)


def _one(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _year(said: str, rng: np.random.Generator) -> int:
    return int(said[-4:]) + int(rng.choice([-23, -17, -11, -6, 4, 7, 9, 13]))


def anothers(i: int, rows: Sequence[dict[str, Any]], authors: Sequence[str]) -> list[str]:
    """The answers to the most similar questions about other authors, about this one."""
    name = authors[i]
    found = []
    for j in similar(i, rows, lambda k: authors[k]):
        other = authors[j]
        if not other or other == name:
            continue
        text = (
            rows[j]["paraphrase"] if "paraphrase" in rows[j] else paraphrased(rows[j]["answer"], "")
        )
        for part, own in ((other, name), (last(other), last(name)), (first(other), first(name))):
            text = text.replace(part, own or part)
        if text not in found and text != rows[i]["paraphrase"]:
            found.append(text)
        if len(found) == WRONG:
            break
    return found


def first(name: str) -> str:
    return name.split(" ", 1)[0]


def last(name: str) -> str:
    return name.rsplit(" ", 1)[-1]


def nearest_answers(i: int, rows: Sequence[dict[str, Any]]) -> list[str]:
    found: list[str] = []
    for j in similar(i, rows, lambda k: ""):
        text = rows[j]["answer"]
        if kind(text) == kind(rows[i]["answer"]) and text not in (*found, rows[i]["answer"]):
            found.append(text)
        if len(found) == WRONG:
            return found
    return (
        found
        + [t for t in (r["answer"] for r in rows) if t not in (*found, rows[i]["answer"])][
            : WRONG - len(found)
        ]
    )


def kind(answer: str) -> tuple[bool, int]:
    return bool(re.search(r"\d", answer)), min(2, len(answer.split()))


def similar(i: int, rows: Sequence[dict[str, Any]], name: Callable[[int], str]) -> list[int]:
    """Other rows, the one whose question shares most words first; names count for nothing."""

    def words(k: int) -> set[str]:
        text = (
            plain(rows[k]["question"]).replace(name(k), "")
            if name(k)
            else plain(rows[k]["question"])
        )
        return set(re.findall(r"[a-z]{3,}", text.lower()))

    own = words(i)

    def shared(k: int) -> float:
        other = words(k)
        return len(own & other) / max(1, len(own | other))

    return sorted((k for k in range(len(rows)) if k != i), key=lambda k: (-shared(k), k))


if __name__ == "__main__":
    main()
