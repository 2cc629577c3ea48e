"""Made-up records: 18 kinds of private value beside as many that are not, as clients write them.

The generator was written before any detection was changed for it, and what it draws from is nobody's
list but its own. `dev` and `test` share no name, no header that stands in no list, and no template.

A table has columns of both sorts in mixed order. Its columns are called what the field calls them, or
something that stands in no list, or nothing. `Form.write` makes a text of it and `Form.read` takes it
apart again, so that a cell that was changed, a key that was, or a form that no longer holds are found.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree
from xml.sax.saxutils import escape

Value = str | int | float
Split = Literal["dev", "test"]
Named = Literal["known", "unlisted", "none"]


def _words(text: str) -> list[str]:
    return text.split()


_GIVEN = {
    "dev": _words(
        """Maud Ottokar Linnea Bastian Yasmin Corwin Delphine Anselm Priyanka Tobias
        Rosalind Emeka Svetlana Hugo Ingrid Mateo Saoirse Farid Bettina Kenji
        Wilhelmina Darius Agnieszka Leopold"""
    ),
    "test": _words(
        """Hedwig Cosmo Annika Balthazar Leila Quentin Mirabel Gunther Ananya Florian
        Imogen Chidi Ludmila Caspar Solveig Joaquin Niamh Karim Sieglinde Haruki
        Philippa Cyrus Malgorzata Reinhold"""
    ),
}
_FAMILY = {
    "dev": _words(
        """Vandenberghe Okonkwo Thistlewood Marchetti Lindqvist Abernathy Kowalczyk
        Ferreira Nakagawa Brandstetter Ashgrove Petrosyan Haverkamp Delacroix
        Rasmussen Oyelaran Whitcombe Zielinski Quintero Sandoval"""
    ),
    "test": _words(
        """Verhoeven Adeyemi Featherstone Bellini Sjoberg Carrington Wojcik Carvalho
        Fujimoto Obermeier Wakefield Grigoryan Timmermans Beaumont Kristoffersen
        Achebe Ravenscroft Nowicki Escobedo Montalvo"""
    ),
}
_STREETS = {
    "dev": _words("Larkspur Alderney Foxhollow Wintergreen Cobbler Marigold Harbinger Tannery"),
    "test": _words("Juniper Saltmarsh Owlswick Cinnamon Weaver Primrose Lanternfish Brewery"),
}
_WAYS = {
    "dev": _words("Lane Road Court Avenue"),
    "test": _words("Street Drive Close Terrace"),
}
_TOWNS = {
    "dev": _words("Millbrook Eastham Norwood Karlsfeld Bergum"),
    "test": _words("Ashford Westbury Oakdale Ravensburg Dokkum"),
}
_UNLISTED = {
    "dev": _words("fld kol attr spalte_ campo"),
    "test": _words("col_ v_ item rubrik_ dato"),
}


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def _letters(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(count))


def _luhn(digits: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (2 - place % 2)
        total += number - 9 * (number > 9)
    return digits + str(-total % 10)


def _iban(rng: random.Random) -> str:
    account = _digits(rng, 18)
    check = 98 - int(account + "131400") % 97  # D = 13, E = 14
    return f"DE{check:02}{account}"


Draw = Callable[[random.Random, Split], Value]


def _name(r: random.Random, s: Split) -> str:
    return f"{r.choice(_GIVEN[s])} {r.choice(_FAMILY[s])}"


def _email(r: random.Random, s: Split) -> str:
    host = r.choice(("mailbox", "post", "inbox")) + r.choice((".example", ".net", ".org", ".de"))
    return f"{r.choice(_GIVEN[s])}.{r.choice(_FAMILY[s])}{r.choice(('', _digits(r, 2)))}@{host}".lower()


def _phone(r: random.Random, s: Split) -> str:
    forms = (
        "+44 20 #### ####",
        "+49 30 ######",
        "(555) ###-####",
        "555-###-####",
        "+1 555 ### ####",
    )
    return re.sub("#", lambda _: _digits(r, 1), r.choice(forms))


def _ssn(r: random.Random, s: Split) -> str:
    """A tenth of them could not have been given out: people mistype, and test data are made up."""
    area = (
        r.choice(("000", "666", "9" + _digits(r, 2)))
        if r.random() < 0.1
        else f"{r.randint(1, 665):03}"
    )
    return f"{area}-{r.randint(1, 99):02}-{r.randint(1, 9999):04}"


def _birth(r: random.Random, s: Split) -> str:
    year, month, day = r.randint(1938, 2006), r.randint(1, 12), r.randint(1, 28)
    return r.choice(
        (
            f"{year}-{month:02}-{day:02}",
            f"{day:02}.{month:02}.{year}",
            f"{month:02}/{day:02}/{year}",
        )
    )


def _street(r: random.Random, s: Split) -> str:
    return f"{r.randint(1, 240)} {r.choice(_STREETS[s])} {r.choice(_WAYS[s])}"


def _postal(r: random.Random, s: Split) -> str:
    return f"{_letters(r, 2)}{r.randint(1, 19)} {r.randint(1, 9)}{_letters(r, 2)}"


def _user(r: random.Random, s: Split) -> str:
    return f"{r.choice(_GIVEN[s])[0]}{r.choice(_FAMILY[s])}{r.randint(1, 99)}".lower()


def _address(r: random.Random, s: Split) -> str:
    return ".".join(str(r.randint(low, 250)) for low in (11, 0, 0, 1))


def _moment(r: random.Random, s: Split) -> str:
    day = f"2026-{r.randint(1, 11):02}-{r.randint(1, 28):02}"
    return f"{day}T{r.randint(0, 23):02}:{r.randint(0, 59):02}:{r.randint(0, 59):02}Z"


def _one(*values: Value) -> Draw:
    return lambda r, s: r.choice(values)


PRIVATE: dict[str, tuple[str, Draw]] = {
    "name": ("full_name", _name),
    "family name": ("last_name", lambda r, s: r.choice(_FAMILY[s])),
    "e-mail": ("email", _email),
    "phone": ("phone", _phone),
    "social security": ("ssn", _ssn),
    "date of birth": ("dob", _birth),
    "street": ("address", _street),
    "postal code": ("postcode", _postal),
    "card": ("card_number", lambda r, s: _luhn(r.choice("45") + _digits(r, 14))),
    "IBAN": ("iban", lambda r, s: _iban(r)),
    "last four": ("account_last4", lambda r, s: _digits(r, 4)),
    "patient": ("patient_id", lambda r, s: f"{r.choice(('P', 'MRN', 'PT-'))}{_digits(r, 7)}"),
    "passport": ("passport_no", lambda r, s: _letters(r, 1) + _digits(r, 8)),
    "plate": ("licence_plate", lambda r, s: f"{_letters(r, 2)}{r.randint(10, 79)} {_letters(r, 3)}"),
    "user": ("username", _user),
    "IP address": ("ip", _address),
    "tax number": ("tax_id", lambda r, s: f"{r.randint(10, 98)}-{_digits(r, 7)}"),
    "device": ("mac", lambda r, s: ":".join(f"{r.randint(0, 255):02x}" for _ in range(6))),
}  # fmt: skip
"""Kind → what its column is called, and a value of it."""

OTHER: dict[str, tuple[str, Draw]] = {
    "status": ("status", _one("open", "closed", "pending", "on hold", "shipped")),
    "article": ("article_no", lambda r, s: f"{_letters(r, 2)}-{_digits(r, 4)}"),
    "quantity": ("quantity", lambda r, s: r.randint(1, 60)),
    "branch": ("branch_city", lambda r, s: r.choice(_TOWNS[s])),
    "currency": ("currency", _one("EUR", "USD", "GBP", "CHF")),
    "price": ("unit_price", lambda r, s: round(r.uniform(1, 400), 2)),
    "priority": ("priority", _one("low", "normal", "high", "urgent")),
    "version": ("app_version", lambda r, s: f"{r.randint(0, 9)}.{r.randint(0, 20)}.{r.randint(0, 9)}"),
    "colour": ("colour", _one("dark green", "red", "navy blue", "grey", "ivory")),
    "department": ("department", _one("Claims", "Retail Banking", "Logistics", "Radiology", "Legal")),
    "code": ("http_status", _one(200, 201, 301, 404, 409, 500, 503)),
    "moment": ("updated_at", _moment),
    "unit": ("unit", _one("kg", "pcs", "m", "litres", "hours")),
    "language": ("language", _one("en-GB", "de-DE", "fr-FR", "nl-NL")),
    "category": ("category", _one("garden tools", "mortgage", "stationery", "cardiology", "spares")),
    "retries": ("retries", lambda r, s: r.randint(0, 5)),
    "agreed": ("accepted_terms", _one("yes", "no")),
    "size": ("size", _one("S", "M", "L", "XL", "A4", "40x60 cm")),
}  # fmt: skip
"""The same for what is nobody's secret."""


@dataclass(frozen=True)
class Column:
    """`header` is empty where the table has none."""

    kind: str
    private: bool
    header: str


@dataclass(frozen=True)
class Table:
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]

    @property
    def headers(self) -> list[str]:
        return [c.header for c in self.columns]


def tables(split: Split, named: Named, *, records: int, seed: int, rows: int = 10) -> list[Table]:
    """Tables of `records` records of each kind: six private columns and six others to a table."""
    rng = random.Random(f"{split} {named} {seed}")
    found = []
    for group in range(0, len(PRIVATE), 6):
        kinds = [(k, True) for k in list(PRIVATE)[group : group + 6]]
        kinds += [(k, False) for k in list(OTHER)[group : group + 6]]
        for _ in range(0, records, rows):
            order = rng.sample(kinds, len(kinds))
            stem = rng.choice(_UNLISTED[split])
            columns = tuple(
                Column(k, p, _header(k, p, named, f"{stem}{i + 1}"))
                for i, (k, p) in enumerate(order)
            )
            drawn = tuple(
                tuple((PRIVATE if c.private else OTHER)[c.kind][1](rng, split) for c in columns)
                for _ in range(rows)
            )
            found.append(Table(columns, drawn))
    return found


def _header(kind: str, private: bool, named: Named, unlisted: str) -> str:
    if named == "known":
        return (PRIVATE if private else OTHER)[kind][0]
    return unlisted if named == "unlisted" else ""


Cells = list[list[str]]
Place = tuple[int, int]
Read = tuple[list[str], Cells]
"""Headers (of the first row, where each has its own) and the cells of each row, as text."""


@dataclass(frozen=True)
class Form:
    """A way to write a table down. `read` raises ValueError where the form no longer holds."""

    name: str
    write: Callable[[Table], str]
    read: Callable[[str], Read]
    headless: bool = True


def _names(table: Table) -> list[str]:
    return [c.header or f"f{i + 1}" for i, c in enumerate(table.columns)]


def _json(compact: bool) -> Form:
    separators = (",", ":") if compact else (", ", ": ")

    def write(table: Table) -> str:
        if not table.headers[0]:
            return json.dumps([list(row) for row in table.rows], separators=separators)
        records = [dict(zip(table.headers, row, strict=True)) for row in table.rows]
        return json.dumps(records, separators=separators, indent=None if compact else 2)

    def read(text: str) -> Read:
        found = json.loads(text)
        if isinstance(found[0], list):
            return [], [[str(v) for v in row] for row in found]
        return list(found[0]), [[str(v) for v in row.values()] for row in found]

    return Form("JSON compact" if compact else "JSON spaced", write, read)


def _nested_write(table: Table) -> str:
    records = []
    for number, row in enumerate(table.rows):
        inner = dict(zip(_names(table), row, strict=True))
        records.append({"id": number, "data": {"payload": [inner], "ok": True}})
    return json.dumps({"page": 1, "items": records})


def _nested_read(text: str) -> Read:
    found = [item["data"]["payload"][0] for item in json.loads(text)["items"]]
    return list(found[0]), [[str(v) for v in row.values()] for row in found]


def _separated(name: str, delimiter: str) -> Form:
    def write(table: Table) -> str:
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
        if table.headers[0]:
            writer.writerow(table.headers)
        writer.writerows(table.rows)
        return out.getvalue()

    def read(text: str) -> Read:
        found = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
        if len({len(row) for row in found}) != 1:
            raise ValueError("rows of several lengths")
        return [], found

    return Form(name, write, read)


def _sql_write(table: Table) -> str:
    names = f" ({', '.join(table.headers)})" if table.headers[0] else ""
    lines = []
    for row in table.rows:
        cells = [
            str(v) if not isinstance(v, str) else "'" + v.replace("'", "''") + "'" for v in row
        ]
        lines.append(f"INSERT INTO records{names} VALUES ({', '.join(cells)});")
    return "\n".join(lines)


def _sql_read(text: str) -> Read:
    headers: list[str] = []
    cells = []
    for line in text.split("\n"):
        found = re.fullmatch(r"INSERT INTO records(?: \((.*?)\))? VALUES \((.*)\);", line)
        if found is None:
            raise ValueError("not an INSERT")
        headers = found[1].split(", ") if found[1] else []
        row = re.findall(r"'((?:[^']|'')*)'|([^',\s]+)", found[2])
        cells.append([a.replace("''", "'") or b for a, b in row])
    return headers, cells


def _xml_write(table: Table) -> str:
    lines = ["<records>"]
    for row in table.rows:
        cells = (f"<{n}>{escape(str(v))}</{n}>" for n, v in zip(_names(table), row, strict=True))
        lines.append(f"  <record>{''.join(cells)}</record>")
    return "\n".join([*lines, "</records>"])


def _xml_read(text: str) -> Read:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    return [c.tag for c in root[0]], [[c.text or "" for c in row] for row in root]


def _yaml_write(table: Table) -> str:
    lines = []
    for row in table.rows:
        for at, (name, value) in enumerate(zip(_names(table), row, strict=True)):
            lines.append(f"{'  ' if at else '- '}{name}: {value}")
    return "\n".join(lines) + "\n"


def _yaml_read(text: str) -> Read:
    headers: list[str] = []
    cells: Cells = []
    for line in text.splitlines():
        found = re.fullmatch(r"([- ]) ([^:\s]+): (.*)", line)
        if found is None:
            raise ValueError("not a list of mappings")
        if found[1] == "-":
            cells.append([])
        if len(cells) == 1:
            headers.append(found[2])
        cells[-1].append(found[3])
    return headers, cells


_LOGGED = "INFO sync.worker[4] record"


def _log_write(table: Table) -> str:
    lines = []
    for number, row in enumerate(table.rows):
        head = f"2026-11-{number % 28 + 1:02} 09:{number % 60:02}:07,{number:03} {_LOGGED}"
        if table.headers[0]:
            pairs = zip(table.headers, row, strict=True)
            rest = " ".join(f'{n}="{v}"' if " " in str(v) else f"{n}={v}" for n, v in pairs)
        else:
            rest = " ".join(f"[{v}]" for v in row)
        lines.append(f"{head} {rest}")
    return "\n".join(lines)


def _log_read(text: str) -> Read:
    headers: list[str] = []
    cells = []
    for number, line in enumerate(text.split("\n")):
        head = f"2026-11-{number % 28 + 1:02} 09:{number % 60:02}:07,{number:03} {_LOGGED} "
        if not line.startswith(head):
            raise ValueError("another line's head")
        rest = line[len(head) :]
        if rest.startswith("["):
            cells.append(re.findall(r"\[([^\]]*)\]", rest))
        else:
            pairs = re.findall(r'(\w+)=(?:"([^"]*)"|(\S+))', rest)
            headers = [n for n, _, _ in pairs]
            cells.append([a or b for _, a, b in pairs])
    return headers, cells


def _mail_write(table: Table) -> str:
    blocks = []
    for row in table.rows:
        lines = [
            f"X-{n.replace('_', '-').title()}: {v}" for n, v in zip(_names(table), row, strict=True)
        ]
        blocks.append("\n".join(["MIME-Version: 1.0", *lines]))
    return "\n\n".join(blocks)


def _mail_read(text: str) -> Read:
    headers: list[str] = []
    cells = []
    for block in text.split("\n\n"):
        first, *lines = block.split("\n")
        found = [re.fullmatch(r"X-(\S+): (.*)", line) for line in lines]
        if first != "MIME-Version: 1.0" or None in found:
            raise ValueError("not the headers of a message")
        headers = [m[1] for m in found if m]
        cells.append([m[2] for m in found if m])
    return headers, cells


FORMS: Sequence[Form] = (
    _json(compact=True),
    _json(compact=False),
    Form("JSON nested", _nested_write, _nested_read),
    _separated("CSV, commas", ","),
    _separated("CSV, semicolons", ";"),
    _separated("CSV, tabs", "\t"),
    _separated("CSV, pipes", "|"),
    Form("SQL", _sql_write, _sql_read),
    Form("XML", _xml_write, _xml_read),
    Form("YAML", _yaml_write, _yaml_read),
    Form("log", _log_write, _log_read),
    Form("e-mail headers", _mail_write, _mail_read),
)


def written(form: Form, table: Table) -> tuple[str, list[list[Place]]]:
    """What `form` makes of `table`, and where each cell's value stands in it.

    It is written once with marks in place of the values, of the same sort and with the same blanks, so
    that they are quoted alike.
    """
    flat: list[Value] = []
    marks: list[list[Value]] = []
    for row in table.rows:
        marks.append([])
        for value in row:
            number = len(flat)
            mark = f"\ue000{number:05}{' ' * (' ' in str(value))}\ue001"
            marks[-1].append(mark if isinstance(value, str) else 7_000_000_000 + number)
            flat.append(value)
    marked = form.write(Table(table.columns, tuple(map(tuple, marks))))
    marked = marked.replace("\\ue000", "\ue000").replace("\\ue001", "\ue001")
    text, places, end = "", [], 0
    for found in re.finditer(r"\ue000(\d{5}) ?\ue001|70000(\d{5})", marked):
        text += marked[end : found.start()]
        value = str(flat[int(found[1] or found[2])])
        places.append((len(text), len(text) + len(value)))
        text, end = text + value, found.end()
    text += marked[end:]
    if text != form.write(table) or len(places) != len(flat):
        raise AssertionError(f"{form.name} writes marks another way than values")
    width = len(table.columns)
    return text, [places[i : i + width] for i in range(0, len(places), width)]
