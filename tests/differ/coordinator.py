"""FindCoordinator and InitProducerId. First of all what asks a coordinator: Kafka makes its topics when it is asked."""

from differ.scenario import scenario
from differ.side import Side

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.find_coordinator import FindCoordinatorRequest
from streamlake.protocol.messages.init_producer_id import InitProducerIdRequest
from streamlake.protocol.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup

GROUP, TRANSACTION = 0, 1
LOADING = (14, 15, 16)


@scenario
def coordinators_are_there(side: Side) -> None:
    any_group = OffsetFetchRequest(groups=(OffsetFetchRequestGroup(group_id="any"),))
    any_producer = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)

    def ready() -> bool:
        for kind in (GROUP, TRANSACTION):
            side.quietly(ApiKey.FIND_COORDINATOR, FindCoordinatorRequest(key_type=kind, coordinator_keys=("any",)))
        (group,) = side.quietly(ApiKey.OFFSET_FETCH, any_group).groups
        producer = side.quietly(ApiKey.INIT_PRODUCER_ID, any_producer)
        return not {group.error_code, producer.error_code} & set(LOADING)

    side.wait(ready, "the coordinators are there")


@scenario
def find_coordinator(side: Side) -> None:
    def asks(note: str, key: str, key_type: int = 0) -> None:
        request = FindCoordinatorRequest(key=key, key_type=key_type, coordinator_keys=(key,))
        side.every(note, ApiKey.FIND_COORDINATOR, request, range(1 if key_type else 0, 5))

    asks("of a group", "found")
    asks("of an empty group id", "")
    asks("of a transactional id", "tx", 1)
    asks("of a share group", "share", 2)
    asks("of an unknown type", "what", 3)
    asks("of a type below zero", "what", -1)
    several = FindCoordinatorRequest(coordinator_keys=("a", "b", "a"))
    side.newest("of several groups", ApiKey.FIND_COORDINATOR, several)
    side.newest("of none", ApiKey.FIND_COORDINATOR, FindCoordinatorRequest())


@scenario
def init_producer_id(side: Side) -> None:
    def asks(note: str, first: int = 0, **fields: object) -> None:
        request = InitProducerIdRequest(**({"transactional_id": None, "transaction_timeout_ms": 60_000} | fields))
        side.every(note, ApiKey.INIT_PRODUCER_ID, request, range(first, 5))

    asks("idempotent")
    asks("idempotent, timeout 0", transaction_timeout_ms=0)
    asks("with an id and epoch", 3, producer_id=10_000, producer_epoch=3)
    asks("with an id without epoch", 3, producer_id=10_000)
    asks("with an epoch without id", 3, producer_epoch=3)
    asks("with an epoch at its end", 3, producer_id=10_000, producer_epoch=32_767)
    asks("empty transactional id", transactional_id="")
    asks("empty transactional id with an epoch alone", 3, transactional_id="", producer_epoch=3)
