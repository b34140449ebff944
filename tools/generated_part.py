"""A part of a page that the code says: written between two marks, or checked."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

END: Final = "<!-- end of what is generated -->\n"


@dataclass(frozen=True, slots=True)
class GeneratedPart:
    """Where it stands, and what it is to be; `of` names what it is made from, for people."""

    page: Path
    begin: str
    text: str
    of: str

    def within(self, page: str) -> str:
        """Return a page's text with the part as it is to be."""
        before, _, rest = page.partition(self.begin)
        _, _, after = rest.partition(END)
        return f"{before}{self.begin}\n{self.text}\n{END}{after}"

    def main(self) -> int:
        """Write the page, or with --check compare it; return the exit code."""
        page = self.page.read_text(encoding="utf-8")
        if "--check" not in sys.argv[1:]:
            self.page.write_text(self.within(page), encoding="utf-8")
        elif self.within(page) != page:
            print(f"docs/{self.page.name} is not what {self.of} generates: run 'make proto'", file=sys.stderr)
            return 1
        return 0
