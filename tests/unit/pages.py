"""Reading pages in tests: the controls of a form, with the words that belong to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Control:
    """One input as a person meets it: its label's words and the legend of its group."""

    attributes: dict[str, str | None]
    label: str = ""
    legend: str = ""

    @property
    def chosen(self) -> bool:
        return "checked" in self.attributes

    @property
    def value(self) -> str | None:
        return self.attributes.get("value")


@dataclass
class Page(HTMLParser):
    """A page's controls, elements and text, read from its HTML."""

    html: str
    controls: list[Control] = field(default_factory=list)
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._labels: dict[str, str] = {}
        self._label: str | None = None
        self._inside: Control | None = None
        self._in_legend = False
        self._legend = ""
        self.feed(self.html)
        for control in self.controls:
            control.label = control.label or self._labels.get(
                control.attributes.get("id") or "", ""
            )
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.elements.append((tag, found))
        if tag == "label":
            self._label, self._inside = found.get("for") or "", None
        elif tag == "legend":
            self._in_legend, self._legend = True, ""
        elif tag == "input":
            control = Control(found, legend=self._legend)
            self.controls.append(control)
            if self._label is not None:
                self._inside = control

    def handle_endtag(self, tag):
        if tag == "label":
            self._label = self._inside = None
        elif tag == "legend":
            self._in_legend = False
        elif tag == "fieldset":
            self._legend = ""

    def handle_data(self, data):
        self.text += data
        if self._in_legend:
            self._legend += data.strip()
        if self._inside is not None:
            self._inside.label = f"{self._inside.label} {data.strip()}".strip()
        elif self._label:
            self._labels[self._label] = self._labels.get(self._label, "") + data.strip()

    def named(self, name: str) -> list[Control]:
        """Return the controls with this name."""
        return [control for control in self.controls if control.attributes.get("name") == name]

    def chosen(self, name: str) -> list[str | None]:
        """Return the values that would be sent under this name."""
        return [control.value for control in self.named(name) if control.chosen]

    def has(self, tag: str) -> bool:
        """Tell whether the page has an element of this kind."""
        return any(found == tag for found, _ in self.elements)
