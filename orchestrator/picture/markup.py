"""Elements of a page, escaped by whoever writes them out: names in it are their users' own."""

from typing import Final
from xml.etree.ElementTree import Element, tostring

_HEAD: Final = "<!doctype html>\n"


def node(tag: str, *inside: "Element | str", **attributes: str | float) -> Element:
    """Return an element with what is inside; `class_` is the attribute class, `stroke_width` is stroke-width."""
    made = Element(tag, {name.rstrip("_").replace("_", "-"): _text(value) for name, value in attributes.items()})
    for one in inside:
        if isinstance(one, Element):
            made.append(one)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + one
        else:
            made.text = (made.text or "") + one
    return made


def page_text(root: Element) -> str:
    """Return a whole document as HTML."""
    return _HEAD + tostring(root, encoding="unicode", method="html") + "\n"


def place(value: float) -> str:
    """Return a coordinate, to a tenth of a point."""
    return f"{value:.1f}".removesuffix(".0")


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else place(value)
