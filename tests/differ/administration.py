"""What administrators ask of features, of the metadata quorum, of directories, quotas and passwords."""

from differ.scenario import scenario
from differ.side import Side
from support.wire import SERVED

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages import alter_client_quotas as aq
from streamlake.protocol.messages import alter_replica_log_dirs as ad
from streamlake.protocol.messages import alter_user_scram_credentials as au
from streamlake.protocol.messages import describe_client_quotas as dq
from streamlake.protocol.messages import describe_log_dirs as dl
from streamlake.protocol.messages import describe_quorum as quorum
from streamlake.protocol.messages import describe_user_scram_credentials as du
from streamlake.protocol.messages import list_config_resources as lc
from streamlake.protocol.messages import update_features as uf

TOPIC, BROKER, LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32


@scenario
def update_features(side: Side) -> None:
    def asks(note: str, *updates: tuple[str, int, int], only_check: bool = True) -> None:
        for version in SERVED[ApiKey.UPDATE_FEATURES]:
            rows = tuple(
                uf.FeatureUpdateKey(name, level, kind > 1, kind if version else 1) for name, level, kind in updates
            )
            request = uf.UpdateFeaturesRequest(60_000, rows, only_check and version > 0)
            side.ask(note, ApiKey.UPDATE_FEATURES, version, request)

    upgrade, downgrade = 1, 2
    asks("what it is", ("transaction.version", 2, upgrade))
    asks("what it is, for real", ("transaction.version", 2, upgrade), only_check=False)
    asks("too high", ("transaction.version", 3, upgrade))
    asks("below zero", ("transaction.version", -1, upgrade))
    asks("lower as an upgrade", ("transaction.version", 1, upgrade))
    asks("unknown feature", ("no.such.feature", 1, upgrade))
    asks("unknown feature, to zero", ("no.such.feature", 0, downgrade))
    asks("empty name", ("", 1, upgrade))
    asks("unknown kind", ("transaction.version", 2, 9))
    asks("twice", ("transaction.version", 2, upgrade), ("transaction.version", 2, upgrade))
    asks("one good, one unknown", ("transaction.version", 2, upgrade), ("no.such.feature", 1, upgrade))
    asks("nothing")


@scenario
def describe_quorum(side: Side) -> None:
    def asks(note: str, *topics: tuple[str, tuple[int, ...]]) -> None:
        rows = tuple(
            quorum.RequestTopicData(name, tuple(quorum.RequestPartitionData(p) for p in ps)) for name, ps in topics
        )
        side.every(note, ApiKey.DESCRIBE_QUORUM, quorum.DescribeQuorumRequest(rows))

    asks("the metadata", ("__cluster_metadata", (0,)))
    asks("another partition", ("__cluster_metadata", (1,)))
    asks("two partitions", ("__cluster_metadata", (0, 1)))
    asks("another topic", ("never-there", (0,)))
    asks("nothing")
    asks("no partitions", ("__cluster_metadata", ()))


@scenario
def alter_replica_log_dirs(side: Side) -> None:
    side.topic("moved-dirs", 2)
    here = side.quietly(ApiKey.DESCRIBE_LOG_DIRS, dl.DescribeLogDirsRequest()).results[0].log_dir

    def asks(note: str, *dirs: tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]) -> None:
        rows = tuple(
            ad.AlterReplicaLogDir(path, tuple(ad.AlterReplicaLogDirTopic(*topic) for topic in topics))
            for path, topics in dirs
        )
        side.every(note, ApiKey.ALTER_REPLICA_LOG_DIRS, ad.AlterReplicaLogDirsRequest(rows))

    mine = (("moved-dirs", (0, 1)),)
    asks("where it is", (here, mine))
    asks("elsewhere", ("/no/such/directory", mine))
    asks("no absolute path", ("directory", mine))
    asks("an empty path", ("", mine))
    asks("unknown partition", (here, (("moved-dirs", (7, -1)),)))
    asks("unknown topic", (here, (("never-there", (0,)),)))
    asks("unknown topic, elsewhere", ("/no/such/directory", (("never-there", (0,)),)))
    asks("empty topic", (here, (("", (0,)),)))
    asks("a partition twice", (here, (("moved-dirs", (0, 0)),)))
    asks("in two directories", (here, mine), ("/no/such/directory", mine))
    asks("nothing")


@scenario
def client_quotas(side: Side) -> None:
    exact, default, anything = 0, 1, 2

    def asks(note: str, *components: tuple[str, int, str | None], strict: bool = False) -> None:
        rows = tuple(dq.ComponentData(*component) for component in components)
        side.every(note, ApiKey.DESCRIBE_CLIENT_QUOTAS, dq.DescribeClientQuotasRequest(rows, strict))

    asks("all")
    asks("all, strictly", strict=True)
    asks("a user", ("user", exact, "alice"))
    asks("a user's default", ("user", default, None))
    asks("any user", ("user", anything, None))
    asks("a client and a user", ("user", exact, "alice"), ("client-id", exact, "c"))
    asks("an address", ("ip", exact, "127.0.0.1"))
    asks("no address", ("ip", exact, "somewhere"))
    asks("an address and a user", ("user", exact, "alice"), ("ip", exact, "127.0.0.1"))
    asks("a kind twice", ("user", exact, "alice"), ("user", exact, "bob"))
    asks("an unknown kind", ("planet", exact, "mars"))
    asks("an empty kind", ("", exact, "mars"))
    asks("an unknown match", ("user", 9, "alice"))
    asks("a match without a name", ("user", exact, None))
    asks("a default with a name", ("user", default, "alice"))

    def alters(note: str, entity: tuple[tuple[str, str | None], ...], *ops: tuple[str, float, bool]) -> None:
        entry = aq.RequestEntryData(tuple(aq.EntityData(*e) for e in entity), tuple(aq.OpData(*op) for op in ops))
        side.every(note, ApiKey.ALTER_CLIENT_QUOTAS, aq.AlterClientQuotasRequest((entry,), True))

    alters("set", (("user", "alice"),), ("producer_byte_rate", 1.0, False))
    alters("remove", (("user", "alice"),), ("producer_byte_rate", 0.0, True))
    alters("remove what nobody knows", (("user", "alice"),), ("speed", 0.0, True))
    alters("nothing", (("user", "alice"),))
    alters("of nobody", (), ("producer_byte_rate", 1.0, True))
    side.every("none", ApiKey.ALTER_CLIENT_QUOTAS, aq.AlterClientQuotasRequest())


@scenario
def scram_credentials(side: Side) -> None:
    def asks(note: str, *users: str) -> None:
        rows = tuple(du.UserName(user) for user in users)
        side.newest(note, ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, du.DescribeUserScramCredentialsRequest(rows))

    side.newest("all", ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, du.DescribeUserScramCredentialsRequest(None))
    asks("none")
    asks("one", "alice")
    asks("two", "alice", "bob")
    asks("one twice", "alice", "alice")
    asks("an empty name", "")
    gone = tuple(au.ScramCredentialDeletion(user, 1) for user in ("alice", ""))
    for note, request in {
        "delete": au.AlterUserScramCredentialsRequest(deletions=gone[:1]),
        "delete of nobody": au.AlterUserScramCredentialsRequest(deletions=gone[1:]),
        "none": au.AlterUserScramCredentialsRequest(),
    }.items():
        side.newest(note, ApiKey.ALTER_USER_SCRAM_CREDENTIALS, request)


@scenario
def list_config_resources(side: Side) -> None:
    for kinds in ((TOPIC,), (BROKER,), (LOGGER,), (CLIENT_METRICS,), (GROUP,), (), (99,), (0,), (BROKER, LOGGER)):
        side.ask(f"of {kinds}", ApiKey.LIST_CONFIG_RESOURCES, 1, lc.ListConfigResourcesRequest(kinds))
    side.ask("client metrics", ApiKey.LIST_CONFIG_RESOURCES, 0, lc.ListConfigResourcesRequest())
