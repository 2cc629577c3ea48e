"""Made-up English sentences with people, streets, towns, countries and postcodes of 32 countries.

The sentences and values are our own, in no list that detection uses; no sentence stands in both halves.
A sentence holds fields, as `{person}`; which values go into it, and how an address is laid out, is drawn.
"""

# ruff: noqa: E501 (a country is a line)

from __future__ import annotations

import random
import re
from dataclasses import dataclass


@dataclass
class Place:
    """What addresses of one country are made of; `#` in a form is a digit, `?` a capital letter."""

    country: str
    towns: list[str]
    streets: list[str]  # with `§` where the number stands
    code: str
    region: str
    given: list[str]
    family: list[str]


def _place(line: str) -> Place:
    country, towns, streets, code, region, given, family = line.split(" | ")
    lists = [part.split("; ") for part in (towns, streets, given, family)]
    return Place(country, lists[0], lists[1], code, region, lists[2], lists[3])


PLACES = [_place(line) for line in """
United States | Marquette; Tuscumbia; Walla Walla; Fort Payne | § Quarry Hollow Rd; § Tallgrass Blvd; § W 43rd Street; § County Road 12; § Pinyon | ##### | OR | Delphine; Trent; Shaniqua; Wyatt | Hollingsworth; Okafor-Bell; Pruitt; McAllister
Canada | Medicine Hat; Trois-Rivières; Moose Jaw | § Rue Sainte-Ursule; § Caribou Crescent; § Concession 7 | ?#? #?# | AB | Odette; Callum | Thibodeau; Fairweather
United Kingdom | Hebden Bridge; Leighton Buzzard; Perth | § Saltmarsh Close; § The Shambles; § Upper Brook Mews; Rose Cottage, § Tanyard Hill | ??# #?? | Fife | Imogen; Alistair | Featherstonehaugh; Pickles; O'Rourke
Ireland | Ballina; Clonakilty | § Boreenmanna Road; § Cois Abhann | ?## #### | Mayo | Saoirse; Padraig | Ó Conchúir; Mulcahy
Australia | Wagga Wagga; Toowoomba | § Jacaranda Pde; § Billabong Cct | #### | NSW | Kylie; Lachlan | Thistlethwaite; Nguyen
New Zealand | Whakatane; Timaru | § Pohutukawa Tce; § Kauri Rd | #### | Otago | Aroha; Hemi | Parata; Tuhiwai
Germany | Wermelskirchen; Bad Tölz; Oschatz | Uhlandstr. §; Am Mühlbach §; Kirschblütenweg § | ##### | Hessen | Heike; Torsten | Brömmelkamp; Fuchs-Weidner
Austria | Schladming; Gmunden | Hauptplatz §; Lerchenfelder Gürtel § | #### | Tirol | Leopoldine; Xaver | Hinterleitner; Egger
Switzerland | Rapperswil; Delémont | Seestrasse §; Chemin des Vignes § | #### | VD | Reto; Solange | Zwahlen; Aebischer
France | Issoudun; Saint-Malo | § rue du Four; § bis impasse des Tilleuls; § cours Mirabeau | ##### | Bretagne | Maëlle; Thierry | Le Goff; Beauchamp
Belgium | Diksmuide; Namur | Korenlei §; Rue Haute § | #### | Hainaut | Wout; Ghislaine | Vandenbroucke; Lambrecht
Netherlands | Purmerend; Den Helder | Eikenlaan §; Oude Rijn § | #### ?? | Drenthe | Sjoerd; Femke | van der Zwaag; Hoekstra
Spain | Calatayud; Ponferrada | Calle del Olmo §; Ronda de Segovia §; Plaza Mayor § | ##### | Huesca | Nuria; Iñaki | Echeverría Soto; Bermúdez
Portugal | Covilhã; Tavira | Rua das Flores §; Av. da Boavista § | ####-### | Beira | Inês; Duarte | Figueiredo; Vasconcelos
Italy | Sulmona; Vigevano | Via Garibaldi §; Vicolo Stretto §; Piazzetta San Marco § | ##### | PV | Ludovica; Gennaro | Sbarbaro; De Santis
Greece | Ioannina; Kavala | Odos Ermou §; Tsimiski § | ### ## | Attica | Eleftheria; Stavros | Papanikolaou; Kouris
Sweden | Skövde; Örnsköldsvik | Storgatan §; Björkstigen § | ### ## | Skåne | Linnéa; Torbjörn | Hägglund; Sjöstedt
Norway | Sandnes; Lillehammer | Fjellveien §; Nedre Torggate §; Granåsen § | #### | Troms | Ragnhild; Sindre | Haugstvedt; Nygård
Denmark | Svendborg; Hjørring | Nørregade §; Lindehøj § | #### | Fyn | Mette; Asger | Kjærgaard; Skov-Lund
Finland | Mikkeli; SAVONLINNA; Seinäjoki | Mannerheimintie §; Koivurinne § | ##### | Kainuu | Aino; Veikko | Hämäläinen; Korpela
Iceland | Húsavík; Egilsstaðir | Laugavegur §; Brekkugata § | ### | Austurland | Sigríður; Þorsteinn | Jónsdóttir; Baldursson
Poland | Zielona Góra; Sieradz | ul. Polna §; Krucza §; os. Słoneczne § | ##-### | Opole | Grażyna; Zbigniew | Wróblewska; Szczepański
Czechia | Uherské Hradiště; Tábor | Lipová §; Na Příkopě §; nám. Míru § | ### ## | Zlín | Božena; Vratislav | Dvořáčková; Hruška
Slovakia | Banská Štiavnica; Levice | Hlavná §; Štúrova § | ### ## | Nitra | Zdenka; Ľuboš | Kováčik; Hronská
Hungary | Szolnok; Hódmezővásárhely | Kossuth Lajos utca §; Petőfi köz § | #### | Zala | Ilona; Béla | Szalóky; Nagy-Tóth
Romania | Târgu Mureș; Buzău | Strada Teiului §; Bd. Unirii § | ###### | Cluj | Ileana; Dragoș | Munteanu; Ciobotaru
Croatia | Varaždin; Šibenik | Gundulićeva §; Trg kralja Tomislava § | ##### | Istra | Vesna; Zvonimir | Jurić; Matošević
Slovenia | Škofja Loka; Celje | Prešernova cesta §; Mestni trg § | #### | Koper | Mojca; Blaž | Zupančič; Kranjc
Estonia | Haapsalu; RAKVERE | Pikk §; Kalda põik § | ##### | Harju | Maarja; Urmas | Kaljuste; Rebane
Turkey | Eskişehir; Bodrum | Gül Sokak §; Atatürk Caddesi No: § | ##### | Muğla | Elif; Serkan | Yıldırım; Karaca
India | Coimbatore; Jodhpur | § MG Road; §/4 Lake View Layout; Plot § Sector 22 | ###### | Kerala | Lakshmi; Harpreet | Subramanian; Chatterjee
Brazil | Ouro Preto; Blumenau | Rua Sete de Setembro, §; Alameda Santos, § | #####-### | SC | Thaís; Raimundo | Cavalcanti; dos Anjos
South Africa | Oudtshoorn; Polokwane | § Protea Ave; § Kerk St; § Voortrekker | #### | Limpopo | Nomvula; Pieter | Mthembu; van Niekerk
Japan | Kurashiki; Hakodate | 3-§-8 Honcho; 2-chome § Sakae | ###-#### | Aichi | Haruka; Kenji | Matsumura; Ogata
""".strip().splitlines()]  # fmt: skip

COMPANIES = ["Brightwater Holdings", "Kestrel & Sons", "Nordlys AS", "Pell Logistics GmbH"]
UNITS = ["Apt. #", "Suite ###", "Unit ##", "Flat #?", "Floor #", "Room ###", "Apt ###?", "#"]

# {person} {given} {family} {town} {country} {region} {code} {street} {line} {block} {number}
DEV = """
What's the weather like in {town} today?
what is the best bakery in {town}
How do I get from {town} to {town2} without a car?
My parcel to {street} never arrived.
Please send the replacement to {line}.
I moved to {town} last summer and I love it.
We're visiting {country} in May, any tips?
Is {town} worth a weekend?
{person} here, calling about my bill.
Hi, this is {given} from {town}.
Best regards,\\n{person}
Thanks!\\n\\n{person}\\n{block}
Ship to:\\n{person}\\n{block}
My new address: {line}
my old place was {street}, the new one is {street2}
I live at {street} in {town}.
Can you deliver to {street}?
Who sang that song about {town}?
There's a branch at {street}, {town}, isn't there?
The meeting with {person} is in {town} on Friday.
{person} was born in {town}, {country}.
{person} grew up in {town} and studied in {town2}.
{given} {family}'s flat is at {street}.
Please change my billing address from {street} to {street2}
MY ADDRESS IS {UPPER_line}
TO: {UPPER_person}, {UPPER_street}, {UPPER_town}
i'm {lower_person} and i live in {lower_town}
{company}\\n{block}
Our office moved to {line}; {person} has the keys.
Postcode {code}, house {number}.
The postcode is {code}.
Do you have shops in {town}, {town2} or {country}?
Is it {person} or {person2} who handles {town}?
Where: {town}\\nWho: {person}
I'd like to open an account. Name: {person}, address: {line}
{town} is lovely at this time of the year.
The taxi picked us up at {street} and took us to {street2}.
She said her name was {person}.
Did {given} tell you about {town}?
Return label\\n{person}\\n{company}\\n{block}\\n
Just landed in {UPPER_town}!
Next stop: {town}, {country}
Where is {street}?
Could you find me a plumber near {street}
The house number is {number}, the street {streetname}.
Has {person} ever been to {town}?
{company} was founded in {town} by {person}.
{town}, oh {town2}, I will see you again
Do they speak English in {country}?
{person} ({town}, {country}) won the race.
{person} moved the headquarters to {street}.
Weather {town} this weekend
{street} or {street2}, which one is closer?
{town} to {town2}: two hours by train.
I lost my wallet somewhere between {street} and {town}.
Sincerely,\\n{person}\\n{company}, {town}
My bank says that {street} is not on file.
We met {given} and {given2} at {street}.
- {person}, {town}\\n- {person2}, {town2}
Deliver to: {person}, {street}, {code} {town}, {country}
Is {street} still your address, {given}?
{UPPER_person} LIVES IN {UPPER_town}
{town} is the capital of nothing, but {country} loves it.
What time is it in {town}, {country}?
The {town} office is closed today.
We ship to {country}, {country2} and beyond.
A letter for {person} came to {street} yesterday.
It was {person} who sold the house at {street}.
My grandmother {given} still lives on {streetname}.
He works as a nurse in {town} and as a singer in {town2}.
Office: {street}\\n{town}\\n{country} {code}\\nTel. upon request
{person} | {company} | {town}
I'd rather stay at {street} than in {town}.
""".strip().splitlines()  # fmt: skip

HELD = """
Will it rain in {town} tomorrow?
any good hostels around {town}?
Flights between {town} and {town2} under 100 euros please
The courier left it at {street} by mistake.
Kindly forward my mail to {line} from now on.
Our family relocated to {country} two years ago.
How many people live in {town}?
Hello, {person} speaking.
Yours faithfully\\n{person}\\n{block}
Cheers, {given}
Deliver it here please:\\n{block}
Bill to {person}, {line}
you can find us at {street}
The concert in {town} was sold out.
Pick me up from {street} at nine
{person} wrote the lyrics and {person2} the melody.
{person} runs a small cafe in {town}.
{person}'s mother came from {country}.
I'm locked out of my flat, {street}, send somebody.
I REALLY NEED THIS DELIVERED TO {UPPER_line}
FROM {UPPER_town} TO {UPPER_town2}
hey its {lower_given}, im in {lower_town} now
{company}, {line}
Zip: {code}
What's the zip code of {street}, {town}?
Offices in {country}, {country2} and {town}.
Ask {given} whether {person2} arrived.
Applicant: {person}\\nResidence: {line}\\n
There was an accident at {street} this morning.
{town}'s old bridge is closed.
Customer {person} of {town} complains about a late parcel.
We exchanged our house at {street} for one at {street2}.
Take me to {street}
Which bus goes to {streetname}?
Welcome to {town}, {region}!
Name: {UPPER_person}\\nTown: {UPPER_town}\\nCountry: {country}\\n
Has anybody been to {country} lately?
Sent from {town} by {person}
Are you open on Sundays at {street}?
I used to work for {company} at {street}.
My landlord {person} lives abroad, in {town}.
The nearest station to {line} is ten minutes away.
""".strip().splitlines()  # fmt: skip

HALVES = {"dev": DEV, "held": HELD}
_FIELD = re.compile(r"\{(UPPER_|lower_)?([a-z]+?)(2?)\}")
KINDS = {
    "person": "person", "given": "person", "family": "person", "town": "place",
    "country": "place", "region": "place", "code": "code", "number": "address",
    "company": "company",
}  # fmt: skip
Span = tuple[int, int, str, str]


def _digits(form: str, draw: random.Random) -> str:
    form = re.sub("#", lambda _: str(draw.randrange(1, 10)), form)
    return re.sub(r"\?", lambda _: draw.choice("ABCEGHKLMNPRSTVWX"), form)


def _number(draw: random.Random) -> str:
    whole = str(draw.choice([draw.randrange(1, 100), draw.randrange(100, 9_999)]))
    return whole + draw.choice(["", "", "", "", draw.choice("abc")])


def _street(place: Place, draw: random.Random) -> str:
    street = draw.choice(place.streets).replace("§", _number(draw), 1)
    if draw.random() < 0.2:
        return f"{street}{draw.choice([', ', ' '])}{_digits(draw.choice(UNITS[:-1]), draw)}"
    return street


def _line(place: Place, draw: random.Random) -> str:
    street, town, code = _street(place, draw), draw.choice(place.towns), _digits(place.code, draw)
    if draw.random() < 0.1:
        street = (
            f"{draw.choice(['P.O. Box', 'PO Box', 'Postfach', 'BP'])} {draw.randrange(10, 9999)}"
        )
    return draw.choice([
        f"{street}, {town}",
        f"{street}, {code} {town}",
        f"{street}, {town} {code}",
        f"{street}, {town}, {place.region} {code}",
        f"{street}, {code} {town}, {place.country}",
        f"{street}, {town} {code}, {place.country}",
        f"{street} {town} {place.country} {code}",
        f"{street} {code} {town}",
    ])  # fmt: skip


def _block(place: Place, draw: random.Random) -> str:
    parts = [_street(place, draw)]
    if draw.random() < 0.3:
        parts.append(_digits(draw.choice(UNITS[:-1]), draw))
    town, code = draw.choice(place.towns), _digits(place.code, draw)
    if draw.random() < 0.25:
        town = town.upper()
    parts += draw.choice([
        [f"{code} {town}"], [f"{town} {code}"], [town, code], [f"{town}, {place.region}", code],
        [f"{town}, {place.region} {code}"], [f"{place.country[:2].upper()}-{code} {town}"],
    ])  # fmt: skip
    if draw.random() < 0.6:
        parts.append(place.country)
    return draw.choice(["\n", "\n", "\n ", ",\n"]).join(parts)


def _person(place: Place, draw: random.Random) -> str:
    given, family = draw.choice(place.given), draw.choice(place.family)
    middle = draw.choice("ABDEHJKLMRSTW")
    return draw.choice([
        f"{given} {family}", f"{given} {family}", f"{given} {middle}. {family}",
        f"{given[0]}. {family}", f"{draw.choice(['Mr', 'Mrs.', 'Dr.', 'Ms.'])} {family}",
        f"{family}, {given}",
    ])  # fmt: skip


def _value(name: str, place: Place, draw: random.Random) -> str:
    match name:
        case "person":
            return _person(place, draw)
        case "given" | "family":
            return draw.choice(place.given if name == "given" else place.family)
        case "town":
            return draw.choice(place.towns)
        case "country" | "region":
            return place.country if name == "country" else place.region
        case "code":
            return _digits(place.code, draw)
        case "number":
            return _number(draw)
        case "street":
            return _street(place, draw)
        case "streetname":
            return re.sub(r"[ ,]*(?:No: )?§(?:/4)?", "", draw.choice(place.streets)).strip()
        case "line":
            return _line(place, draw)
        case "block":
            return _block(place, draw)
    return draw.choice(COMPANIES)


def texts(half: str, each: int, seed: int = 11) -> list[tuple[str, list[Span]]]:
    """`each` texts of every sentence of a half, with where its private values stand, and of what kind."""
    draw = random.Random(f"{half} {seed}")
    found = []
    for template in HALVES[half]:
        template = template.replace("\\n", "\n")
        for _ in range(each):
            places = draw.sample(PLACES, 2)
            text, at, spans = "", 0, list[Span]()
            for field in _FIELD.finditer(template):
                case, name, second = field.groups()
                value = _value(name, places[bool(second)], draw)
                value = {"UPPER_": value.upper(), "lower_": value.lower()}.get(case or "", value)
                text += template[at : field.start()]
                spans.append((len(text), len(text) + len(value), KINDS.get(name, "address"), value))
                text += value
                at = field.end()
            found.append((text + template[at:], spans))
    return found
