"""A page taken apart, and a text that tries to break out of its place in one."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\'"&<b>\u2028\x00'


class Page(HTMLParser):
    """Elements with their attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in ("meta", "input", "br"):
            self.open.append(name)
            self.texts.setdefault(name, []).append("")

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name, f"</{name}> closes something else"

    def handle_data(self, data: str) -> None:
        for name in self.open:
            self.texts[name][-1] += data

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.elements if found == name]
