"""Street addresses and postcodes, in the forms of many countries.

A number and capitalised words are an address when something says so: a kind of street (before,
after or at the end of its name), a flat, a second number, or the words before it. What follows on
the same or the next lines (flat, town, country, postcode) belongs to it.
"""

from __future__ import annotations

import re

# A capital letter, also a Greek or Cyrillic one; `re` has no \p{Lu}.
UPPER = "A-ZÀ-ÖØ-ÞĀ-ŽΆ-Ϋ∆А-ЯЀ-Џ"
PARTICLE = (
    r"(?:van|von|vom|zum|zur|der|den|de|del|della|delle|dei|des|di|da|do|dos|du|das|la|le|les|el"
    r"|los|las"
    r"|al|bin|ibn|af|av|zu|am|an|ter|ten|y|e|i|z|u|v|w|na|nad|pod|pri|sur|sous|of)"
)
_CAPITAL = rf"[{UPPER}][\w'’\-]{{0,40}}+(?:(?<=[{UPPER}])\.|(?<=\b..)\.|(?<=\b...)\.)?"

_AFTER_NAME = """street str st road rd avenue ave av lane ln drive dr way court ct square sq boulevard
blvd place pl terrace close crescent cres highway hwy parkway pkwy garden gardens grove park parks hill
hills mews row walk quay wharf alley circle trail trails loop pike plaza bypass expressway extension
extensions gateway freeway turnpike crossing gate path yard manor view views vista ridge heights mount
common green greens island islands forge forges rapid rapids spring springs station stream summit
tunnel union valley village villages well wells meadow meadows mill mills mission motorway mountain
neck orchard oval overpass pass pine pines plain plains point points port ports prairie ramp ranch
rest river route run shoal shoals shore shores skyway spur squares straße strasse weg platz allee
gasse ring ufer damm via strada utca u út tér tere körút vägen gatan väg gata vei veien vej gade katu
tie tee straat laan kade plein terrasse gränd pst mnt puiestee tn iela gatvė
pde parade cct circuit tce crct mews esplanade bvd layout cesta trg köz sokak sok caddesi cad mahallesi
põik gürtel steig pfad graben chaussee stig torg torget backe vang dijk dreef steeg bulvarı"""
# Of a street only with a number before it, and with a capital.
_TITLED_NAME = """arcade annex bayou bend bluff bottom branch bridge brook burg burgs camp
canyon cape causeway cliff cliffs corner corners course cove coves creek crest crossroad
crossroads curve dale dam divide
estate estates fall falls field fields flats ford fork forks fort freeway glen glens harbor
harbors harbour haven hollow inlet isle junction junctions key keys knoll knolls lakes land landing
light lights loaf lock locks lodge mall passage pine pines radial rapids rise rue shores skyway
stravenue streets throughway trace track trafficway underpass unions viaduct ville walks wall ways
esplanade precinct promenade strand wynd brae copse croft drove drift fold leaze paddock rectory
spinney tor warren wharf backs butts amble approach boardwalk circus crossway driveway fairway glade
gully highroad lookout mead nook outlook quadrant quays retreat ridgeway roadside siding thoroughfare
tollway tramway waters grange rotary concourse"""
_SMALL_NAME = """brook brooks landing lodge knoll knolls glen glens hollow cove coves fords inlet
lakes stravenue throughway trafficway underpass mews quadrant nook"""
"""Of a street in small letters, after a number and a name."""
_BEFORE_NAME = """rue avenue chemin quai impasse boulevard via viale vicolo piazza corso strada calle
avenida paseo plaza camino rua r travessa praça ulica ul aleja al náměstí prospekt provinciale
largo rampa contrada piazzale λεωφόρος οδός cours allée ruelle sentier venelle faubourg esplanade route
ronda glorieta carretera carrera alameda ladeira beco vico borgo piazzetta viottolo calea aleea
bulevardul șoseaua trg odos leoforos jalan plac praia feira rambla pasaje pasadizo urbanización
cuesta carrer passeig cañada chaussée rodovia quadra"""
_ENDINGS = """straße strasse str weg gasse platz allee straat laan kade plein singel gracht hove hoven
vej gade gaden vejen vägen gatan gata väg gränd veien gate gaten katu tie kuja polku gatvė iela utca
náměstí ulice terrasse stræde allé toft bakken parken lia veg vegen vík braut gerði stigen stien
stígur åsen lien haugen tunet svingen torget
torg backen allén lund vang vænget høj dijk dreef steeg pad lei steig stieg pfad graben gürtel chaussee
rinne raitti kaari põik pold platsen plassen"""


def _any(words: str) -> str:
    return "|".join(sorted(map(re.escape, words.split()), key=len, reverse=True))


_AFTER = rf"(?i:{_any(_AFTER_NAME)})"
_TITLED_AFTER = rf"(?:{_any(_TITLED_NAME.title())}|{_any(_TITLED_NAME.upper())})"
_SMALL_AFTER = rf"(?:{_any(_SMALL_NAME)})"
_BEFORE = rf"(?i:{_any(_BEFORE_NAME)})"
_ENDED = rf"[{UPPER}][\w'’\-]{{0,40}}(?i:{_any(_ENDINGS)})"
_UNIT = (
    r"(?i:(?:apt|apartment|suite|ste|unit|flat|room|rm|floor|fl|building|bldg|box|p\.?o\.?[ ]?box"
    r"|postbox)\.?[ ]?\#?[ ]?\d{1,6}[a-z]?)"
)
ZIP = (
    r"(?:\d{5}-\d{3,4}|\d{2}-\d{3}|\d{4}-\d{3}|\d{3}[ ]\d{2}|\d{4}[ ]?[A-Z]{2}|\d{3,6}"
    r"|[A-Z]{1,2}\d[A-Z\d]?[ ]?\d[A-Z]{2}|[A-Z]\d[A-Z][ ]?\d[A-Z]\d|[A-Z]\d[\dW][ ]?[A-Z\d]{4})"
)
TOWN = (
    rf"(?:{_CAPITAL}|nan)(?:[ ](?:{PARTICLE}[ ]){{0,2}}{_CAPITAL}){{0,4}}"
    rf"(?:[ ]\([{UPPER}][\w ]{{1,30}}\))?"
)
_GAP = r"[ ]?[,;|]?[ ]?\r?\n?[ ]?,?[ ]?"
_TAIL = (
    rf"(?:{_GAP}{_UNIT}\b){{0,2}}(?:,[ ]{ZIP}[ ]{TOWN})?(?:{_GAP}{TOWN}(?!\w|[ ]?:)){{0,3}}"
    rf"(?:{_GAP}{ZIP}\b)?"
)
_WORD = rf"(?:{_CAPITAL}|\d{{1,5}}|{PARTICLE})"
_BODY = rf"{_WORD}(?:[ ]{_WORD}){{0,5}}"
_HOUSE = r"(?<![\w.\-])\d{1,6}[a-zA-Z]?,?[ ](?:\d{1,5}[ ])?"
_NUMBER = r"[ ](?i:no?[.:]{1,2}[ ]?)?\d{1,5}[a-zA-Z]?\b(?:\.(?=[ ]?\n))?"
_STREET = rf"(?:{_CAPITAL}[ ]){{1,4}}{_AFTER}\b\.?"

_SAYS = r"""(?i:\baddress(?:es)?(?:[ ]is|[ ]to|:)?|\b(?:live[sd]?|located|offices?|meet(?:ing)?|stop
|deliver(?:ed)?|ship(?:ped)?|sen[dt]|return|moved|it['’]s)[ ](?:on|at|in|to|(?:you|him|her|us)[ ]at))"""

_STATE = (
    "(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]"
    "|UT|V[AT]|W[AIVY])"
)

_HOUSE_NUMBER = r"\d{1,6}[a-zA-Z]?(?:[/\-]\d{1,5}[a-z]?){0,2}(?:[ ](?:bis|ter))?"
_SMALL = (
    r"(?!(?:an?|and|at|but|by|for|from|has|he|in|is|it|of|on|or|our|she|than|the|they|to|was|we"
    r"|with|you)\b)"
    r"[^\W\d_A-Z][^\W\d_]{1,14}"
)
_SLOT = r"""(?i:\b(?:to|at|from|near|on|is|was|for|of|behind|opposite|outside|between|past|around
|towards?|via|and|find|reach|leave|visit|address|street|place|on)[ :]{1,3})"""
_AFTERWARDS = (
    rf"(?=[ ]?(?:[.,;:!?)\n]|$)|[ ](?:[{UPPER}]|(?:in|and|to|for|at|is|was|from|by|on|or|with|near|this"
    r"|last|by|that|where|after|before|today|now|than|still|as|who|which|but|so|because|until"
    r"|since|again"
    r"|please|tonight|tomorrow|has|had|have|will|would|can|came|went|yesterday|every|when|if)\b))"
)
_ABBREVIATED = r"(?i:ul|os|nám|pl|av|avda|bd|bul|al|str|cad|sok|mah|jl|pr|bld|strada|piața)\.[ ]"
_CODE_AND_TOWN = rf"(?:(?:[A-Z]{{1,2}}-)?{ZIP}[ ]{TOWN}|{TOWN},?[ ](?:[A-Z]{{2}},?[ ])?{ZIP})(?!\w)"

# (regular expression with a group `value`, score)
ADDRESSES: tuple[tuple[str, float], ...] = (
    (rf"(?P<value>{_HOUSE}(?:{_BODY}[ ])?{_AFTER}\b\.?(?:{_NUMBER})?{_TAIL})", 0.9),
    (rf"(?P<value>{_HOUSE}{_BODY}[ ]{_TITLED_AFTER}\b(?:{_NUMBER})?{_TAIL})", 0.8),
    (rf"(?P<value>{_HOUSE}(?:{_CAPITAL}[ ]){{1,2}}{_SMALL_AFTER}\b{_TAIL})", 0.6),
    (rf"(?P<value>{_HOUSE}{_BEFORE}\b\.?[ ]{_BODY}(?:{_NUMBER})?{_TAIL})", 0.9),
    (rf"(?P<value>{_HOUSE}(?:{_BODY}[ ])?{_ENDED}\b(?:{_NUMBER})?{_TAIL})", 0.9),
    (rf"(?P<value>{_HOUSE}{_BODY}{_GAP}{_UNIT}\b{_TAIL})", 0.9),
    (rf"(?P<value>(?<![\w.\-])\d{{2,6}}[a-z]?[ ]{_BODY}{_NUMBER}{_TAIL})", 0.75),
    (rf"{_SAYS}[ :]{{1,5}}(?P<value>\d{{1,6}}[a-z]?[ ]{_BODY}{_TAIL})", 0.85),
    (rf"{_SAYS}[ :]{{1,5}}(?P<value>{TOWN}{_NUMBER}{_TAIL})", 0.8),
    # What begins with a capital is looked at as a whole only where a number follows soon enough.
    (rf"(?P<value>\b(?=(?:\S{{1,60}}[ ]){{2,5}}\d){_STREET}{_NUMBER}{_TAIL})", 0.8),
    (rf"(?P<value>\b{_BEFORE}\b\.?[ ](?:{PARTICLE}[ ]){{0,2}}{_CAPITAL}(?:[ ]{_CAPITAL}){{0,3}}"
     rf"(?:{_NUMBER})?{_TAIL})", 0.7),
    (rf"(?P<value>\b(?=(?:\S{{1,60}}[ ]){{1,3}}\d)(?:{_CAPITAL}[ ]){{0,2}}{_ENDED}\b\.?{_NUMBER}"
     rf"{_TAIL})", 0.8),
    # Am Alten Speicher 4, Hinter der Mauer 12
    (rf"(?P<value>\b(?:Am|An[ ](?:de[rmn]|den)|Im|In[ ]de[rn]|Auf[ ]de[rmn]|Hinter[ ]de[rmn]"
     rf"|Zu[mr]|Vor[ ]dem"
     rf"|Unter[ ]den|Bei[ ]de[rnm]|Achter[ ](?:de|het)|Op[ ](?:de|het)|Na|Nad|Pod"
     rf"|Pri)[ ]{_CAPITAL}(?:[ ]{_CAPITAL})?"
     rf"{_NUMBER}{_TAIL})", 0.7),
    (rf"(?P<value>\b(?:{_CAPITAL}[ ]){{1,3}}(?:u\.|utca|út|útja|tér|tere|körút|köz|tänav|puiestee"
     rf"|sokak|caddesi"
     rf"|bulvarı|gatvė|iela|ulica|cesta|třída|nábřeží|gränd|väg|gata|katu|veien|vej)(?!\w))", 0.6),
    (rf"(?P<value>\b{_UNIT}\b{_TAIL})", 0.7),
    (rf"(?P<value>\b(?i:postfach|apartado|postboks|postbus|gpo[ ]box|private[ ]bag|locked[ ]bag"
     rf"|casella[ ]postale"
     rf"|case[ ]postale|boîte[ ]postale"
     rf"|skrytka[ ]pocztowa)[ ]\d{{1,6}}(?:{_GAP}{ZIP}[ ]{TOWN})?{_TAIL})", 0.85),
    (rf"(?P<value>\b(?:Trg|Ulica|Plac|Aleja|Aleje|Náměstí|Námestie|Calea|Strada|Bulevardul|Avenida"
     rf"|Calle|Rua|Praça"
     rf"|Plaza|Rue|Avenue|Boulevard|Via|Piazza|Cesta"
     rf"|Pot)[ ][^\W\d_A-Z][^\W\d_]{{1,14}}[ ]{_CAPITAL}(?:{_NUMBER})?{_TAIL})", 0.7),
    (rf"\b(?i:on|at|near|from|to|of|along|off|in)[ ](?P<value>(?:{_CAPITAL}[ ]){{1,3}}(?:Close"
     rf"|Mews|Row|Grove|Gardens|Rise"
     r"|Walk|Lane|Loop|Mall|Cove|Crescent|Parade|Quay|Wharf|Drive|Boulevard|Terrace|Highway"
     r"|Turnpike|Trail|Alley|Plaza))(?![\w])",
     0.5),
    (rf"(?P<value>(?<![\w.,:\-])\d{{2,6}},?[ ]\d{{1,5}}[a-zA-Z]?[ ](?:[Tt]he[ ])?{_CAPITAL}"
     rf"(?:[ ]{_WORD}){{0,3}}{_TAIL})"
     r"(?=[ ]?(?:[,;.\r\n]|$))", 0.6),
    (rf"(?P<value>(?<![\w.\-/])\d{{1,2}}-\d{{1,5}}-\d{{1,3}}[ ]{_CAPITAL}{_TAIL})", 0.7),
    (rf"(?P<value>\b(?:{_CAPITAL}[ ]){{1,3}}(?i:street|road|avenue|lane|drive|boulevard|square|court"
     r"|parkway|highway|gateway|crescent|terrace|st\.|rd\.|ave\.)(?!\w))", 0.6),
    (rf"(?P<value>(?:the[ ])?corner[ ]of[ ](?:[\w.]{{1,40}}[ ]){{1,6}}?and[ ]{_WORD}"
     rf"(?:[ ]{_WORD}){{0,3}}\.?)", 0.8),
    # Ships and bases of armed forces: USNS Bergman, FPO AP 93757.
    (r"(?P<value>(?i:\b(?:(?:psc|unit|cmr)[ ]\d{1,5},?[ ]box[ ]\d{1,5}|us(?:s|ns|nv|cgc|av)[ ]\w{2,30})"
     r"[ ,]{0,2}\n?[ ]?(?:[afd]po)[ ]a[aep][ ]\d{5}\b))", 0.95),
    (rf"\b(?i:zip|zip[ ]?code|postal[ ]?code|post[ ]?code)(?i:[ ](?:is|was|of|to)|[ ]?[:=?\#])?"
     rf"(?:[ ]{{0,9}}|\n)(?P<value>{ZIP})\b",
     0.9),
    (rf"\b(?i:zip|zip[ ]?code|postal[ ]?code|post[ ]?code)[ ](?i:of|for|in|at)[ ](?:the[ ])?{TOWN}"
     rf"(?i:[ ](?:is|was)|:|[ ]=)[ ]{{1,3}}(?P<value>{ZIP})\b", 0.9),
    (rf"\b(?i:(?:zip|post(?:al)?)(?:[ ]?codes?)?)[ ](?:[a-z]{{2,9}}[ ]){{0,3}}(?i:from|to|into|with)[ ]"
     rf"(?P<value>{ZIP})(?:[ ](?:to|into|with|by)[ ]{ZIP})?(?!\w)", 0.9),
    (rf"\b(?i:zip|post(?:al)?[ ]?)(?i:[ ]?codes?)?[ ](?:[a-z]{{2,9}}[ ]){{0,3}}(?i:from)[ ]{ZIP}[ ]"
     rf"(?i:to|into)[ ](?P<value>{ZIP})(?!\w)", 0.9),
    # Ulica talcev 8, Trg svobode
    (rf"(?P<value>\b(?:Ulica|Trg|Cesta|Plac|Aleja|Aleje|Náměstí|Námestie|Pot)[ ](?:(?:na|v|pod)[ ])?"
     rf"[^\W\d_A-Z][^\W\d_]{{2,14}}(?:{_NUMBER}{_TAIL})?)(?!\w)", 0.6),
    # Vytauto g. 3
    (rf"(?P<value>\b(?:{_CAPITAL}[ ]){{1,3}}(?:g|al|pr|pl|tn|str|u|ul|rkp)\.[ ]\d{{1,5}}[a-zA-Z]?"
     rf"{_TAIL})", 0.8),
    (rf"\b(?P<value>{ZIP})[ ](?=(?i:(?:is[ ])?(?:the|my|our|your|a|his|her)[ ](?:right[ ]|correct[ ]"
     r"|same[ ]|new[ ]|old[ ]|wrong[ ])?(?:zip|post(?:al)?[ ]?code))\b)", 0.8),
    (rf"\b(?i:in|serve|cover|around)[ ]the[ ](?P<value>{ZIP})[ ](?=(?i:area|zip|region|district"
     r"|postcode)\b)", 0.8),
    (rf"\b(?i:live[sd]?|living|based|located)[ ](?i:in|at|near)[ ](?P<value>{ZIP})"
     r"(?=[ ]?(?:[.,;!?)\n]|$)|[ ](?:and|but|with|now)\b)", 0.7),
    (r"(?i:\b(?:house|building|street|door|flat|apartment|apt\.?|home|suite|unit|room|box)"
     r"[ ](?:number|no\.?|nr\.?|\#)(?:[ ](?:is|was)|:)?[ ]{1,3})(?P<value>\d{1,6}[a-zA-Z]?)\b", 0.8),
    (r"(?i:\b(?:house|home|door)[ :]{1,2})(?P<value>\d{1,6}[a-zA-Z]?)(?=[ ]?[.,;!?)\n]|$)", 0.6),
    # A numbered street, with the side of the town that it is on: 38 W 43rd Street.
    (rf"(?P<value>(?<![\w.\-])\d{{1,6}}[ ](?:[NSEW]{{1,2}}\.?[ ])?\d{{1,3}}(?i:st|nd|rd|th)[ ]"
     rf"{_AFTER}\b{_TAIL})",
     0.9),
    (rf"(?P<value>(?<![\w.\-])\d{{1,6}}[ ](?:[NSEW]{{1,2}}|North|South|East|West)\.?[ ]"
     rf"{_CAPITAL}(?:[ ]{_WORD}){{0,3}}"
     rf"{_TAIL})", 0.7),
    (r"(?P<value>\b\d{1,3}-(?:chome|ch[oō]me"
     r"|cho)(?:[ -]\d{1,5}[a-z]?){0,2}(?:[ ,]{1,2}[A-Z]\w{1,30})?)",
     0.8),
    (r"(?P<value>\b[A-Z]{1,2}\d[A-Z\d]?[ ]\d[A-Z]{2}\b)", 0.8),
    (r"(?P<value>\b[A-Z]{2}[ ]\d{5}(?:-\d{4})?\b)", 0.8),
    (rf"\b(?:in|at|near|to|from)[ ](?P<value>{TOWN}[ ]{ZIP})\b", 0.6),
    (rf"(?P<value>\b{TOWN},[ ]{_STATE})(?!\w)", 0.7),
    (rf"(?P<value>\b{_ABBREVIATED}(?:(?:gen|ks|dr|św|prof|płk|kpt|Sf|Dr)\.[ ])?"
     rf"(?:{PARTICLE}[ ]){{0,2}}{_CAPITAL}(?:[ ]{_WORD}){{0,3}}"
     rf"{_NUMBER}{_TAIL})",
     0.8),
)  # fmt: skip

# What is an address by the postcode and the town behind it.
WITH_TOWNS: tuple[tuple[str, float], ...] = (
    # A street without a word for one, and below or behind it a postcode and a town.
    (rf"(?P<value>\b(?=(?:\S{{1,60}}[ ]){{1,4}}\d)(?:{_CAPITAL}[ ])(?:(?:{_WORD}|{_SMALL})[ ]){{0,3}}"
     rf"\d{{1,5}}[a-z]?,?[ \n]{{1,2}}{_CODE_AND_TOWN})", 0.7),
    (rf"(?P<value>(?<![\w.\-/]){_HOUSE_NUMBER},?[ ]{_CAPITAL}(?:[ ]{_WORD}){{0,3}},?[ \n]{{1,2}}"
     rf"{_CODE_AND_TOWN})", 0.7),
)  # fmt: skip

IN_SLOTS: tuple[tuple[str, float], ...] = (
    (rf"{_SLOT}(?P<value>{_HOUSE_NUMBER}[ ](?:{_SMALL}[ ])?{_CAPITAL}(?:[ ]{_WORD}){{0,4}})"
     rf"{_AFTERWARDS}",
     0.45),
    (rf"{_SLOT}(?P<value>(?:{_CAPITAL}[ ])(?:(?:{_WORD}|{_SMALL})[ ]){{0,3}}\d{{1,5}}[a-z]?)"
     rf"(?![.,:/\-]\d){_AFTERWARDS}", 0.45),
)  # fmt: skip
"""What is an address by the word before it alone, where it is none of what else is numbered so."""
