"""What a kind of catalog can hold and keep, known before anything is written to it.

A topic whose table its catalog could never hold is refused when its config is set (table/task/names.py), and the
status of a table says what its catalog does not keep. `streamlake catalog check` compares these records with what a
catalog really does.
"""

import re
from dataclasses import dataclass

NAME_CHARS = r"[\w\-.]"  # of namespaces and tables anywhere: the rule of their configs


@dataclass(frozen=True, slots=True)
class Capabilities:
    """`name_chars`: one character of a name, after folding; `first_char` the same of its first. `name_chars_max` holds
    for a table's name and for a namespace's. `keeps_history`: a table has more than its newest snapshot."""

    name_chars: str = NAME_CHARS
    first_char: str = NAME_CHARS
    name_chars_max: int = 255
    folds_case: bool = False  # `Orders` and `orders` are one table
    nested_namespaces: bool = True
    keeps_tags: bool = True
    keeps_history: bool = True
    type_chars_max: int | None = None  # of a column's type as this catalog writes it
    create_is_conditional: bool = True  # else the creation of a table that exists may be answered with that table
    multi_table_commit: bool = False

    def folded(self, name: str) -> str:
        """Names that are equal here are one name to the catalog."""
        return name.lower() if self.folds_case else name

    def refused_name(self, name: str) -> str:
        """Why no table or namespace can have this name; "" if it can."""
        folded = self.folded(name)
        if len(folded) > self.name_chars_max:
            return f"it has {len(folded)} characters, and at most {self.name_chars_max} are possible"
        wrong = next((c for c in folded if not re.fullmatch(self.name_chars, c)), None)
        if wrong is not None:
            return f"{wrong!r} is not possible in a name"
        if not re.match(self.first_char, folded):
            return f"it begins with {folded[:1]!r}"
        return ""

    def usable_name(self, name: str, chars_max: int) -> str:
        """A name like this one that is possible."""
        kept = [c if re.fullmatch(self.name_chars, c) else "_" for c in name.lower()]
        while kept and not re.match(self.first_char, kept[0]):
            kept.pop(0)
        return "".join(kept)[:chars_max] or "t"
