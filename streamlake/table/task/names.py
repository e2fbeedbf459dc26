"""Which tables a topic feeds, and whether its catalog can have them. Light: the server asks when a config is set.

A topic feeds `<name>` and `<name>__dlq`. Both names must be possible in the catalog, and no other topic may feed one of
them: neither under the same name nor, where a catalog folds case, under one that it takes for the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from streamlake.catalogs.capabilities import Capabilities
from streamlake.cluster.config.table import PREFIX
from streamlake.core.errors import Invalid

DEAD_LETTER_SUFFIX = "__dlq"


@dataclass(frozen=True, slots=True)
class TableName:
    """The table of a topic. `namespace`: each dot begins a namespace in the one before it."""

    catalog: str
    namespace: str
    name: str

    @property
    def levels(self) -> tuple[str, ...]:
        return tuple(self.namespace.split("."))

    def __str__(self) -> str:
        return f"{self.namespace}.{self.name}"

    def dead_letters(self) -> "TableName":
        return TableName(self.catalog, self.namespace, self.name + DEAD_LETTER_SUFFIX)

    def keys(self, capabilities: Capabilities) -> tuple["TableName", "TableName"]:
        """What no two topics may have in common: its names as the catalog knows them."""
        main = TableName(self.catalog, capabilities.folded(self.namespace), capabilities.folded(self.name))
        return main, main.dead_letters()


def check_possible(topic: str, table: TableName, kind: str, capabilities: Capabilities) -> None:
    """Invalid says why the catalog, of this kind, cannot have the table, and a name that would do."""
    begin = f"topic {topic} cannot be a table in the catalog {table.catalog} (kind {kind})"
    if len(table.levels) > 1 and not capabilities.nested_namespaces:
        usable = capabilities.usable_name(table.namespace, capabilities.name_chars_max)
        raise Invalid(
            f"{begin}: it has no namespaces in namespaces, as {table.namespace} would be: set {PREFIX}namespace, "
            f"such as {usable}"
        )
    for level in table.levels:
        if why := capabilities.refused_name(level):
            usable = capabilities.usable_name(level, capabilities.name_chars_max)
            raise Invalid(f"{begin} in the namespace {level}: {why}; set {PREFIX}namespace, such as {usable}")
    for name in (table.name, table.dead_letters().name):
        if why := capabilities.refused_name(name):
            usable = capabilities.usable_name(table.name, capabilities.name_chars_max - len(DEAD_LETTER_SUFFIX))
            whose = "the name of its dead-letter table" if name != table.name else "the name"
            raise Invalid(f"{begin} with {whose} {name}: {why}; set {PREFIX}name, such as {usable}")


def check_apart(topic: str, keys: Iterable[TableName], taken: Mapping[TableName, str], folds_case: bool) -> None:
    """Invalid if one of the topic's `keys` is among those of other topics (key → topic)."""
    for key in keys:
        if key in taken:
            folds = ", which takes capital letters for small ones" if folds_case else ""
            raise Invalid(
                f"topic {taken[key]} feeds table {key} already in the catalog {key.catalog}{folds}: "
                f"set {PREFIX}name of topic {topic}"
            )
