from streamlake.protocol.source import Source


def test_blocks_constants_and_names_make_a_function() -> None:
    source = Source(base=100)
    thing = object()
    with source.block("def pick(n):"):
        with source.block("if n > 1:"):
            source.line(f"return {source.constant(thing)}")
        source.line(f"return base + n + {source.constant(5)}")
    pick = source.function("pick", "test")
    assert pick(2) is thing
    assert pick(1) == 106
