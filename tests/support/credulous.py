"""A server that takes compressed batches at the word of their header, as versions before docs/adr/0016 did: for tests of
what such batches do to readers. `CredulousServer` runs this file as its process."""

import sys
from typing import Any

from support.server import Server

from streamlake.record import validate
from streamlake.record.batch import scan_batches
from streamlake.record.run import CheckedBatch, Run
from streamlake.record.validate import is_compressed


class CredulousServer(Server):
    def command(self) -> list[str]:
        python, _, _, *arguments = super().command()
        return [
            python,
            "-c",
            f"import sys; sys.path[:0] = {sys.path!r}; import {__name__} as it; it.main()",
            *arguments,
        ]


def main() -> None:
    from streamlake.cli.main import main
    from streamlake.handlers import produce, produce_runs
    from streamlake.log import partition

    check = validate.check_batch

    def believe(records: Any, max_batch_bytes: int, _room_bytes: int = 0) -> Run:
        if not is_compressed(records):
            return check(records, max_batch_bytes)
        (header,) = scan_batches(records, max_batch_bytes)
        return Run([CheckedBatch(header, records, header.base_timestamp, header.max_timestamp)], 0)

    partition.check_batch = believe
    produce.check_at_once = believe
    produce_runs._kernel = None
    main()
