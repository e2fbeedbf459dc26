"""The prompt of `streamlake sql`: history, completion, statements of several lines. It outlives errors and Ctrl-C."""

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import duckdb
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer

from streamlake.cli import sql_output
from streamlake.cli.console import complain, note, say, show
from streamlake.cli.sql_completion import Words, candidates
from streamlake.cli.sql_history import history_file, open_history
from streamlake.cli.sql_output import Format
from streamlake.core.errors import StreamLakeError
from streamlake.lake.names import Name
from streamlake.lake.sql import Session
from streamlake.lake.statements import split

PROMPT, CONTINUATION = "streamlake> ", "        ... "
ENDS = ("exit", "quit", ".exit", ".quit", "\\q")
HELP = """\
SQL is DuckDB's. A statement may have several lines, and ends with a semicolon and Enter.

  .tables               all tables: those of topics, and all others of the catalogs
  .output text|csv|json how rows are shown
  .help                 this
  .quit                 the end, as Ctrl-D

Tab completes keywords, functions, tables and columns; the arrow keys and Ctrl-R find earlier statements; Ctrl-C
discards a statement, or ends one that is running. A long result goes through $PAGER, or less.

  FROM orders LIMIT 5;                                  the table of a topic, with rows as new as this statement
  FROM "shop.orders-v1";                                names with other characters stand in double quotes
  SELECT value, _kafka.offset FROM orders;              where a row is in its topic
  FROM sql.default.orders AT (VERSION => 123);          an older snapshot: the catalog (here: sql) comes first"""


class Shell:
    def __init__(self, session: Session, format: Format) -> None:
        self._session = session
        self._format = format
        self._tables = _Tables(session)

    def run(self) -> None:
        """Until Ctrl-D or .quit. What the server's first answer raises."""
        count = len(self._tables.names())
        say(f"DuckDB {duckdb.__version__} on {count:,} tables. Statements end with ; and .help helps.")
        prompt: PromptSession[str] = PromptSession(
            PROMPT,
            history=open_history(history_file()),
            completer=_Completer(self._tables),
            complete_while_typing=False,
            complete_in_thread=True,  # columns are asked for
            lexer=PygmentsLexer(SqlLexer),
            multiline=True,
            prompt_continuation=CONTINUATION,
            key_bindings=_keys(),
        )
        while True:
            try:
                text = prompt.prompt()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if text.strip() in ENDS:
                return
            self._answer(text.strip())

    def _answer(self, text: str) -> None:
        try:
            with self._tables.lock:
                if text.startswith(".") or text == "help":
                    self._command(*text.removeprefix(".").split())
                else:
                    self._tables.is_known = False  # statements may make some; they are read when they are wanted
                    self._run(text)
        except (StreamLakeError, duckdb.Error) as error:
            complain(str(error))
        except KeyboardInterrupt:
            note(("interrupted", "dim"))

    def _run(self, text: str) -> None:
        statements, rest = split(text)
        for statement in [*statements, *filter(None, [rest])]:
            sql_output.run(self._session, statement, self._format)

    def _command(self, name: str = "", *arguments: str) -> None:
        if name == "help":
            say(HELP)
        elif name == "tables":
            self._list_tables()
        elif name == "output" and len(arguments) == 1 and arguments[0] in set(Format):
            self._format = Format(arguments[0])
        else:
            complain(f"there is no command .{' '.join((name, *arguments))}: .help shows what there is")

    def _list_tables(self) -> None:
        rows: list[list[Any]] = []
        for table in self._session.tables():
            name, report = ".".join(table.name), table.report
            if report is None:
                rows.append([name, table.catalog, "", "", ""])
            else:
                count = report["rows"] if name == report["table"] else report["dead_letters"]
                rows.append([name, table.catalog, report["topic"], count, "" if table.location else "no commit yet"])
        show("", ["table", "catalog", "topic", "rows", ""], rows, ("rows",))


class _Tables:
    """What completion knows. `lock` is held by whoever uses the session: the prompt, or a completion in a thread."""

    def __init__(self, session: Session) -> None:
        self.lock = threading.Lock()
        self.is_known = False
        self._session = session
        self._names: Sequence[Name] = ()
        self._columns: dict[str, Sequence[str]] = {}
        rows = session.connection.execute("SELECT keyword_name, keyword_category FROM duckdb_keywords()").fetchall()
        reserved = frozenset(name for name, category in rows if category == "reserved")
        functions = session.connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE regexp_full_match(function_name, '[a-z]\\w*') "
            "AND function_type <> 'pragma' ORDER BY 1"
        ).fetchall()
        self.words = Words([name for name, _ in rows], reserved, [name for (name,) in functions])

    def names(self) -> Sequence[Name]:
        """Of all tables; as they were before while a statement runs."""
        if not self.is_known and self.lock.acquire(blocking=False):
            try:
                self._columns.clear()
                self._names = [table.name for table in self._session.tables()]
                self.is_known = True
            finally:
                self.lock.release()
        return self._names

    def columns(self, table: str) -> Sequence[str]:
        """None of a table that cannot be described, nor while a statement runs."""
        if table not in self._columns and self.lock.acquire(blocking=False):
            try:
                described = self._session.run(f"DESCRIBE {table}", self._session.connection.execute).fetchall()
                self._columns[table] = [row[0] for row in described]
            except (StreamLakeError, duckdb.Error):
                self._columns[table] = ()
            finally:
                self.lock.release()
        return self._columns.get(table, ())


class _Completer(Completer):
    def __init__(self, tables: _Tables) -> None:
        self._tables = tables

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        # Only the statement at the cursor: others name other tables.
        _, before = split(document.text_before_cursor)
        tables = self._tables
        try:
            names = tables.names()
        except StreamLakeError:  # the next statement tells it
            return
        word, found = candidates(before, document.text_after_cursor, names, tables.columns, tables.words)
        for candidate in found:
            yield Completion(candidate.text, -len(word), display_meta=candidate.kind)


def _keys() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter", filter=has_focus(DEFAULT_BUFFER))
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
            buffer.complete_state = None  # it is taken
        elif is_complete(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    return bindings


def is_complete(text: str) -> bool:
    """Whether Enter runs what was typed."""
    text = text.strip()
    if not text or text.startswith(".") or text in (*ENDS, "help"):
        return True
    statements, rest = split(text)
    return bool(statements) and not duckdb.tokenize(rest)
