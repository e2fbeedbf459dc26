"""What may be the table of a topic, asked when a config is set: before anything is written to a catalog.

The worker asks the same again (table/task/tables.py): a broker's default may change, and another broker may have
another image of the topics.
"""

from collections.abc import Iterable, Mapping

from streamlake.catalogs.kinds import KINDS
from streamlake.catalogs.named import NamedCatalogs
from streamlake.cluster.broker_configs import BrokerConfigs
from streamlake.cluster.config.definition import boolean
from streamlake.cluster.config.table import PREFIX
from streamlake.cluster.store.topic_rows import TopicInfo
from streamlake.table.task.names import TableName, check_apart, check_possible


class CatalogRules:
    """Implements TableRules."""

    def __init__(self, catalogs: NamedCatalogs, configs: BrokerConfigs) -> None:
        self._catalogs = catalogs
        self._configs = configs

    def catalog(self, configs: Mapping[str, str]) -> str:
        return configs.get(PREFIX + "catalog", "") or self._catalogs.default

    def check(self, topic: str, configs: Mapping[str, str], others: Iterable[TopicInfo]) -> None:
        if not boolean(configs.get(PREFIX + "enable", "false")):
            return
        namespace = str(self._configs.value(PREFIX + "namespace"))
        table = self._table(topic, configs, namespace)
        kind = self._catalogs[table.catalog].kind
        capabilities = KINDS[kind].capabilities
        check_possible(topic, table, kind, capabilities)
        taken = {
            key: other.name
            for other in others
            if other.is_table and other.name != topic and self.catalog(other.configs) == table.catalog
            for key in self._table(other.name, other.configs, namespace).keys(capabilities)
        }
        check_apart(topic, table.keys(capabilities), taken, capabilities.folds_case)

    def _table(self, topic: str, configs: Mapping[str, str], namespace: str) -> TableName:
        """`namespace`: the broker's default."""
        return TableName(
            self.catalog(configs), configs.get(PREFIX + "namespace", namespace), configs.get(PREFIX + "name") or topic
        )
