"""Names of people and places by the words around them; the model finds most, these the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cosilo.defences.addresses import PARTICLE, TOWN, UPPER
from cosilo.defences.anchored import AnchoredForm, AnchoredText
from cosilo.defences.detection import Span
from cosilo.defences.languages.guess import ENGLISH, pieces
from cosilo.defences.words import (
    DAYS,
    MONTHS,
    NOT_NAMES,
    NUMBERED,
    OF_PROGRAMS,
    OF_QUESTIONS,
    ORDINARY,
)

_WORD = rf"[{UPPER}][\w'’\-]{{0,40}}+"
_PART = rf"(?:[{UPPER}]\.|{_WORD})"
_NAMES = rf"{_PART}(?:[ ](?:{PARTICLE}[ ]){{0,2}}{_PART}){{0,4}}"
_LOWER = r"[^\W\d_][\w'’\-]{2,40}"
_ANY_CASE = r"[^\W\d_][\w'’\-]{1,40}(?:[ ](?:[a-z]\.?[ ])?[^\W\d_][\w'’\-]{2,40})?"
_TITLE = (
    r"(?i:mr|mrs|ms|miss|mx|dr|prof|professor|sir|madam|lady|lord|rev|fr|herr|frau|hon|capt|sgt|lt"
    r"|col|señora?|monsieur|madame|mme|signora?)"
)
_CUE = r"""(?i:my[ ]name(?:['’]s|[ ]is)|name[ ]is|i[ ]am|i['’]m|this[ ]is
|call(?:ed)?(?:[ ](?:me|him|her))?|named(?:[ ](?:him|her))?|name[?:](?:[ ]user:)?
|account\?[ ]user:|signed|regards,|sincerely,|thanks,
|cheers,|best,|dear|hi|hello|hey|contact|attn:?|attention:?|patient:?|customer:?|client:?|user:
|ask|tell|remind|ping|invite|thank
|follow[ ]up[ ]with|meet[ ]with|speak[ ](?:to|with)|talk[ ]to|said[ ]\w{1,30}[ ]to|kid|son|daughter|wife
|husband|brother|sister|friend|colleague|boss|neighbou?r|(?:directed|written|produced|sung)[ ]by:?
|by:|actor|actress|singer|player|president|senator|producer|songwriter|author|writer|officer|agent
|manager|teacher|founders?:|with[ ]ms\.)"""
_LOWER_CUE = r"""(?i:my[ ]name(?:['’]s|[ ]is)|(?:last|first|full|middle)[ ]name[ ]is|people[ ]call[ ]me
|call[ ]me|follow[ ]up[ ]with|(?:her|his)[ ]name[ ]is|named|name:|name\?)"""
_SAYS = r"(?:said|says|asked|answered|replied|shouted|told|wrote|added|explained)"
_DOES = (
    r"(?:lives?|lived|is[ ]from|was[ ]born|comes?[ ]from|spent|moved|works?|worked|flew|met|will[ ]be"
    r"|is[ ](?:a|the|very|my|our|his|her)|was[ ](?:a|the|very|my|our)|has[ ]been|joined|called|born"
    r"|wants[ ]to|loves|hates|married|phoned|grew[ ]up|studied|retired)"
)
_PLACE_CUE = r"""(?i:(?:live[sd]?|living|born|based|located|stay(?:ing|s)?|moved|moving|meet
|arriv(?:ed?|ing)|flew|fly|flying|travel(?:led|ling)?|trip|originally|returned|went|going|coming
|are|am|i['’]m|here)
(?:[ ]back|[ ]over)?[ ](?:in|from|to|at|near)|from|where:|city:|country:|place:|town:|location:)"""

# Those that are hardly anything else.
_COUNTRIES = (
    "Afghanistan|Albania|Algeria|Andorra|Angola|Argentina|Armenia|Australia|Austria|Azerbaijan|Bahrain"
    "|Bangladesh|Belarus|Belgium|Belize|Bhutan|Bolivia|Botswana|Brazil|Bulgaria|Burundi|Cambodia|Cameroon"
    "|Canada|Chile|China|Colombia|Croatia|Cyprus|Czechia|Denmark|Ecuador|Egypt|Eritrea|Estonia|Ethiopia"
    "|Finland|France|Gabon|Gambia|Germany|Ghana|Greece|Greenland|Guatemala|Guyana|Haiti|Honduras|Hungary"
    "|Iceland|India|Indonesia|Iran|Iraq|Ireland|Israel|Italy|Jamaica|Japan|Kazakhstan|Kenya|Kuwait|Laos"
    "|Latvia|Lebanon|Lesotho|Liberia|Libya|Liechtenstein|Lithuania|Luxembourg|Madagascar|Malawi|Malaysia"
    "|Malta|Mauritius|Mexico|Moldova|Monaco|Mongolia|Montenegro|Morocco|Mozambique|Myanmar|Namibia|Nepal"
    "|Netherlands|Nicaragua|Nigeria|Norway|Oman|Pakistan|Panama|Paraguay|Peru|Philippines|Poland"
    "|Qatar|Romania|Russia|Rwanda|Senegal|Serbia|Singapore|Slovakia|Slovenia|Somalia|Spain|Sudan|Suriname"
    "|Sweden|Switzerland|Syria|Taiwan|Tanzania|Thailand|Tunisia|Uganda|Ukraine|Uruguay|Uzbekistan"
    "|Venezuela|Vietnam|Yemen|Zambia|Zimbabwe"
)

_PREPOSITION = r"""(?i:in|to|from|near|around|visit(?:ing|ed|s)?|through|outside|leav(?:e|es|ing)
|reach(?:ed)?|via|towards?|across|between
|weather|forecast|landed[ ]at|bound[ ]for|destination:?|stop:)"""

# Given names that are ordinary words: names where somebody is called by one, or calls.
_WORD_NAMES = (
    "Will|May|Mark|Grace|Hope|Rose|Bill|Art|Rich|Drew|Pat|Sue|Faith|Joy|Dawn|Iris|Jack|Frank|Ray"
    "|Guy|Dean"
    "|Earl|Chase|Hunter|Summer|April|June|August|Autumn|Skip|Rob|Nick|Gene|Grant|Miles|Wade|Lance|Rusty"
    "|Penny|Ginger|Ruby|Pearl|Amber|Crystal|Holly|Ivy|Olive|Violet|Daisy|Lily|Heather|Jasmine"
    "|Melody|Carol"
    "|Christian|Angel|Star|Sunny|Bud|Buck|Chip|Cliff|Dale|Glen|Heath|Reed|Rock|Stone|Wolf|Royal"
    "|Major|Sky"
)
_CALLED = (
    r"(?i:my[ ]name(?:['’]s|[ ]is)|(?:his|her|their|first)[ ]name(?:['’]s|[ ]is)|name[ ]is|call[ ]"
    r"(?:me|him|her)"
    r"|i['’]m|i[ ]am|this[ ]is|dear|hi|hello|hey|thanks,|thank[ ]you,|regards,|cheers,|best,|love,"
    r"|sincerely,)"
)

# (kind, regular expression with a group `value`, score, whether an ordinary first word rules it out)
_PATTERNS: tuple[tuple[str, str, float, bool], ...] = (
    ("PERSON", rf"\b{_TITLE}\b\.?[ ](?P<value>{_NAMES})", 0.9, False),
    ("PERSON", rf"\b{_TITLE}\.[ ](?P<value>{_ANY_CASE})", 0.7, True),
    ("PERSON", rf"\b{_CALLED}[ \n]{{1,3}}(?P<value>{_WORD_NAMES})(?=[.,!?;:)\n]|[ ](?:and|from"
               r"|here|at|speaking)\b|$)",
     0.7, False),
    ("PERSON", rf"\b{_CUE}[ ,]{{1,8}}(?P<value>{_NAMES})", 0.75, True),
    ("PERSON", rf"\b(?i:regards|sincerely|faithfully|thanks|thank[ ]you|cheers|best|love|yours"
     rf"|truly|wishes"
               rf"|greetings),?[ ]?\r?\n{{1,2}}[ ]?(?P<value>{_NAMES})(?=[ ]*(?:[\r\n,]"
               rf"|$))", 0.7, True),
    ("PERSON", rf"\b{_LOWER_CUE}[ ]{{1,8}}(?P<value>{_ANY_CASE})", 0.6, True),
    ("PERSON", rf"\b{_SAYS}[ ](?:at[ ])?(?P<value>{_NAMES})", 0.6, True),
    ("PERSON", rf"(?P<value>\b{_NAMES})[ ]{_SAYS}\b", 0.5, True),
    ("PERSON", rf"(?:^|[.!?\n][ ]*)(?P<value>{_NAMES})[ ]{_DOES}\b", 0.5, True),
    ("PERSON", rf"(?P<value>\b{_WORD}(?:[ ][{UPPER}]\.)+[ ]{_WORD})", 0.8, True),
    ("PERSON", rf"(?P<value>\b{_WORD}[ ](?:II|III|IV|Jr\.?|Sr\.?)(?!\w))", 0.6, True),
    ("PLACE", rf"\b{_PLACE_CUE}[ ](?P<value>{TOWN})", 0.6, True),
    ("PLACE", rf"\b{_PREPOSITION}[ ](?P<value>{TOWN})(?!\w|[ ]?[:=(_/])", 0.35, True),
    ("PLACE", rf"\b(?P<value>{_COUNTRIES})(?![\w-])", 0.5, False),
    ("PLACE", rf"\b(?P<value>(?:São|Santo|Santa|San|Sankt|Sainte?|MOUNT|Mount|Fort|FORT)[ \-]"
     rf"(?!Claus){_WORD}(?:[ ]d[aeo]s?[ ]{_WORD})?)(?!\w)", 0.5, False),
    ("PLACE", rf"\b[Tt]he[ ](?P<value>{TOWN})[ ](?:office|branch|factory|plant|warehouse|depot|council"
     r"|police)\b", 0.38, True),
    ("PERSON", rf"\b(?P<value>{_WORD})[ ]and[ ]I\b", 0.5, True),
    # 't Veld, 's-Hertogenbosch
    ("PLACE", rf"(?<![\w'’])(?P<value>['’](?:t[ ](?!Was|Is|Were|Will)|s-)[{UPPER}][\w\-]{{2,30}})"
     r"(?!\w)", 0.5, False),
    ("PLACE", rf"\b(?i:live[sd]?|living)[ ]in[ ](?P<value>{_LOWER}(?:[ ]{_LOWER}){{0,2}})"
     r"(?=[.,!?\n]|$)", 0.5, True),
    ("PLACE", rf"\b(?P<value>{TOWN})[ ](?:Country[ ]Club|Airport|Station|University|Hospital|City"
     r"|County)\b", 0.5, True),
    ("PLACE", rf"\b(?P<value>{_WORD}(?:[ ]{_WORD})?[ ](?:mesto|mesta|ves|vas|hora|gora|polje|brod"
     rf"|slatina|hrad"
     r"|sad|nad[ ]\w{2,20}|pod[ ]\w{2,20}))(?!\w)", 0.5, True),
    # A form: a label, and the rest of its line.
    ("PERSON", r"(?:^|\n)[ ]{0,9}(?i:name|full[ ]name|patient|customer|contact|client)[ ]?:[ \t]{0,9}"
     r"(?P<value>[^\n:]{2,60})", 0.8, True),
    ("PLACE", r"(?:^|\n)[ ]{0,9}(?i:where|city|town|country|place|location|state)[ ]?:[ \t]{0,9}"
     r"(?P<value>[^\n:]{2,80})", 0.8, True),
    ("ADDRESS", r"(?:^|\n)[ ]{0,9}(?i:(?:(?:home|billing|postal|mailing|shipping)[ ])?address)[ ]?:"
     r"[ \t]{0,9}(?P<value>[^\n:]{4,120})", 0.85, True),
)  # fmt: skip
_COMPILED = [
    (kind, AnchoredForm(form, re.X), score, strict) for kind, form, score, strict in _PATTERNS
]

_SURE = 0.4
_COUNT = re.compile(r"[ ]\d")
_NO_PLACES = NOT_NAMES | NUMBERED | OF_PROGRAMS | OF_QUESTIONS | ORDINARY
_CALENDAR = frozenset((*MONTHS, *DAYS))
_TOWNS_BEGIN = frozenset(
    [
        "New",
        "Old",
        "North",
        "South",
        "East",
        "West",
        "Upper",
        "Lower",
        "Great",
        "Little",
        "Lake",
        "Port",
        "Fort",
    ]
)
_LINE = re.compile(rf"(?m)^[ ,]*(?P<value>{TOWN})[ ,]*$")
_ITEM = rf"(?:{_PART}(?:[ ]{_PART}){{0,2}})"
_NEXT = re.compile(rf"[ ]*(?:,(?:[ ]*and)?|and|&)[ ]+(?P<value>{_ITEM})(?!\w)")
_NEXT_LOWER = re.compile(
    r"[ ]*(?:,(?:[ ]*and)?|and)[ ]+(?P<value>[^\W\d_]{3,40})(?=[.,\n]|[ ]and[ ]|$)"
)
_BEFORE_LOWER = re.compile(r"(?:^|[:(,]\s*)(?P<value>[^\W\d_]{3,20}),(?:[ ]and)?[ ]$")
_BEFORE = re.compile(rf"(?<![\w])(?P<value>{_ITEM})(?:,(?:[ ]*and)?|[ ]and|[ ]&)[ ]+$")


def named(anchored: AnchoredText) -> Iterator[Span | None]:
    """People and places by cues, and the lines of a block that are nothing but names; a None after
    each form looked for, where the caller may pause.
    """
    for kind, form, score, strict in _COMPILED:
        for found in form.find(anchored):
            town = kind == "PLACE" and _of_town(found["value"])
            if kind == "PLACE":
                first = found["value"].partition(" ")[0]
                if first in _CALENDAR:
                    continue  # from April 1
                if first.casefold() in NUMBERED and _COUNT.match(anchored.text, found.end("value")):
                    continue  # from Gate 5
                if (
                    score < _SURE
                    and first.casefold() in _NO_PLACES
                    and not _of_town(found["value"])
                ):
                    continue  # in Section 2, to Customer Service
            if not strict or ((town or is_name(found["value"])) and not is_said(found["value"])):
                yield Span(*found.span("value"), kind, score)
        yield None
    text = anchored.text
    if text.count("\n") < 2:
        return
    lines = [m for m in _LINE.finditer(text) if is_name(m["value"])]
    if lines:
        for line in lines:
            yield Span(*line.span("value"), "PERSON" if not line.start() else "PLACE", 0.5)


def _of_town(value: str) -> bool:
    """Whether an unusual word stands after one that many towns begin with: New Kathleen."""
    words = value.split()
    return len(words) > 1 and words[0] in _TOWNS_BEGIN and words[1].casefold() not in _NO_PLACES


def is_said(text: str) -> bool:
    """Whether what stands after somebody's name or role is what they said, as in a chat."""
    words = text.split()
    return len(words) > 4 and sum(word[0].islower() for word in words) >= 3


def is_name(text: str) -> bool:
    """Whether `text` can be a name: its first word is no ordinary one."""
    return text.split()[0].strip(".,'’\"").casefold() not in NOT_NAMES


def listed(text: str, spans: Iterable[Span]) -> Iterator[Span]:
    """The other items of a list that a person stands in: 'Anna, Zuzka and Jörn'; each once, and
    in English text."""
    # Where nouns have capitals, every enumeration would be one of people.
    foreign = [p for p in pieces(text) if ENGLISH not in p.languages]
    people = [
        s
        for s in spans
        if s.kind == "PERSON" and not any(p.start <= s.start < p.end for p in foreign)
    ]
    ends = {s.end for s in people}
    many = len(people) > 2 and text.islower()
    # What follows a place depends on the place, and on whether it is in a list already: a walk that
    # comes where another has been would only repeat it.
    ahead: set[tuple[int, bool]] = set()
    behind: set[int] = set()
    for span in people:
        at, inside = span.end, False
        while (at, inside) not in ahead:
            ahead.add((at, inside))
            found = _NEXT.match(text, at) or (_NEXT_LOWER.match(text, at) if inside else None)
            if found is None or not is_name(found["value"]) or len(found["value"]) < 2:
                break
            yield Span(*found.span("value"), "PERSON", 0.4)
            at, inside = found.end(), True
        start = span.start
        if many and (found := _BEFORE_LOWER.search(text[max(0, start - 40) : start])):
            first = max(0, start - 40) + found.start("value")
            if is_name(found["value"]) and first not in behind:
                behind.add(first)
                yield Span(first, first + len(found["value"]), "PERSON", 0.4)
        while start not in behind:
            behind.add(start)
            offset = max(0, start - 80)
            found = _BEFORE.search(text[offset:start])
            if found is None:
                break
            first, last = found.span("value")
            if not is_name(found["value"]) or offset + last in ends:
                break
            yield Span(offset + first, offset + last, "PERSON", 0.4)
            start = offset + first
