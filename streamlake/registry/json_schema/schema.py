"""JSON Schema in the registry: drafts 4, 6, 7, 2019-09 and 2020-12.

Two texts are the same schema, and get the same id, if they differ only in white space and in how text is escaped; the
order of keys counts, unless `normalize` puts them in alphabetical order. The text that comes first is kept as it is.

Call it through an Executor: large schemas take long.
"""

import json
from collections.abc import Mapping

from streamlake.core.errors import Invalid
from streamlake.registry.avro.types import LEVELS_MAX
from streamlake.registry.json_schema.documents import Documents, decode
from streamlake.registry.port import File, Parsed


def parse_schema(text: str, files: Mapping[str, File], normalize: bool = False) -> Parsed:
    """Raises Invalid."""
    tree = decode(text)
    try:
        Documents(tree, files).check()
        canonical = json.dumps(tree, ensure_ascii=False, separators=(",", ":"), sort_keys=normalize)
        canonical.encode()
    except RecursionError:
        raise Invalid(f"the schema is nested more than {LEVELS_MAX} levels deep") from None
    except UnicodeEncodeError:
        raise Invalid("the schema is not text: it has half of a surrogate pair") from None
    return Parsed(canonical if normalize else text, canonical)
