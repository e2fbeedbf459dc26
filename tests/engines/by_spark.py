"""Spark: by the server's catalog, and by JdbcCatalog on the SQLite file of the SQL catalog."""

import importlib.util
import os
from pathlib import Path
from typing import Any
from uuid import UUID

from engines.engine import NAMESPACE, Dialect, Engine, Lake, rows_of
from engines.queries import Ask
from support.java_server import JAVA
from support.lake import load_table
from support.maven import Missing, jars_of

CATALOG = "org.apache.iceberg.spark.SparkCatalog"


class SparkDialect(Dialect):
    quote = "`"

    def starts_with(self, column: str, prefix: str) -> str:
        return f"startswith({column}, {prefix})"

    def float(self, value: float) -> str:
        return f"double('{value!r}')"

    def text(self, value: str) -> str:
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def binary(self, value: bytes) -> str:
        return f"X'{value.hex()}'"

    def uuid(self, value: UUID) -> str:
        return f"'{value}'"

    def timestamp(self, value: Any) -> str:
        if value.tzinfo:
            return f"TIMESTAMP_LTZ '{value.isoformat(sep=' ')}'"
        return f"TIMESTAMP_NTZ '{value.isoformat(sep=' ')}'"


DIALECT = SparkDialect()


def jars() -> list[Path]:
    """Iceberg's runtime and SQLite. Missing, if they, Java or PySpark cannot be had."""
    if importlib.util.find_spec("pyspark") is None:
        raise Missing("no pyspark: `make engines-all` has an environment with it")
    return sorted(jars_of(JAVA / "spark" / "pom.xml").glob("*.jar"))


def session(lake: Lake) -> Any:
    """One for the process, with both catalogs: `rest` and `streamlake`. Missing."""
    found = jars()
    from pyspark.sql import SparkSession

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    folder = lake.server.data_dir.absolute()
    settings = {
        "spark.jars": ",".join(map(str, found)),
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.ui.enabled": "false",
        "spark.driver.memory": "1g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.catalog.rest": CATALOG,
        "spark.sql.catalog.rest.type": "rest",
        "spark.sql.catalog.rest.uri": lake.endpoint,
        "spark.sql.catalog.rest.cache-enabled": "false",
        "spark.sql.catalog.streamlake": CATALOG,  # JdbcCatalog finds the tables of the catalog of its own name
        "spark.sql.catalog.streamlake.type": "jdbc",
        "spark.sql.catalog.streamlake.uri": f"jdbc:sqlite:{folder}/catalog.db?busy_timeout=10000",
        "spark.sql.catalog.streamlake.jdbc.user": "",
        "spark.sql.catalog.streamlake.jdbc.password": "",
        "spark.sql.catalog.streamlake.warehouse": f"file://{folder}/warehouse",
        "spark.sql.catalog.streamlake.cache-enabled": "false",
    }
    spark = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    return spark


class _Spark(Engine):
    catalog: str

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.spark = session(lake)

    def answer(self, ask: Ask) -> list[tuple[Any, ...]]:
        then = ""
        if ask.batches:
            table = load_table(self.lake.server, ask.topic.name)
            then = f" VERSION AS OF {self.lake.snapshot(table, ask.batches)}"
        source = f"{self.catalog}.{NAMESPACE}.`{ask.topic.name}`{then}"
        return rows_of(self.spark.sql(DIALECT.select(ask, source)).toArrow())


class ByRest(_Spark):
    catalog = "rest"


class ByJdbc(_Spark):
    catalog = "streamlake"
