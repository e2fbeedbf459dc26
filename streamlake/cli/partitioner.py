"""Which partition a key belongs to, as Kafka's Java producer finds it: records of a key stay together.

Source: org.apache.kafka.common.utils.Utils.murmur2, a 32-bit MurmurHash2 with a seed of its own.
"""

SEED = 0x9747B28C
MULTIPLIER = 0x5BD1E995
_MASK = 0xFFFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Unsigned 32 bits."""
    size = len(data)
    whole = size & ~3
    found = SEED ^ size
    for at in range(0, whole, 4):
        mixed = int.from_bytes(data[at : at + 4], "little") * MULTIPLIER & _MASK
        mixed = (mixed ^ mixed >> 24) * MULTIPLIER & _MASK
        found = found * MULTIPLIER & _MASK ^ mixed
    if rest := data[whole:]:
        found = (found ^ int.from_bytes(rest, "little")) * MULTIPLIER & _MASK
    found = (found ^ found >> 13) * MULTIPLIER & _MASK
    return found ^ found >> 15
