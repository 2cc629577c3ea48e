"""More made-up English sentences, of other kinds and layouts than those of `address_texts.py`.

The sentences are our own. The first half draws its values from the training split of `presidio_synth`
and the places of `address_texts.py`; the second half has places and people of its own, which stand
nowhere else. Every part of an address is a value by itself: a number, a street, a flat, a town, a code.
"""

# ruff: noqa: E501 (a country is a line)

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from address_texts import PLACES, UNITS, Place, Span, _digits, _place, _value

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "presidio_synth"

OTHERS = [_place(line) for line in """
United States | Tonkawa; Ely; Chagrin Falls; Sault Ste. Marie; Yreka | § Whippoorwill Ln; § Old Mill Trace; § NE 9th Ave; § Sassafras; § Farm to Market Rd 1092; § Cutlass Cove | ##### | ID | Tamika; Brock; Rosalinda; Otis | Vanderhoof; Quiñones; Ledbetter; O'Shaughnessy
Canada | Kapuskasing; Baie-Comeau; Yellowknife | § Chemin du Lac-Vert; § Muskeg Dr; § Portage Rang 4 | ?#? #?# | NT | Étienne; Maude | Robitaille; Wojtowicz
United Kingdom | Bishop's Stortford; Aberystwyth; Looe; KIRKCALDY | § Tentercroft; § Gasworks Yard; The Old Rectory, § Cuckoo Rise; § Maes y Coed | ??# #?? | Powys | Gwyneth; Rupert | Llewellyn-Jones; Ramsbottom; Cholmondeley
Ireland | Skibbereen; Dún Laoghaire | § Páirc na gCrann; § Sráid na Trá; § Monkstown Avenue | ?## #### | Kerry | Caoimhe; Eoghan | Ní Dhomhnaill; Heffernan
Australia | Coober Pedy; Ulladulla; BURNIE | § Wattlebird Ct; § Ti Tree Esp; § Kookaburra Grange | #### | TAS | Bronte; Darcy | Wainwright; Papadakis
New Zealand | Paekākāriki; Ōamaru | § Tūī Street; § Harakeke Rise | #### | Waikato | Mere; Callum | Ngata; Hutchison
Germany | Quedlinburg; Garmisch-Partenkirchen; Aurich | Am Alten Speicher §; Goethestr. §; Hinter der Mauer §; Lohmühle § | ##### | Sachsen | Gudrun; Malte | Wiedenhöft; Schmalzried
Austria | Bludenz; Zwettl | Stiftgasse §; Obere Hauptstraße §; Anger § | #### | Kärnten | Ottilie; Valentin | Pichler; Wurzinger
Switzerland | Burgdorf; Yverdon-les-Bains; Mendrisio | Schlossweg §; Rue de la Plaine §; Via Campagna § | #### | TI | Urs; Fabienne | Bächtold; Cattaneo
France | Pézenas; Le Puy-en-Velay; CONCARNEAU | § allée des Mimosas; § ter rue Pasteur; § quai des Brumes; Lieu-dit Kervoal § | ##### | Aquitaine | Apolline; Fabrice | Quéméner; Delacourt
Belgium | Oudenaarde; Huy; Eupen | Brugsestraat §; Rue du Moulin §; Kaai § | #### | Liège | Lore; Ludovic | Claeys; Dewulf
Netherlands | Enkhuizen; 's-Hertogenbosch; Sneek | Dorpsstraat §; Achter de Kerk §; Molendijk § | #### ?? | Zeeland | Jelle; Marloes | de Bruijn; Wiersma; ter Horst
Spain | Almendralejo; Sitges; LUGO | Calle Real §; Av. de la Constitución §; Travesía del Pozo §, 2º B; Pza. España § | ##### | Cádiz | Amparo; Gonzalo | Urrutia Vidal; Cifuentes
Portugal | Lamego; Vila Real de Santo António | Rua do Alecrim §; Largo da Sé §; Tv. das Mercês § | ####-### | Minho | Filipa; Gaspar | Saldanha; Quintela
Italy | Civitavecchia; Bressanone; MATERA | Via dei Mille §; Corso Umberto I §; Strada Vecchia § | ##### | TN | Ornella; Saverio | Quattrocchi; Della Valle
Greece | Nafplio; Kalamata | Leoforos Nikis §; Agiou Dimitriou §; Λεωφόρος Κηφισίας § | ### ## | Crete | Despina; Thanasis | Mavridis; Karagianni
Sweden | Ängelholm; MORA; Kiruna | Kungsgatan §; Sjövägen §; Ekbacken § | ### ## | Dalarna | Gunilla; Viggo | Rosengren; Bjurström
Norway | Røros; HAUGESUND; Alta | Kirkegata §; Solbergveien §; Nordre Kai §; Bekkefaret § | #### | Nordland | Solveig; Håkon | Tveit; Brekke-Lien
Denmark | Ærøskøbing; HORSENS; Ribe | Algade §; Skovbrynet §; Møllevangen § | #### | Jylland | Birgitte; Troels | Østergaard; Bang
Finland | Rovaniemi; HAMINA; Jämsä | Kauppakatu §; Rantatie §; Lehmuspolku § | ##### | Lappi | Tuulikki; Pentti | Mäkelä; Rautiainen
Iceland | Siglufjörður; Vík | Hafnargata §; Bláskógar §; Hólavegur § | ### | Vesturland | Guðrún; Hallgrímur | Einarsdóttir; Ketilsson
Poland | Sandomierz; Bielsko-Biała; ŁOMŻA | ul. Kwiatowa §; al. Niepodległości §; Rynek §; Szeroka § | ##-### | Śląsk | Jadwiga; Przemysław | Ciećwierz; Nowak-Lis
Czechia | Český Krumlov; Znojmo | Husova §; Nad Řekou §; Sadová § | ### ## | Vysočina | Ludmila; Radim | Němcová; Zikmund
Slovakia | Bardejov; Spišská Nová Ves | Mlynská §; Námestie SNP § | ### ## | Šariš | Katarína; Matúš | Gajdoš; Uhríková
Hungary | Kecskemét; Sopron | Rákóczi út §; Ady Endre tér §; Akácfa utca § | #### | Heves | Zsuzsanna; Gergő | Bartók; Kelemen
Romania | Sighișoara; Piatra Neamț | Str. Mihai Viteazu §; Aleea Rozelor §; Calea Moldovei § | ###### | Iași | Ruxandra; Costel | Dumitrescu; Ghiță
Croatia | Karlovac; Makarska | Ulica kneza Domagoja §; Obala §; Zadarska § | ##### | Lika | Tihana; Krešimir | Babić; Perković
Slovenia | Ptuj; Novo Mesto | Slomškova §; Ulica heroja Staneta §; Pot v gozd § | #### | Gorica | Neža; Rok | Hribar; Oblak
Estonia | Viljandi; KURESSAARE | Lai §; Ranna tee §; Veski § | ##### | Saare | Kadri; Tõnu | Tammsaare; Kask
Latvia | Cēsis; Liepāja | Brīvības iela §; Ozolu iela § | LV-#### | Kurzeme | Ilze; Gatis | Bērziņš; Ozoliņa
Lithuania | Šiauliai; Trakai | Vytauto g. §; Laisvės al. § | LT-##### | Alytus | Rasa; Mindaugas | Kazlauskas; Petraitytė
Turkey | Kütahya; Fethiye | Lale Sokak §; Cumhuriyet Cad. No: § | ##### | Rize | Zeynep; Onur | Demirtaş; Aksoy
India | Ratnagiri; Shillong | § Station Road; H.No. § Anna Nagar; §, 2nd Cross, Gandhi Nagar | ###### | Assam | Meenakshi; Arjun | Deshpande; Bhattacharya
Brazil | Petrópolis; Joinville | Rua XV de Novembro, §; Av. Brasil, §; Travessa do Ouvidor, § | #####-### | PR | Jussara; Otávio | Guimarães; da Cunha
Mexico | Taxco; Guanajuato | Calle 5 de Mayo §; Privada Hidalgo §; Calz. de Tlalpan § | ##### | Jalisco | Guadalupe; Emiliano | Zavala Ríos; Cuauhtémoc
South Africa | Graaff-Reinet; Mbombela | § Jakaranda St; § Kloof Rd; § Rissik | #### | Gauteng | Thandiwe; Riaan | Dlamini; Swanepoel
Japan | Matsue; Nagaoka | 5-§-2 Midori; 4-chome § Asahi | ###-#### | Chiba | Sakura; Takumi | Kobayashi; Hirano
Kenya | Nakuru; Malindi | § Moi Avenue; § Biashara St | ##### | Kisumu | Wanjiku; Kipchoge | Odhiambo; Mwangi
Vietnam | Hội An; Vinh | § Lê Lợi; § Nguyễn Huệ | ###### | Huế | Thị Lan; Quang | Trần; Phạm
China | Suzhou; Xiamen | No. § Zhongshan Road; Room ### § Jiefang Lu | ###### | Fujian | Xiaoling; Jianguo | Zhang; Ouyang
Cyprus | Paralimni; Λάρνακα | § Makariou Ave; § Griva Digeni Street | #### | Troodos | Androulla; Kyriakos | Hadjigeorgiou; Ioannou
""".strip().splitlines()]  # fmt: skip

_COMPANIES = {
    "wide": [
        "Halden-Ruiz",
        "Marrow & Pike LLP",
        "Sollberg, Tenney and Cruz",
        "Brindlecorp",
        "Osprey Data Inc",
    ],
    "wide_held": [
        "Quill-Farraday",
        "Ashgrove Partners",
        "Tamsin, Loe and Briggs",
        "Vexilla",
        "Norrland Tools AB",
    ],
}
_TITLES = ["Mr.", "Mrs.", "Ms.", "Dr.", "Miss", "Mr", "Prof."]
_JOBS = [
    "Sales manager",
    "Dental hygienist",
    "Crane operator",
    "Paralegal",
    "Bookbinder",
    "Head of Claims",
]
_DEMONYMS = ["Norwegian", "Chilean", "Estonian", "Kenyan", "Portuguese", "Vietnamese"]

# {person} {given} {family} {town} {country} {code} {street} {road} {number} {unit} and the layouts of
# whole addresses: {line} {rows} {odd} {box}; not private: {company} {job} {demonym} {title}
WIDE = """
{title} {family} flew to {town} this morning.
{given} is from {town}.
I'm originally from {country}
I grew up in {town}, can't say I miss it.
{town} is where I was born.
we went back to {town} by ferry
He comes from {town}, doesn't he?
Moved from {town} to {town2} in 2011.
Back in {country}, {given} had a bakery.
They are flying {person} to {town} next week.
{given} lives on {street} street.
{given} lives on {road}
Our address is {street}.
Turn left at {street}, then it's the third door.
The corner of {road} and {road2}, please
Drop me off between {road} and {road2}
Meet at {number} {street}, {town}
I will be at {number} {street} until noon.
{rows}
{person}\\n\\n{rows}
{person}\\n{company}\\n{rows}
{person}\\n{job}\\n{company}\\n{rows}
{title} {person}\\n{rows}\\n{code}
{company}\\n{odd}
{person}, {odd}
{odd}
Here is where I live: {odd}
my addresses: {odd}, and {odd2}
Please return to {odd} in case of an issue.
Please return this to {street} if found
Name: {person}\\nAddress: {odd}
Name:     {person}\\nStreet:     {number} {street}\\nCity:     {town}\\nCountry:   {country}
billing: {odd}\\nshipping: {odd2}
We'll meet Monday at {company}, {number} {street}, {town}
I'll see you at {odd} after the match.
It's in {rows}
Cool, where is it? {odd}
What's your address? {odd}
And your city? {town}
ZIP? {code}
zip: {code}
My ZIP code is {code}
{town}
{street}
{box}
Send the cheque to {box}
{person}\\n{box}
Our offices: {box}
What's your last name? {family}
Full name? {person}
My name is {given}
I am {person}
Call me {given}.
She named him {given}
{given}, {given2} and {person} are our founders.
We hired four people: {given}, {given2}, {family} and {family2}.
{person} and {person2} argued all evening.
{given} shouted at {family}: "Stop it!"
"Nobody told me," says {family}.
"{country} will vote in June," said {person}.
A tribute to {person} – sadly no one came.
The {demonym} police arrested singer {person} over taxes.
{company} songwriter {person} wrote the hymn.
{person} from {company} is the keynote speaker
{family} spent a year in {town} as an assistant to {person2}.
I want to remove my son {given} from the policy. How?
Please correct the name on the card to {title} {person}
Hi {given}, I'm writing about a transfer.
hey {lower_given} did you see {lower_family}?
{lower_person} recorded it in {lower_town}
the {lower_person} version was better
i used to live in {lower_town} with {lower_given}
{lower_given} moved to {lower_country}
we came back from {lower_town} by car
How much is a train to {lower_town}?
The true age of {given} is unknown.
When: 2019-03-02 11:00\\nWhere: {town} Tennis Club.
When: tomorrow\\nWhere: {town}
Can {family} take over the file of {family2}?
Best,\\n{given}
{person} ({family2}'s lawyer) called twice.
The {family} Foundation paid for it.
The winner is {UPPER_person} of {UPPER_town}
{UPPER_odd}
TO {UPPER_rows}
{person}; {odd}
Deliver to {company}, {unit}, {street}, {town}
{unit}, {number} {street}\\n{town} {code}
{street} {unit}\\n{code} {town}
{person}\\nc/o {person2}\\n{street}\\n{code} {town}
Is {town} in {country} or in {country2}?
Our warehouse in {town} burnt down.
{town} police found the car on {road}.
There are three hotels on {road}.
The flat on {street} is empty since {given} left.
I was at {road} when it happened
His passport says {country}, his accent says {country2}.
{given}'s parents, {given2} and {family2}, live near {town}.
Tell {given} that {street2} is closed
Ticket for {town}, one way
{number} {street}
From {street} it's a short walk to {street2}.
The old owner of {street} was {person}.
{person}\\n{number} {street}\\n{unit}\\n{town}\\n{country} {code}\\n{phone}-Work,{phone2}-Home
{person}\\n{job}\\n{number} {street} {unit}\\n{town} {code}\\nM: {phone}\\n{mail}
{title} {person} {unit} {number} {street}\\n{town} {code}
{company}\\n{number} {street}\\n{town}, {country}\\n{phone}
{mail}\\n{rows}
{person}\\n{rows}\\n{phone} (evenings)\\n{mail}
{number} {street}\\n{unit}\\n{town}\\n{code} {country}
{company} - {job}\\n{person}\\n{number} {street}, {unit}\\n{town} - {country} {code}\\n{mail} | {phone}
{person}\\n\\n{number} {street}\\n {unit}\\n {town}\\n {country} {code}
""".strip().splitlines()  # fmt: skip

WIDE_HELD = """
Last winter {title} {family} drove to {town}.
{given} comes from {town}
Originally I come from {country}.
My brother was raised in {town}.
{town} was our home for ten years.
She returned to {town} on the night train
From {town} we moved on to {town2}.
{given} sold the farm in {country}.
{given} lives in {street}.
You'll find the office on {road}.
Our new office is {street}.
at the crossing of {road} and {road2}
Let's meet at {company}, {street}
{person}\\n{rows}
{person}\\n{job}, {company}\\n{rows}
{company}\\n{person}\\n{odd}
{odd}\\n
Address: {odd}
Where should we send it? {odd}
I have two homes, {odd} and {odd2}.
Found a wallet. Owner: {person}, {odd}.
Full name: {person}\\nLives at: {odd}\\n
Ship it to {rows}
I'm staying at {odd} until Sunday.
In which city? {town}
Postal code? {code}
postcode: {code}
the zip is {code} I think
{box}
Please write to {box}.
{given}? {family}? Nobody answered.
Your surname, please. {family}
I'm {given}.
They named the baby {given}
Guests: {given}, {given2}, {family} and {person2}.
{family} yelled at {given}: "Come back!"
"That is not true," {family} says.
"{country} is changing," {person} said.
In memory of {person} – a great teacher
A {demonym} court sentenced drummer {person} to a fine.
The keynote is by {person} of {company}.
Could you take my daughter {given} off the account?
The card should read {title} {person}
Hello {given}, about the invoice:
yo {lower_given}, seen {lower_person} lately?
{lower_person} sang it live in {lower_town}
my cousin lives in {lower_town} now
{lower_given} works in {lower_country}
we took the bus to {lower_town}
Date: 2021-10-09\\nPlace: {town} Golf Course.
Kind regards\\n{given}
{UPPER_person} FROM {UPPER_town}
{UPPER_odd}
{UPPER_person}\\n{UPPER_rows}
{company}, {unit}, {number} {street}, {town}
{unit}\\n{street}\\n{town} {code}
{street}\\n{unit}\\n{code} {town}\\n{country}
{person}\\ncare of {family2}\\n{street}\\n{code} {town}
How far is {town} from {town2}?
The factory in {town} is closing.
Someone was seen on {road} last night.
My house on {street} was sold by {given}.
A one-way fare to {town} please
{number} {street}, {town}
Walk from {street} to {street2}.
{person} used to own {street}.
The keys of {street} are with {person}.
{town}, {country}
{person}\\n{job}\\n{number} {street}\\n{unit}\\n{town}\\n{code} {country}\\n{phone} mobile
{company}\\n{number} {street} {unit}\\n{town}\\n{country}\\n{code}\\nFax {phone}
{person}, {job}\\n{rows}\\n{mail}\\n{phone}
{mail}\\n{number} {street}\\n {town}\\n {country} {code}
{given} {family}\\n{unit}\\n{number} {street}\\n{town}\\n{code}
Thanks, {title} {family}\n{unit} {number} {street}\n{code} {town}
Office {phone}\n{number} {street}\n{unit}\n{town}, {country} {code}
""".strip().splitlines()  # fmt: skip

HALVES = {"wide": WIDE, "wide_held": WIDE_HELD}
_FIELD = re.compile(r"\{(UPPER_|lower_)?([a-z]+?)(2?)\}")
_PHONES = ["+4# ### ######", "(###) ###-####", "0##-#######", "###.###.####", "0#### ######"]
_MAILS = ["office##@example.org", "q.###@mail.example.com"]
_NOT_PRIVATE = ("company", "job", "demonym", "title")
Piece = tuple[str, str]
"""What stands there, and of which kind it is; without a kind it is none of the values."""


@dataclass
class Source:
    """What values are drawn from, by their kind."""

    draw: random.Random
    companies: Sequence[str]
    of: Callable[[str], str]

    def pick(self, some: Sequence[str]) -> str:
        return self.draw.choice(some)


def _own(places: Sequence[Place], draw: random.Random) -> Callable[[str], str]:
    place = draw.choice(places)
    return lambda name: (
        _value("streetname", place, draw) if name == "road" else _value(name, place, draw)
    )


def _gold() -> dict[str, list[str]]:
    """The values of the training split, by what they are."""
    found: dict[str, set[str]] = {}
    for line in (DATA / "train.jsonl").read_text("utf-8").splitlines():
        for *_, kind, value in json.loads(line)["spans"]:
            found.setdefault(kind, set()).add(value)
    one_line = sorted(v for v in found["STREET_ADDRESS"] if "\n" not in v and len(v) < 40)
    streets = [
        v for v in one_line
        if re.search(r"[^\W\d]{3}", v) and not re.search(r"(?i)\b(?:suite|apt|box|corner|and|[afd]po)\b|,", v)
    ]  # fmt: skip
    people = sorted(found["PERSON"])
    towns = sorted(v for v in found["GPE"] if len(v) > 3 and not v.islower())
    countries = {"Italy", "New Zealand", "Brazil", "Sweden", "Norway", "Hungary", "Cyprus", "Spain",
                 "Finland", "Canada", "Belgium", "Iceland", "Germany", "Denmark", "Portugal"}  # fmt: skip
    return {
        "street": streets,
        "road": sorted({re.sub(r"^\d+\w? |[ ,]*\d+\w?\.?$", "", s) for s in streets}),
        "town": [t for t in towns if t not in countries],
        "country": sorted(countries & set(towns)),
        "person": [p for p in people if " " in p and not p.islower()],
        "given": [p for p in people if " " not in p and not p.islower()],
        "family": [p.split()[-1] for p in people if " " in p and not p.islower()],
        "code": sorted(found["ZIP_CODE"]),
    }


def _drawn(gold: dict[str, list[str]], draw: random.Random) -> Callable[[str], str]:
    place = draw.choice(PLACES)
    return lambda name: draw.choice(gold[name]) if name in gold else _value(name, place, draw)


def _parts(source: Source) -> list[list[Piece]]:
    """The rows of one address, each of pieces that stand beside one another."""
    draw, of = source.draw, source.of
    street: list[Piece] = [(of("street"), "address")]
    if draw.random() < 0.4:
        number = _digits("#" * draw.randrange(2, 6), draw)
        street = [(draw.choice(["0", ""]) + number, "address"), *street]
    unit: list[Piece] = [(_digits(draw.choice(UNITS[:-1]), draw), "address")]
    code: Piece = (of("code"), "code")
    town: Piece = (of("town"), "place")
    region: Piece = (draw.choice(["nan", "PA", "MQ", "13", of("region")]), "")
    country: Piece = (of("country"), "place")
    rows = [street]
    if draw.random() < 0.4:
        rows = [[*street, *unit]] if draw.random() < 0.5 else [street, unit]
    rows += draw.choice([
        [[town], [country, code]], [[town, code]], [[code, town]], [[code, town], [country]],
        [[town], [code], [country]], [[town], [country]], [[town, region, code]],
        [[town], [region], [code]], [[town], [region], [country, code]], [[town, region]], [[town]],
        [[code], [town]],
    ])  # fmt: skip
    return rows


def _laid(source: Source, name: str) -> list[Piece]:
    """An address in one of many layouts."""
    rows = _parts(source)
    if name == "rows":
        between = source.pick(["\n", "\n", "\n ", ",\n", "\n, ", " \n"])
        within = source.pick([" ", " ", ", "])
    else:
        between = source.pick(
            [" ", ", ", "\n", "\n ", "\n, ", ",\n", ", ", "; ", " - ", " / ", "\r\n"]
        )
        within = source.pick([" ", ", "])
    pieces: list[Piece] = []
    for row in rows:
        for number, piece in enumerate(row):
            if pieces:
                pieces.append((within if number else between, ""))
            pieces.append(piece)
    return pieces


def _box(source: Source) -> list[Piece]:
    draw, of = source.draw, source.of
    digits = [_digits("#" * n, draw) for n in (4, 4, 5)]
    form = draw.choice([
        "PO Box {0}, {town} {code}", "P.O. Box {0}\n{town}, {code}", "PSC {0}, Box {1}\nAPO AE {2}",
        "Unit {0} Box {1}\nDPO AP {2}", "USNS {family}\nFPO AA {2}", "Postfach {0}, {code} {town}",
        "BP {0}, {code} {town}", "CMR {0} Box {1}, APO AE {2}", "Apartado {0}\n{code} {town}",
        "Private Bag {0}, {town} {code}", "GPO Box {0}, {town} {code}", "USS {family}, FPO AP {2}",
        "Locked Bag {0}\n{town} {code}", "Box {0}, {town}", "Postboks {0}, {code} {town}",
    ])  # fmt: skip
    return [
        (form.format(*digits, town=of("town"), code=of("code"), family=of("family")), "address")
    ]


_KINDS = {"person": "person", "given": "person", "family": "person", "town": "place",
          "country": "place", "region": "place", "code": "code"}  # fmt: skip


def _pieces(name: str, half: str, source: Source) -> list[Piece]:
    match name:
        case "rows" | "odd" | "line":
            return _laid(source, name)
        case "box":
            return _box(source)
        case "unit":
            return [(_digits(source.pick(UNITS[:-1]), source.draw), "address")]
        case "phone" | "mail":
            form = source.pick(_PHONES if name == "phone" else _MAILS)
            return [(_digits(form, source.draw), "contact")]
        case "number":
            return [(_digits("#" * source.draw.randrange(2, 6), source.draw), "address")]
        case "company":
            return [(source.pick(_COMPANIES[half]), "")]
        case "job" | "title" | "demonym":
            lists = {"job": _JOBS, "title": _TITLES, "demonym": _DEMONYMS}
            return [(source.pick(lists[name]), "")]
    return [(source.of(name), _KINDS.get(name, "address"))]


def texts(half: str, each: int, seed: int = 11) -> list[tuple[str, list[Span]]]:
    """`each` texts of every sentence of a half, with where its private values stand, and of what kind.

    Spans of kind "company" cover words that are no value and that nobody minds to see hidden.
    """
    draw = random.Random(f"{half} {seed}")
    gold = _gold() if half == "wide" else {}
    found = []
    for template in HALVES[half]:
        template = template.replace("\\n", "\n")
        for _ in range(each):
            sources = [
                Source(
                    draw,
                    _COMPANIES[half],
                    _drawn(gold, draw) if gold else _own(OTHERS, draw),
                )
                for _ in range(2)
            ]
            text, at, spans = "", 0, list[Span]()
            for field in _FIELD.finditer(template):
                case, name, second = field.groups()
                text += template[at : field.start()]
                for value, kind in _pieces(name, half, sources[bool(second)]):
                    value = {"UPPER_": value.upper(), "lower_": value.lower()}.get(
                        case or "", value
                    )
                    if value.strip(" \n\r,;/-") and (kind or name in _NOT_PRIVATE):
                        spans.append((len(text), len(text) + len(value), kind or "company", value))
                    elif value.strip(" \n\r,;/-"):
                        spans.append((len(text), len(text) + len(value), "company", value))
                    text += value
                at = field.end()
            found.append((text + template[at:], spans))
    return found
