"""Lists of ordinary words: where each applies, its words are not taken for names or values."""

from __future__ import annotations


def _of(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words of questions and of SQL: never values by their capital letter or by standing in a cell alone.
OF_QUESTIONS = _of("""
a an the of in on at to for from by with and or not but as is are was were be been has have had
do does did what which who whom whose when where why how many much show list give return find
get tell me us provide display count compute calculate determine identify report output include
exclude consider assume note use using all any each every per both either neither only also then
than that this these those there their its it his her he she they we you your our my i top
bottom most least more less fewer highest lowest largest smallest maximum minimum max min total
sum average avg mean median number amount distinct unique different same first last next
previous past current recent latest earliest today yesterday tomorrow now day days week weeks
month months year years hour hours minute minutes second seconds date dates time times between
before after since until during within over under above below about inclusive exclusive
including excluding order ordered sort sorted group grouped ascending descending asc desc limit
id ids name names sql sqlite null none true false yes no select join case like iso utc ytd mom
yoy can could will would should may might must please if else per-user out off up down again
still other another such one zero letter letters value values column columns table tables row
rows record records result results data percent percentage ratio rate rank ranking type types
status made make makes monday tuesday wednesday thursday friday saturday sunday weekday weekend
weekends unix datetime timestamp yyyy mm dd hh ss
""")

# Words that follow "my name", "I am", "call" … and are no names.
NOT_NAMES = _of("""
mr mrs ms mx dr prof professor herr frau monsieur madame mme señor señora signor signora
a an the not in on at to for from by with of and or but so if is am are was were be been it this
that these those there here my your his her our their its i you he she we they me him us them
who what when where why how very really just also still sorry glad happy sad afraid sure trying
looking going having writing calling working using getting interested new old big small good bad
fine ok okay well back home out up down off over now then today tomorrow yesterday again all any
some no none more most much many few one two three about account card number name first last
please thanks thank appears incorrectly everyone everybody team sir madam support customer
service details after before because as than cambodian american german french english unemployed
allergic unable able done ready late early would could should can will may might must do does
did has have had being who's whose which wrong correct right spelled written required missing
listed changed called named known used made said says years year day days week month married
single pregnant located born based coming concerned contacting tired worried curious considering
planning currently always never only even both each every another other such same own too quite
rather almost already yet
""")
