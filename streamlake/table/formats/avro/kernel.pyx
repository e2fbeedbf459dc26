# cython: language_level=3, cdivision=True
"""Avro values in C, straight into Arrow's buffers, by a plan (native.py) of the writer's schema.

The twin is what fastavro reads and columns.py builds, and the referee: a value that is refused here leaves no
trace in the columns, and the twin reads it again and says what is wrong with it. So only this must hold: what is taken
here, the twin takes too, and makes the same of it. Every byte is checked to be there before it is read.
"""

from libc.stdint cimport INT32_MAX, INT32_MIN, INT64_MIN, int32_t, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from streamlake.record.kernel cimport NO_MEMORY, OK, REFUSED, Column, count_value, push, push_bit, push_zeros, take
from streamlake.table.formats.avro.leaves cimport *
from streamlake.table.formats.columns cimport cut, distinct, push_fixed, push_offset
from streamlake.table.formats.reading cimport (
    Reading,
    begin_reading,
    end_reading,
    look_ahead,
    refuse,
    take_columns,
    took,
    value_end,
    value_start,
)

cdef int64_t DAY_MIN = -719162
cdef int64_t DAY_MAX = 2932896
cdef int64_t MICROS_A_DAY = 86400000000
cdef int64_t MICROS_MIN = DAY_MIN * MICROS_A_DAY
cdef int64_t MICROS_MAX = (DAY_MAX + 1) * MICROS_A_DAY - 1


cdef int push_null(Run* run, int index) noexcept nogil:
    """A null in the column of a node, and in those below it that are as long."""
    cdef const Node* node = &run.nodes[index]
    cdef Column* column
    cdef int32_t short_end
    cdef int child
    if node.column < 0:
        return OK
    if node.op == CHOICE:
        for child in range(node.children):
            if run.nodes[run.children[node.first_child + child]].column >= 0:
                return push_null(run, run.children[node.first_child + child])
        return OK
    column = &run.columns[node.column]
    if node.op == STRUCT or node.op == UNION:
        for child in range(node.children):
            if push_null(run, run.children[node.first_child + child]) != OK:
                return NO_MEMORY
    elif node.op == LIST:
        if push_offset(column, run.columns[run.nodes[run.children[node.first_child]].column].length) != OK:
            return NO_MEMORY
    elif node.op == MAP:
        short_end = <int32_t>run.columns[run.nodes[run.children[node.first_child]].column].length
        if push(&column.offsets, &short_end, sizeof(short_end)) != OK:
            return NO_MEMORY
    elif node.op == BYTES or node.op == TEXT:
        if push_offset(column, <int64_t>column.data.size) != OK:
            return NO_MEMORY
    elif node.op == BOOLEAN:
        if push_bit(&column.data, column.length, False) != OK:
            return NO_MEMORY
    elif push_zeros(&column.data, width(node)) != OK:
        return NO_MEMORY
    return count_value(column, False)


cdef inline size_t width(const Node* node) noexcept nogil:
    if node.op == INT or node.op == DATE or node.op == FLOAT or node.op == ENUM:
        return 4
    if node.op == FIXED:
        return <size_t>node.size
    if node.op == DECIMAL or node.op == UUID_TEXT:
        return 16
    return 8


cdef void truncate(Run* run, int index, int64_t length) noexcept nogil:
    """Drop all but the first `length` values of a node and what is below them."""
    cdef const Node* node = &run.nodes[index]
    cdef Column* column
    cdef int64_t i
    cdef int child
    if node.column < 0:
        return
    if node.op == STRUCT or node.op == UNION or node.op == CHOICE:
        for child in range(node.children):
            truncate(run, run.children[node.first_child + child], length)
        if node.op == CHOICE:
            return
    column = &run.columns[node.column]
    cut(column, length)
    if node.op == LIST or node.op == BYTES or node.op == TEXT:
        column.offsets.size = <size_t>(length + 1) * sizeof(int64_t)
        i = (<const int64_t*>column.offsets.data)[length]
        if node.op == LIST:
            truncate(run, run.children[node.first_child], i)
        else:
            column.data.size = <size_t>i
    elif node.op == MAP:
        column.offsets.size = <size_t>(length + 1) * sizeof(int32_t)
        i = (<const int32_t*>column.offsets.data)[length]
        truncate(run, run.children[node.first_child], i)
        truncate(run, run.children[node.first_child + 1], i)
    elif node.op == BOOLEAN:
        column.data.size = <size_t>((length + 7) >> 3)
    elif node.op != STRUCT and node.op != UNION:
        column.data.size = <size_t>length * width(node)


cdef int read_struct(Run* run, const Node* node) noexcept nogil:
    cdef int child, outcome
    for child in range(node.children):
        outcome = read_value(run, run.children[node.first_child + child])
        if outcome != OK:
            return outcome
    return count_value(&run.columns[node.column], True) if node.column >= 0 else OK


cdef int read_branch(Run* run, const Node* node) noexcept nogil:
    """A CHOICE or UNION: the branch that the value took, and nulls for the others."""
    cdef int64_t branch
    cdef int child, outcome
    if read_long(run, &branch) != OK or branch < 0 or branch >= node.children:
        return REFUSED
    for child in range(node.children):
        if child == branch:
            outcome = read_value(run, run.children[node.first_child + child])
        else:
            outcome = push_null(run, run.children[node.first_child + child])
        if outcome != OK:
            return outcome
    if node.op == CHOICE or node.column < 0:
        return OK
    # An empty record takes no bytes either, but is a value.
    return count_value(&run.columns[node.column], run.nodes[run.children[node.first_child + branch]].op != NOTHING)


cdef int read_list(Run* run, const Node* node) noexcept nogil:
    cdef int item = run.children[node.first_child]
    cdef int64_t count
    cdef int outcome
    while True:
        outcome = read_block(run, &count)
        if outcome != OK:
            return outcome
        if count == 0:
            break
        for _ in range(count):
            outcome = read_value(run, item)
            if outcome != OK:
                return outcome
    if push_offset(&run.columns[node.column], run.columns[run.nodes[item].column].length) != OK:
        return NO_MEMORY
    return count_value(&run.columns[node.column], True)


cdef int read_map(Run* run, const Node* node) noexcept nogil:
    cdef int key = run.children[node.first_child], value = run.children[node.first_child + 1]
    cdef Column* keys = &run.columns[run.nodes[key].column]
    cdef int64_t first = keys.length, count
    cdef int32_t end
    cdef int outcome
    while True:
        outcome = read_block(run, &count)
        if outcome != OK:
            return outcome
        if count == 0:
            break
        for _ in range(count):
            outcome = read_value(run, key)
            if outcome == OK:
                outcome = read_value(run, value)
            if outcome != OK:
                return outcome
    if keys.length > INT32_MAX:
        return REFUSED
    outcome = distinct(&run.slots, keys, 0, first)
    if outcome != OK:
        return outcome
    end = <int32_t>keys.length
    if push(&run.columns[node.column].offsets, &end, sizeof(end)) != OK:
        return NO_MEMORY
    return count_value(&run.columns[node.column], True)


cdef int read_block(Run* run, int64_t* count) noexcept nogil:
    """The number of items that follow, 0 at the end. Each takes a byte at least, so more than bytes is a lie."""
    cdef int64_t size
    if read_long(run, count) != OK:
        return REFUSED
    if count[0] < 0:
        if count[0] == INT64_MIN or read_long(run, &size) != OK:
            return REFUSED
        count[0] = -count[0]
    return OK if count[0] <= run.end - run.at else REFUSED


cdef int read_value(Run* run, int index) noexcept nogil:
    """One value; its depth is limited by the schema, not by the bytes."""
    cdef const Node* node = &run.nodes[index]
    cdef int op = node.op
    cdef int64_t number
    if op == NOTHING:
        return OK
    if op == BOOLEAN:
        return read_boolean(run, node)
    if op == INT:
        return read_int(run, node, INT32_MIN, INT32_MAX)
    if op == LONG:
        if read_long(run, &number) != OK:
            return REFUSED
        return push_fixed(&run.columns[node.column], &number, sizeof(number))
    if op == FLOAT:
        return read_fixed(run, node, 4)
    if op == DOUBLE:
        return read_fixed(run, node, 8)
    if op == BYTES or op == TEXT:
        return read_bytes(run, node)
    if op == FIXED:
        return read_fixed(run, node, node.size)
    if op == DATE:
        return read_int(run, node, DAY_MIN, DAY_MAX)
    if op == TIME:
        return read_time(run, node, 0, MICROS_A_DAY - 1)
    if op == TIMESTAMP:
        return read_time(run, node, MICROS_MIN, MICROS_MAX)
    if op == DECIMAL:
        return read_decimal(run, node)
    if op == UUID_TEXT:
        return read_uuid(run, node)
    if op == ENUM:
        return read_int(run, node, 0, node.size - 1)
    if op == STRUCT:
        return read_struct(run, node)
    if op == LIST:
        return read_list(run, node)
    if op == MAP:
        return read_map(run, node)
    return read_branch(run, node)


cdef class Reader:
    """A compiled plan. It never changes, so threads may share it."""

    cdef Node* _nodes
    cdef int* _children
    cdef int _count
    cdef int _columns
    cdef int _root

    def __cinit__(self, list nodes, list children, int columns, int root):
        """`nodes`: (op, column, first child, children, size, multiply, divide, precision); `children`: node numbers.
        They are the plan's own and not checked here."""
        cdef int i
        self._nodes = <Node*>calloc(len(nodes), sizeof(Node))
        self._children = <int*>calloc(len(children) + 1, sizeof(int))
        if self._nodes == NULL or self._children == NULL:
            raise MemoryError
        for i, (op, column, first, count, size, multiply, divide, precision) in enumerate(nodes):
            self._nodes[i] = Node(op, column, first, count, size, multiply, divide, 1)
            for _ in range(precision):
                self._nodes[i].limit = self._nodes[i].limit * 10
        for i, child in enumerate(children):
            self._children[i] = child
        self._count = <int>len(nodes)
        self._columns = columns
        self._root = root

    def __dealloc__(self):
        free(self._nodes)
        free(self._children)

    def read(self, offsets, data, int64_t first_value, rows, int64_t skip_bytes):
        """The values number `rows` (int64 buffer) of a binary array (int32 `offsets`, that of its first value at
        `first_value`; `data`), each without its first `skip_bytes`.

        (rows taken, rows refused: blocks of int64; columns as take_column gives them)."""
        cdef Reading reading
        cdef Run run
        cdef int outcome
        memset(&reading, 0, sizeof(Reading))
        memset(&run, 0, sizeof(Run))
        try:
            begin_reading(&reading, offsets, data, first_value, rows, skip_bytes, self._columns)
            run.nodes = self._nodes
            run.children = self._children
            run.columns = reading.columns
            with nogil:
                outcome = self._run(&run, &reading)
            if outcome != OK:
                raise MemoryError
            return take(&reading.taken), take(&reading.refused), take_columns(&reading)
        finally:
            end_reading(&reading)
            free(run.slots.data)

    cdef int _run(self, Run* run, Reading* reading) noexcept nogil:
        cdef int64_t i, done = 0
        cdef int outcome = self._begin(run)
        for i in range(reading.count):
            if outcome == NO_MEMORY:
                return NO_MEMORY
            look_ahead(reading, i)
            run.at = value_start(reading, i)
            run.end = value_end(reading, i)
            outcome = read_value(run, self._root) if run.at <= run.end else REFUSED
            if outcome == OK and run.at == run.end:
                outcome = took(reading, i)
                done += 1
            elif outcome != NO_MEMORY:
                truncate(run, self._root, done)
                outcome = refuse(reading, i)
        return outcome

    cdef int _begin(self, Run* run) noexcept nogil:
        """Offsets begin with a zero."""
        cdef const Node* node
        cdef int i
        for i in range(self._count):
            node = &self._nodes[i]
            if node.op == BYTES or node.op == TEXT or node.op == LIST:
                if push_zeros(&run.columns[node.column].offsets, sizeof(int64_t)) != OK:
                    return NO_MEMORY
            elif node.op == MAP:
                if push_zeros(&run.columns[node.column].offsets, sizeof(int32_t)) != OK:
                    return NO_MEMORY
        return OK
