"""From the bytes of a libvirt domain to a small tree, in bounded time and memory.

XML can do much that a domain never needs: a document type, entities that grow or name other files. All of it is
refused where it begins, so nothing is ever expanded or opened. What the elements mean is in `domain`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from outlive.errors import UsageInvalid

from .problems import printable

MOST_BYTES = 1024 * 1024
MOST_DEPTH = 64
MOST_ELEMENTS = 20_000


class DomainInvalid(UsageInvalid):
    """What cannot be read as a libvirt domain, or of which no machine can be made."""

    id = "domain.invalid"


@dataclass(slots=True)
class Element:
    """One element of the tree, with the line that it begins on."""

    name: str
    attributes: dict[str, str]
    line: int
    children: list["Element"] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its own text, without white space around it."""
        return "".join(self.pieces).strip()

    def get(self, attribute: str) -> str:
        """An attribute; '' without it."""
        return self.attributes.get(attribute, "")

    def child(self, name: str) -> "Element | None":
        """The first child of that name."""
        return next(self.every(name), None)

    def every(self, name: str) -> Iterator["Element"]:
        """Its children of that name."""
        return (child for child in self.children if child.name == name)

    def of_child(self, name: str, attribute: str) -> str:
        """An attribute of the first child of that name; '' without."""
        child = self.child(name)
        return child.get(attribute) if child else ""


class _Refused(Exception):
    pass


class _Tree:
    def __init__(self) -> None:
        self.root: Element | None = None
        self.open: list[Element] = []
        self.count = 0
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.begin
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters
        self.parser.StartDoctypeDeclHandler = self.refuse_doctype
        self.parser.EntityDeclHandler = self.refuse_doctype
        self.parser.ExternalEntityRefHandler = self.refuse_doctype

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        self.count += 1
        if len(self.open) >= MOST_DEPTH or self.count > MOST_ELEMENTS:
            raise _Refused(f"it has more than {MOST_ELEMENTS} elements, or more than {MOST_DEPTH} within each other")
        element = Element(name, attributes, self.parser.CurrentLineNumber)
        if self.open:
            self.open[-1].children.append(element)
        else:
            self.root = element
        self.open.append(element)

    def end(self, name: str) -> None:
        self.open.pop()

    def characters(self, text: str) -> None:
        if self.open:
            self.open[-1].pieces.append(text)

    def refuse_doctype(self, *of_it: object) -> int:
        raise _Refused("it declares a document type or entities, which a domain has no use for")


def read_xml(raw: bytes, source: str) -> Element:
    """Return the root element. Raises DomainInvalid, and nothing else for any bytes.

    source: what the error is told of, usually the file's path.
    """
    if len(raw) > MOST_BYTES:
        raise _invalid(source, f"it is larger than {MOST_BYTES // 1024} KiB")
    tree = _Tree()
    try:
        tree.parser.Parse(raw, True)
    except (_Refused, ValueError, LookupError) as refused:
        raise _invalid(source, str(refused)) from None
    except expat.ExpatError as error:
        raise _invalid(source, f"line {error.lineno}: {expat.ErrorString(error.code)}") from None
    assert tree.root is not None, "expat refuses a document without an element"
    return tree.root


def _invalid(source: str, cause: str) -> DomainInvalid:
    return DomainInvalid(
        f"{printable(source)} cannot be read as a libvirt domain.",
        cause=printable(cause),
        remedy="name a file that `virsh dumpxml DOMAIN` wrote",
    )
