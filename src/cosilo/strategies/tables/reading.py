"""Reads a plan out of a reply: large models write SELECT better than any language of our own, so a
SELECT is read into the closed set of verbs (`verbs.py`), and whatever is none of them is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Literal, NamedTuple, cast

from cosilo.errors import UnexpectedReplyError
from cosilo.strategies.tables.verbs import (
    AGGREGATES,
    FUNCTIONS,
    Combine,
    Compute,
    Filter,
    Group,
    Join,
    RowLimit,
    Scan,
    Sort,
    TablePlan,
    Term,
    Verb,
)

MOST_SIGNS = 3_000
MOST_JOINS = 16
MOST_PLANS = 24
DEEPEST = 40
MOST_SCANS = 64
MOST_OPERATIONS = 150

_FENCE = re.compile(r"```[ \t]*\w*[ \t]*\r?\n?(.*?)(?:```|\Z)", re.S)
_START = re.compile(r"\b(?:WITH|SELECT)\b", re.I)
_SIGN = re.compile(
    r"""\s+|--[^\n]*|/\*.*?(?:\*/|\Z)
      | (?P<text>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\])
      | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?(?!\w)|\.\d+(?!\w))
      | (?P<held>:[A-Za-z_]\w*)
      | (?P<word>[^\W\d]\w*)
      | (?P<sign><>|<=|>=|!=|==|\|\||[-+*/%=<>(),.;])""",
    re.X | re.S,
)
_RESERVED = frozenset({
    "select", "from", "where", "group", "having", "order", "limit", "offset", "union", "except",
    "intersect", "join", "inner", "left", "right", "full", "outer", "cross", "natural", "on",
    "using", "as", "and", "or", "not", "in", "is", "like", "glob", "between", "case", "when",
    "then", "else", "end", "exists", "distinct", "all", "by", "asc", "desc", "null", "with",
    "recursive", "over", "partition", "window", "escape", "cast", "collate", "set", "insert",
    "update", "delete", "drop", "alter", "create", "attach", "detach", "pragma", "vacuum",
    "replace", "into", "values",
})  # fmt: skip
_WORDS = frozenset({"null", "true", "false", "current_date", "current_time", "current_timestamp"})
_TYPES = frozenset({
    "integer", "int", "bigint", "real", "float", "double", "numeric", "decimal", "text",
    "varchar", "char", "date", "datetime", "timestamp", "boolean",
})  # fmt: skip
_MOST_FRAME = re.compile(
    r"(?:ROWS|RANGE) BETWEEN (?:UNBOUNDED PRECEDING|CURRENT ROW|\d{1,6} (?:PRECEDING|FOLLOWING)) AND "
    r"(?:UNBOUNDED FOLLOWING|CURRENT ROW|\d{1,6} (?:PRECEDING|FOLLOWING))"
    r"|(?:ROWS|RANGE) (?:UNBOUNDED PRECEDING|CURRENT ROW|\d{1,6} PRECEDING)"
)


class PlanError(UnexpectedReplyError):
    """A reply that holds no plan of the closed set of verbs; the text holds no part of it."""


class _Sign(NamedTuple):
    kind: str
    text: str

    @property
    def word(self) -> str:
        return self.text.casefold() if self.kind in ("word", "sign") else ""


def read_table_plan(
    reply: str, names: Iterable[str], placeholders: Iterable[str] = ()
) -> TablePlan:
    """The plan that a large model's reply holds, in a code fence or from its first SELECT on.

    Args:
        names: of all tables and columns, in small letters. What stands in double quotes and is none
            of them, nor named in the plan itself, is a text: SQLite reads it so, too.
        placeholders: those that were sent, as ":value_a"; no other is taken.

    Raises:
        PlanError: no plan, one that holds other than the verbs, or one over a limit.
    """
    fenced = [block for block in _FENCE.findall(reply) if _START.search(block)]
    text = fenced[0] if fenced else reply
    start = _START.search(text)
    if start is None:
        raise PlanError("the reply holds no SELECT")
    return _Reader(_signs(text[start.start() :]), frozenset(names), frozenset(placeholders)).read()


def _signs(text: str) -> list[_Sign]:
    found: list[_Sign] = []
    at = 0
    while at < len(text):
        match = _SIGN.match(text, at)
        if match is None:
            raise PlanError("the plan holds a sign that is none of the verbs'")
        at = match.end()
        kind = match.lastgroup
        if kind == "sign" and match[0] == ";":
            break
        if kind is not None:
            found.append(_Sign(kind, match[0]))
        if len(found) > MOST_SIGNS:
            raise PlanError(f"the plan is longer than {MOST_SIGNS:,} words and signs")
    return found


class _Reader:
    def __init__(
        self, signs: list[_Sign], names: frozenset[str], placeholders: frozenset[str]
    ) -> None:
        self._signs = [*signs, _Sign("end", "")]
        self._placeholders = placeholders
        given = {
            _bare(b.text).casefold()
            for a, b in pairwise(signs)
            if a.word == "as" and b.kind in ("word", "quoted")
        }
        self._names = names | given
        self._at = self._deep = self._joins = self._plans = self._operations = 0

    def read(self) -> TablePlan:
        plan = self._plan()
        if self._signs[self._at].kind != "end":
            raise PlanError("the plan goes on with what is none of the verbs")
        if plan.scans().total() > MOST_SCANS:
            raise PlanError(f"the plan scans tables more than {MOST_SCANS} times")
        return plan

    # What stands next, and taking it.

    def _next(self, ahead: int = 0) -> _Sign:
        return self._signs[min(self._at + ahead, len(self._signs) - 1)]

    def _take(self) -> _Sign:
        sign = self._next()
        self._at += 1
        return sign

    def _if(self, *words: str) -> bool:
        """Take these words where they stand next, all of them."""
        if any(self._next(i).word != word for i, word in enumerate(words)):
            return False
        self._at += len(words)
        return True

    def _must(self, *words: str) -> None:
        if not self._if(*words):
            raise PlanError(f"the plan lacks {' '.join(words).upper()} where it must stand")

    def _listed(self, read: Callable[[], Term]) -> tuple[Term, ...]:
        found = [read()]
        while self._if(","):
            found.append(read())
        return tuple(found)

    def _name(self) -> str:
        sign = self._take()
        if sign.kind == "quoted":
            return '"' + _bare(sign.text).replace('"', '""') + '"'
        if sign.kind != "word" or sign.word in _RESERVED:
            raise PlanError("the plan lacks a name where one must stand")
        return sign.text

    # Plans and verbs.

    def _plan(self) -> TablePlan:
        self._enter()
        named = []
        if self._if("with"):
            if self._if("recursive"):
                raise PlanError("a plan may not call itself")
            while True:
                name = self._name()
                self._must("as")
                named.append((name, self._within(self._plan)))
                if not self._if(","):
                    break
        verbs = self._selected()
        while how := self._combining():
            verbs.append(Combine(how, TablePlan(tuple(self._selected()))))
        if self._if("order", "by"):
            verbs.append(Sort(self._listed(self._ordered)))
        if self._if("limit"):
            rows, skipped = self._term(), None
            if self._if("offset"):
                skipped = self._term()
            elif self._if(","):
                rows, skipped = self._term(), rows
            verbs.append(RowLimit(rows, skipped))
        self._deep -= 1
        return TablePlan(tuple(verbs), tuple(named))

    def _enter(self) -> None:
        self._deep += 1
        if self._deep > DEEPEST:
            raise PlanError(f"the plan is nested more than {DEEPEST} deep")

    def _operate(self) -> None:
        self._operations += 1
        if self._operations > MOST_OPERATIONS:
            raise PlanError(f"the plan has more than {MOST_OPERATIONS} operations")

    def _combining(self) -> Literal["UNION", "UNION ALL", "EXCEPT", "INTERSECT", ""]:
        if self._if("union", "all"):
            return "UNION ALL"
        if self._if("union"):
            return "UNION"
        return "EXCEPT" if self._if("except") else "INTERSECT" if self._if("intersect") else ""

    def _selected(self) -> list[Verb]:
        self._plans += 1
        if self._plans > MOST_PLANS:
            raise PlanError(f"the plan is made of more than {MOST_PLANS} plans")
        self._must("select")
        distinct = self._if("distinct")
        columns = [self._computed()]
        while self._if(","):
            columns.append(self._computed())
        verbs: list[Verb] = []
        if self._if("from"):
            verbs.append(self._scan())
            while join := self._join():
                self._joins += 1
                if self._joins > MOST_JOINS:
                    raise PlanError(f"the plan has more than {MOST_JOINS} joins")
                verbs.append(join)
        if self._if("where"):
            verbs.append(Filter(self._term()))
        by: tuple[Term, ...] = ()
        if self._if("group", "by"):
            by = self._listed(self._term)
        having = self._term() if self._if("having") else None
        if by or having:
            verbs.append(Group(by, having))
        return [*verbs, Compute(tuple(columns), distinct)]

    def _computed(self) -> tuple[Term, str]:
        if self._if("*"):
            return Term("star", "*"), ""
        term = self._term()
        if self._if("as"):
            return term, self._name()
        sign = self._next()
        if sign.kind == "quoted" or (sign.kind == "word" and sign.word not in _RESERVED):
            return term, self._name()
        return term, ""

    def _scan(self) -> Scan:
        if self._next().word == "(":
            table: str | TablePlan = self._within(self._plan)
        else:
            table = self._name()
        sign = self._next()
        named = self._if("as") or (sign.kind == "word" and sign.word not in _RESERVED)
        return Scan(table, self._name() if named or sign.kind == "quoted" else "")

    def _join(self) -> Join | None:
        how: Literal["JOIN", "LEFT JOIN", "CROSS JOIN"]
        if self._if(",") or self._if("cross", "join"):
            how = "CROSS JOIN"
        elif self._if("join") or self._if("inner", "join"):
            how = "JOIN"
        elif self._if("left", "join") or self._if("left", "outer", "join"):
            how = "LEFT JOIN"
        else:
            return None
        scan = self._scan()
        if self._if("on"):
            return Join(how, scan, self._term())
        if self._if("using"):
            self._must("(")
            using = [self._name()]
            while self._if(","):
                using.append(self._name())
            self._must(")")
            return Join(how, scan, using=tuple(using))
        return Join(how, scan)

    def _within(self, read: Callable[[], TablePlan]) -> TablePlan:
        self._must("(")
        found = read()
        self._must(")")
        return found

    # Terms, from what binds least to what binds most.

    def _ordered(self) -> Term:
        term = self._term()
        how = "ASC" if self._if("asc") else "DESC" if self._if("desc") else ""
        for last in ("first", "last"):
            if self._if("nulls", last):
                how = f"{how} NULLS {last.upper()}".strip()
        return Term("ordered", how, (term,)) if how else term

    def _term(self) -> Term:
        self._enter()
        term = self._chain(("or",), lambda: self._chain(("and",), self._denied))
        self._deep -= 1
        return term

    def _chain(self, signs: tuple[str, ...], inner: Callable[[], Term]) -> Term:
        term = inner()
        while self._next().word in signs:
            self._operate()
            sign = self._take().text.upper()
            term = Term("sign", sign, (term, inner()))
        return term

    def _denied(self) -> Term:
        if self._if("not"):
            self._enter()
            term = Term("prefix", "NOT", (self._denied(),))
            self._deep -= 1
            return term
        return self._compared()

    def _compared(self) -> Term:
        term = self._sum()
        while True:
            self._operate()
            sign = self._next().word
            if sign in ("=", "==", "!=", "<>", "<", "<=", ">", ">="):
                self._take()
                term = Term("sign", sign, (term, self._sum()))
            elif self._if("is"):
                no = " NOT" if self._if("not") else ""
                if self._if("null"):
                    term = Term("missing", f"IS{no}", (term,))
                else:
                    term = Term("sign", f"IS{no}", (term, self._sum()))
            else:
                no = "NOT " if self._next().word == "not" else ""
                self._at += bool(no)
                if self._if("between"):
                    low = self._sum()
                    self._must("and")
                    term = Term("between", f"{no}BETWEEN", (term, low, self._sum()))
                elif self._if("in"):
                    term = Term("among", f"{no}IN", (term, *self._options()))
                elif self._next().word in ("like", "glob"):
                    how = f"{no}{self._take().text.upper()}"
                    parts: tuple[Term, ...] = (term, self._sum())
                    parts += (self._sum(),) if self._if("escape") else ()
                    term = Term("like", how, parts)
                else:
                    self._at -= bool(no)
                    self._operations -= 1
                    return term

    def _options(self) -> tuple[Term | TablePlan, ...]:
        if self._next(1).word in ("select", "with"):
            return (self._within(self._plan),)
        self._must("(")
        found = self._listed(self._term)
        self._must(")")
        return found

    def _sum(self) -> Term:
        def product() -> Term:
            return self._chain(("*", "/", "%"), lambda: self._chain(("||",), self._single))

        return self._chain(("+", "-"), product)

    def _single(self) -> Term:
        sign = self._next()
        if sign.word in ("-", "+"):
            self._enter()
            self._take()
            term = Term("prefix", sign.text, (self._single(),))
            self._deep -= 1
            return term
        if sign.kind == "number":
            return Term("number", self._take().text)
        if sign.kind == "text":
            return Term("text", self._held(self._take().text[1:-1].replace("''", "'")))
        if sign.kind == "held":
            return Term("text", self._held(self._take().text))
        if sign.word == "(":
            if self._next(1).word in ("select", "with"):
                return Term("nested", "", (self._within(self._plan),))
            self._take()
            term = self._term()
            self._must(")")
            return term
        if self._if("exists"):
            return Term("exists", "EXISTS", (self._within(self._plan),))
        if self._if("case"):
            return self._case()
        if self._if("cast"):
            return self._cast()
        if sign.word in _WORDS:
            return Term("word", self._take().text.upper())
        if sign.kind == "word" and self._next(1).word == "(":
            return self._call()
        return self._column()

    def _held(self, text: str) -> str:
        """`text`, whose placeholders are all ones that were sent."""
        for name in re.findall(r":value_\w+", text) if text not in self._placeholders else ():
            if name not in self._placeholders:
                raise PlanError("the plan names a placeholder that was not sent")
        if re.fullmatch(r":[A-Za-z_]\w*", text) and text not in self._placeholders:
            raise PlanError("the plan names a placeholder that was not sent")
        return text

    def _column(self) -> Term:
        sign = self._next()
        if sign.kind == "quoted" and sign.text[0] == '"' and self._next(1).word != ".":
            inner = _bare(sign.text)
            if inner.casefold() not in self._names:
                self._take()
                return Term("text", self._held(inner))
        name = self._name()
        if self._if("."):
            if self._if("*"):
                return Term("star", f"{name}.*")
            name = f"{name}.{self._name()}"
        return Term("column", name)

    def _case(self) -> Term:
        parts, how = [], ""
        if self._next().word != "when":
            parts.append(self._term())
            how = "of"
        while self._if("when"):
            parts.append(self._term())
            self._must("then")
            parts.append(self._term())
        if len(parts) < 2:
            raise PlanError("the plan lacks WHEN where it must stand")
        if self._if("else"):
            parts.append(self._term())
            how += " else"
        self._must("end")
        return Term("case", how, tuple(parts))

    def _cast(self) -> Term:
        self._must("(")
        term = self._term()
        self._must("as")
        kind = self._take()
        if kind.word not in _TYPES:
            raise PlanError("the plan casts to a type that is none of SQLite's")
        if self._if("("):
            while self._next().kind == "number" or self._next().word == ",":
                self._take()
            self._must(")")
        self._must(")")
        return Term("cast", kind.text.upper(), (term,))

    def _call(self) -> Term:
        name = self._take().word
        if name not in FUNCTIONS:
            raise PlanError("the plan calls a function that is none of the verbs'")
        self._must("(")
        if self._if("*"):
            if name != "count":
                raise PlanError("only COUNT takes *")
            call = Term("every", name)
        elif self._next().word == ")":
            call = Term("call", name)
        else:
            distinct = self._if("distinct")
            if distinct and name not in AGGREGATES:
                raise PlanError("only an aggregate takes DISTINCT")
            call = Term("different" if distinct else "call", name, self._listed(self._term))
        self._must(")")
        return self._window(call) if self._if("over") else call

    def _window(self, call: Term) -> Term:
        self._must("(")
        by = self._listed(self._term) if self._if("partition", "by") else ()
        order = self._listed(self._ordered) if self._if("order", "by") else ()
        frame = []
        while self._next().kind in ("word", "number"):
            frame.append(self._take().text.upper())
        if frame and not _MOST_FRAME.fullmatch(" ".join(frame)):
            raise PlanError("the plan has a window that is none of the verbs'")
        self._must(")")
        return Term("window", f"{len(by)} {' '.join(frame)}", (call, *by, *order))


def _bare(name: str) -> str:
    inner = name[1:-1] if name[:1] in '"`[' else name
    return inner.replace('""', '"') if name[:1] == '"' else inner


def bound(
    plan: TablePlan, values: Mapping[str, str], linked: Callable[[str, str], str]
) -> TablePlan:
    """`plan` with the values that placeholders stand for, and texts as the columns that they are
    compared with have them (`linked` of a column's name and a text)."""

    def put(term: Term) -> Term:
        if term.kind != "text":
            return term
        text = re.sub(r":value_[a-z]+", lambda m: values[m[0]], term.text)
        return Term("text", text)

    def link(term: Term) -> Term:
        equal = term.kind == "sign" and term.text in ("=", "==", "!=", "<>", "IS", "IS NOT")
        if not (equal or term.kind == "among"):
            return term
        parts = cast("tuple[Term, ...]", term.parts)
        columns = [p for p in parts if isinstance(p, Term) and p.kind == "column"]
        if len(columns) != 1:
            return term
        column = _bare(columns[0].text.rsplit(".", 1)[-1])
        return Term(
            term.kind,
            term.text,
            tuple(
                Term("text", linked(column, p.text))
                if isinstance(p, Term) and p.kind == "text"
                else p
                for p in parts
            ),
        )

    return plan.mapped(put).mapped(link)
