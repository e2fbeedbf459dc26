"""A real Hive Metastore 2.3 on Derby: `with HiveMetastore(directory) as hive: hive.uri`.

A lock whose owner is gone is released after LOCK_TIMEOUT_S: its client may lose the connection while it holds one. Hive's
default is five minutes.
"""

from pathlib import Path

from support.java_server import JavaServer

LOCK_TIMEOUT_S = 8
OPENED = ("java.lang", "java.net", "java.nio", "java.util", "java.util.concurrent")

LOG4J = """
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
"""


class HiveMetastore(JavaServer):
    def __init__(self, directory: Path) -> None:
        conf = directory / "conf"
        jvm = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED]
        jvm += [f"-Dderby.stream.error.file={directory / 'derby.log'}", "-Dlog4j2.disable.jmx=true"]
        super().__init__("hive_metastore", directory, jvm=jvm, classes=str(conf))
        self.uri = f"thrift://127.0.0.1:{self.port}"
        self.warehouse = f"file://{directory / 'warehouse'}"
        conf.mkdir(parents=True)
        (conf / "log4j2.properties").write_text(LOG4J)
        settings = {
            "javax.jdo.option.ConnectionURL": f"jdbc:derby:{directory / 'metastore'};create=true",
            "javax.jdo.option.ConnectionDriverName": "org.apache.derby.jdbc.EmbeddedDriver",
            "hive.metastore.warehouse.dir": self.warehouse,
            "hive.metastore.schema.verification": "false",
            "datanucleus.schema.autoCreateAll": "true",
            "datanucleus.autoStartMechanismMode": "ignored",
            "datanucleus.connectionPoolingType": "HikariCP",
            "hive.metastore.try.direct.sql": "false",
            "hive.metastore.disallow.incompatible.col.type.changes": "false",  # Iceberg's schemas evolve
            # The default is in the jar of the query engine.
            "hive.metastore.expression.proxy": "org.apache.hadoop.hive.metastore.DefaultPartitionExpressionProxy",
            "hive.hmshandler.retry.interval": "100ms",  # ten times, also for what can never work
            "hive.txn.timeout": f"{LOCK_TIMEOUT_S}s",
        }
        lines = (f"<property><name>{key}</name><value>{value}</value></property>" for key, value in settings.items())
        (conf / "hive-site.xml").write_text(f"<configuration>{''.join(lines)}</configuration>")
