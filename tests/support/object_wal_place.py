"""Object WALs that follow one another on one store, as the contract wants them."""

from dataclasses import replace

from contracts.wal_contract import Replayed, Watcher, started
from support.object_wal_lives import SETTINGS, copied

from streamlake.core.ids import Ids
from streamlake.s3stream.store.port import ObjectStore
from streamlake.s3stream.wal.object.format import object_wal_key
from streamlake.s3stream.wal.object.recovery import ObjectWalRecovery
from streamlake.s3stream.wal.object.wal import ObjectWal

NODE = 3


class Place:
    """One store; each life has the next broker epoch, and drains the one before."""

    record_bytes_max = SETTINGS.unflushed_bytes_max

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.epoch = 1

    def make(self, **settings: int) -> ObjectWal:
        return ObjectWal(
            self.store, node=NODE, broker_epoch=self.epoch, ids=Ids(self.epoch), settings=replace(SETTINGS, **settings)
        )

    def recovery(self) -> ObjectWalRecovery:
        """Of the present epoch; the next one begins."""
        self.epoch += 1
        return ObjectWalRecovery(
            self.store,
            node=NODE,
            epoch=self.epoch - 1,
            fencing_epoch=self.epoch,
            ids=Ids(1000 + self.epoch),
            settings=SETTINGS,
        )

    async def reopen(self, trim_position: int) -> tuple[Replayed, ObjectWal, Watcher]:
        recovery = self.recovery()
        replayed = [(p, copied(r)) async for p, r in recovery.recover(trim_position)]
        await recovery.discard()
        await recovery.close()
        wal = self.make()
        _, watcher = await started(wal)
        return replayed, wal, watcher

    def key(self, seq: int) -> str:
        return object_wal_key(NODE, self.epoch, seq)
