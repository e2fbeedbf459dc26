# cython: language_level=3, cdivision=True
"""Protobuf messages in C, straight into Arrow's buffers, by a plan (native.py) of the message.

The twin is what upb reads and columns.py builds, and the referee: a value that is refused here leaves no trace in the
columns, and the twin reads it again and says what is wrong with it. So only this must hold: what is taken here, the twin
takes too, and makes the same of it. Refused is all that is rare: groups, a message that comes in parts, a wire type that
is not the field's, a key that comes twice. Every byte is checked to be there before it is read.

Fields come in any order, and the last of several counts: the bytes of a message are read into slots first, one for each
field, and then each column gets its value. Elements of lists and maps go to their columns at once.
"""

from libc.stdint cimport INT32_MAX, UINT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from streamlake.record.kernel cimport (
    NO_MEMORY,
    OK,
    REFUSED,
    Column,
    Vec,
    count_value,
    is_utf8,
    push,
    push_bit,
    push_zeros,
    take,
    unzigzag,
    varint,
)
from streamlake.table.formats.columns cimport DECIMAL_BYTES, cut, distinct, push_bytes, push_fixed, push_offset
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

# As in native.Op.
cdef enum:
    BOOL = 0
    INT32 = 1
    SINT32 = 2
    UINT32 = 3
    INT64 = 4
    SINT64 = 5
    UINT64 = 6
    FLOAT = 7
    DOUBLE = 8
    ENUM = 9
    TEXT = 10
    BYTES = 11
    MESSAGE = 12
    LIST = 13
    MAP = 14
    ENTRY = 15
    TIMESTAMP = 16
    WRAPPER = 17
    OPAQUE = 18

# As in native.Wire.
cdef enum:
    VARINT = 0
    EIGHT = 1
    SIZED = 2
    GROUP = 3
    FOUR = 5

cdef int64_t SECONDS_MIN = -62135596800
cdef int64_t SECONDS_MAX = 253402300799
cdef int64_t NANOS_MAX = 999999999


cdef struct Node:
    int op
    int column  # -1: none
    int first_field  # in the plan's list of fields, which are in the order of their numbers
    int fields
    int child
    int child_wire


cdef struct Field:
    uint32_t number
    int wire
    int node
    bint nullable
    bint required
    int oneof


# The last value of a field that was read.
cdef struct Slot:
    bint is_set
    uint64_t bits  # the number; of a SIZED value the bytes it has
    const uint8_t* at


# One run over many values.
cdef struct Run:
    const Node* nodes
    const Field* fields
    Slot* slots  # one for each field of the plan: a place of a message is never inside itself
    Column* columns
    Vec hashes  # a hash table, for maps of many keys


cdef inline const uint8_t* short_varint(const uint8_t* at, const uint8_t* end, uint64_t most, uint64_t* out) noexcept nogil:
    """A tag or a size: upb takes no more than five bytes, and numbers up to `most`."""
    cdef const uint8_t* after = varint(at, end, out)
    if after == NULL or after - at > 5 or out[0] > most:
        return NULL
    return after


cdef inline const uint8_t* read_tag(const uint8_t* at, const uint8_t* end, uint64_t* tag) noexcept nogil:
    """NULL too for field number 0."""
    at = short_varint(at, end, <uint64_t>UINT32_MAX, tag)
    if at == NULL or tag[0] < 8:
        return NULL
    return at


cdef inline const uint8_t* read_wire(int wire, const uint8_t* at, const uint8_t* end, Slot* slot) noexcept nogil:
    """One value of a wire type, and where it ends; NULL if it is not all there, or a group."""
    if wire == VARINT:
        return varint(at, end, &slot.bits)
    if wire == SIZED:
        at = short_varint(at, end, <uint64_t>INT32_MAX, &slot.bits)
        if at == NULL or slot.bits > <uint64_t>(end - at):
            return NULL
        slot.at = at
        return at + slot.bits
    if wire == EIGHT:
        if end - at < 8:
            return NULL
        memcpy(&slot.bits, at, 8)
        return at + 8
    if wire == FOUR:
        if end - at < 4:
            return NULL
        slot.bits = 0
        memcpy(&slot.bits, at, 4)  # little-endian, as all machines are that we run on
        return at + 4
    return NULL


cdef inline int find(const Run* run, const Node* node, uint32_t number, int hint) noexcept nogil:
    """The place of a field among those of its message, -1 if the message has none of that number. Fields mostly come in
    order: `hint` is where it is then."""
    cdef const Field* fields = run.fields + node.first_field
    cdef int low = 0, high = node.fields - 1, middle
    if hint < node.fields and fields[hint].number == number:
        return hint
    while low <= high:
        middle = (low + high) >> 1
        if fields[middle].number == number:
            return middle
        if fields[middle].number < number:
            low = middle + 1
        else:
            high = middle - 1
    return -1


cdef int read_message(Run* run, const Node* node, const uint8_t* at, const uint8_t* end) noexcept nogil:
    """A MESSAGE or ENTRY; its depth is limited by the schema, not by the bytes."""
    cdef const Field* fields = run.fields + node.first_field
    cdef Slot* slots = run.slots + node.first_field
    cdef Slot skipped
    cdef uint64_t tag
    cdef int i, other, outcome, wire, hint = 0
    for i in range(node.fields):
        slots[i].is_set = False
    while at < end:
        at = read_tag(at, end, &tag)
        if at == NULL:
            return REFUSED
        wire = <int>(tag & 7)
        i = find(run, node, <uint32_t>(tag >> 3), hint)
        if i < 0:
            at = read_wire(wire, at, end, &skipped)
            if at == NULL:
                return REFUSED
            continue
        if run.nodes[fields[i].node].op == LIST or run.nodes[fields[i].node].op == MAP:
            hint = i  # the next may be of the same list
            outcome = read_element(run, &run.nodes[fields[i].node], wire, &at, end)
            if outcome != OK:
                return outcome
            continue
        hint = i + 1
        if wire != fields[i].wire:
            return REFUSED
        if slots[i].is_set and wire == SIZED and run.nodes[fields[i].node].op >= MESSAGE:
            return REFUSED  # to be merged with what came before
        at = read_wire(wire, at, end, &slots[i])
        if at == NULL:
            return REFUSED
        slots[i].is_set = True
        if fields[i].oneof >= 0:
            for other in range(node.fields):
                if other != i and fields[other].oneof == fields[i].oneof and slots[other].is_set:
                    if run.nodes[fields[other].node].op >= MESSAGE:
                        return REFUSED  # its bytes were not looked at, and may be bad
                    slots[other].is_set = False
    return push_fields(run, node)


cdef int push_fields(Run* run, const Node* node) noexcept nogil:
    """A value for each column of a message whose bytes are read."""
    cdef const Field* field = run.fields + node.first_field
    cdef Slot* slot = run.slots + node.first_field
    cdef const Node* of_field
    cdef int outcome
    for _ in range(node.fields):
        of_field = &run.nodes[field.node]
        if of_field.op == LIST or of_field.op == MAP:
            outcome = end_elements(run, of_field)
        elif slot.is_set:
            outcome = push_value(run, of_field, slot)
        elif field.required:
            return REFUSED
        elif field.nullable:
            outcome = push_null(run, field.node)
        else:
            slot.bits = 0
            slot.at = NULL
            outcome = push_value(run, of_field, slot)
        if outcome != OK:
            return outcome
        field += 1
        slot += 1
    return count_value(&run.columns[node.column], True) if node.column >= 0 else OK


cdef int read_element(Run* run, const Node* node, int wire, const uint8_t** at, const uint8_t* end) noexcept nogil:
    """One value of a LIST or MAP, or many of a LIST that are packed."""
    cdef const Node* child = &run.nodes[node.child]
    cdef Slot slot
    cdef const uint8_t* packed
    cdef const uint8_t* packed_end
    cdef int outcome
    if node.op == MAP:
        if wire != SIZED:
            return REFUSED
        at[0] = read_wire(wire, at[0], end, &slot)
        return REFUSED if at[0] == NULL else read_message(run, child, slot.at, slot.at + slot.bits)
    if wire == node.child_wire:
        at[0] = read_wire(wire, at[0], end, &slot)
        return REFUSED if at[0] == NULL else push_value(run, child, &slot)
    if wire != SIZED or node.child_wire == GROUP:
        return REFUSED
    at[0] = read_wire(wire, at[0], end, &slot)
    if at[0] == NULL:
        return REFUSED
    packed, packed_end = slot.at, slot.at + slot.bits
    while packed < packed_end:
        packed = read_wire(node.child_wire, packed, packed_end, &slot)
        if packed == NULL:
            return REFUSED
        outcome = push_value(run, child, &slot)
        if outcome != OK:
            return outcome
    return OK


cdef int end_elements(Run* run, const Node* node) noexcept nogil:
    """The end of a LIST or MAP, whose elements are in their columns."""
    cdef Column* column = &run.columns[node.column]
    cdef const Column* keys
    cdef int32_t short_end
    cdef int outcome
    if node.op == LIST:
        if push_offset(column, run.columns[run.nodes[node.child].column].length) != OK:
            return NO_MEMORY
        return count_value(column, True)
    keys = &run.columns[key_node(run, node).column]
    if keys.length > INT32_MAX:
        return REFUSED
    outcome = distinct_keys(run, key_node(run, node), keys, (<const int32_t*>column.offsets.data)[column.length])
    if outcome != OK:
        return outcome
    short_end = <int32_t>keys.length
    if push(&column.offsets, &short_end, sizeof(short_end)) != OK:
        return NO_MEMORY
    return count_value(column, True)


cdef inline const Node* key_node(const Run* run, const Node* map) noexcept nogil:
    """The key is field 1 of the entry, so the first."""
    return &run.nodes[run.fields[run.nodes[map.child].first_field].node]


cdef inline const Node* item_node(const Run* run, const Node* map) noexcept nogil:
    return &run.nodes[run.fields[run.nodes[map.child].first_field + 1].node]


cdef int push_value(Run* run, const Node* node, const Slot* slot) noexcept nogil:
    cdef Column* column = &run.columns[node.column]  # unused if there is none
    cdef int op = node.op
    cdef int32_t narrow
    cdef int64_t number
    cdef uint64_t wide[2]
    cdef uint32_t low = <uint32_t>slot.bits
    if op == TEXT or op == BYTES:
        if op == TEXT and not is_utf8(slot.at, <size_t>slot.bits):
            return REFUSED
        return push_bytes(column, slot.at, <size_t>slot.bits)
    if op == INT64 or op == DOUBLE:
        return push_fixed(column, &slot.bits, 8)
    if op == INT32 or op == ENUM or op == FLOAT:
        return push_fixed(column, &low, 4)
    if op == BOOL:
        if push_bit(&column.data, column.length, slot.bits != 0) != OK:
            return NO_MEMORY
        return count_value(column, True)
    if op == MESSAGE:
        return read_message(run, node, slot.at, slot.at + slot.bits)
    if op == TIMESTAMP:
        return read_timestamp(column, slot.at, slot.at + slot.bits)
    if op == WRAPPER:
        return read_wrapper(run, node, slot.at, slot.at + slot.bits)
    if op == SINT32:
        narrow = <int32_t>(low >> 1) ^ -<int32_t>(low & 1)
        return push_fixed(column, &narrow, 4)
    if op == SINT64:
        number = unzigzag(slot.bits)
        return push_fixed(column, &number, 8)
    if op == UINT32:
        number = low
        return push_fixed(column, &number, 8)
    if op == UINT64:
        wide[0] = slot.bits
        wide[1] = 0
        return push_fixed(column, wide, DECIMAL_BYTES)
    return REFUSED  # OPAQUE


cdef int read_timestamp(Column* column, const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Seconds (field 1) and nanoseconds (field 2) → microseconds, rounded down."""
    cdef int64_t seconds = 0
    cdef int32_t nanos = 0
    cdef uint64_t tag
    cdef Slot slot
    while at < end:
        at = read_tag(at, end, &tag)
        if at == NULL:
            return REFUSED
        if (tag >> 3 == 1 or tag >> 3 == 2) and tag & 7 != VARINT:
            return REFUSED
        at = read_wire(<int>(tag & 7), at, end, &slot)
        if at == NULL:
            return REFUSED
        if tag >> 3 == 1:
            seconds = <int64_t>slot.bits
        elif tag >> 3 == 2:
            nanos = <int32_t><uint32_t>slot.bits
    if not (SECONDS_MIN <= seconds <= SECONDS_MAX and 0 <= nanos <= NANOS_MAX):
        return REFUSED
    seconds = seconds * 1000000 + nanos // 1000
    return push_fixed(column, &seconds, sizeof(seconds))


cdef int read_wrapper(Run* run, const Node* node, const uint8_t* at, const uint8_t* end) noexcept nogil:
    """The value is field 1."""
    cdef uint64_t tag
    cdef Slot value, other
    value.bits = 0
    value.at = NULL
    while at < end:
        at = read_tag(at, end, &tag)
        if at == NULL:
            return REFUSED
        if tag >> 3 == 1:
            if <int>(tag & 7) != node.child_wire:
                return REFUSED
            at = read_wire(node.child_wire, at, end, &value)
        else:
            at = read_wire(<int>(tag & 7), at, end, &other)
        if at == NULL:
            return REFUSED
    return push_value(run, &run.nodes[node.child], &value)


cdef int push_null(Run* run, int index) noexcept nogil:
    """A null in the column of a node, and in those below it that are as long."""
    cdef const Node* node = &run.nodes[index]
    cdef Column* column
    cdef int32_t short_end
    cdef int i
    if node.column < 0:
        return OK
    if node.op == WRAPPER:
        return push_null(run, node.child)
    column = &run.columns[node.column]
    if node.op == MESSAGE:
        for i in range(node.first_field, node.first_field + node.fields):
            if push_null(run, run.fields[i].node) != OK:
                return NO_MEMORY
    elif node.op == LIST:
        if push_offset(column, run.columns[run.nodes[node.child].column].length) != OK:
            return NO_MEMORY
    elif node.op == MAP:
        short_end = <int32_t>run.columns[key_node(run, node).column].length
        if push(&column.offsets, &short_end, sizeof(short_end)) != OK:
            return NO_MEMORY
    elif node.op == TEXT or node.op == BYTES or node.op == OPAQUE:
        if push_offset(column, <int64_t>column.data.size) != OK:
            return NO_MEMORY
    elif node.op == BOOL:
        if push_bit(&column.data, column.length, False) != OK:
            return NO_MEMORY
    elif push_zeros(&column.data, width(node)) != OK:
        return NO_MEMORY
    return count_value(column, False)


cdef inline size_t width(const Node* node) noexcept nogil:
    if node.op == INT32 or node.op == SINT32 or node.op == FLOAT or node.op == ENUM:
        return 4
    return DECIMAL_BYTES if node.op == UINT64 else 8


cdef void truncate(Run* run, int index, int64_t length) noexcept nogil:
    """Drop all but the first `length` values of a node and what is below them."""
    cdef const Node* node = &run.nodes[index]
    cdef Column* column
    cdef int64_t i
    cdef int child
    if node.op == WRAPPER:
        truncate(run, node.child, length)
        return
    if node.column < 0:
        return
    column = &run.columns[node.column]
    if node.op == MESSAGE:
        for child in range(node.first_field, node.first_field + node.fields):
            truncate(run, run.fields[child].node, length)
    cut(column, length)
    if node.op == LIST or node.op == TEXT or node.op == BYTES or node.op == OPAQUE:
        column.offsets.size = <size_t>(length + 1) * sizeof(int64_t)
        i = (<const int64_t*>column.offsets.data)[length]
        if node.op == LIST:
            truncate(run, node.child, i)
        else:
            column.data.size = <size_t>i
    elif node.op == MAP:
        column.offsets.size = <size_t>(length + 1) * sizeof(int32_t)
        i = (<const int32_t*>column.offsets.data)[length]
        for child in range(2):
            truncate(run, run.fields[run.nodes[node.child].first_field + child].node, i)
    elif node.op == BOOL:
        column.data.size = <size_t>((length + 7) >> 3)
    elif node.op != MESSAGE:
        column.data.size = <size_t>length * width(node)


cdef int distinct_keys(Run* run, const Node* node, const Column* keys, int64_t first) noexcept nogil:
    """As columns.distinct, of the keys of a map, which may be any value but a message or a float."""
    cdef const uint8_t* bits = keys.data.data
    cdef int64_t count = keys.length - first
    if node.op == BOOL:
        if count < 2:
            return OK
        if count > 2 or (bits[first >> 3] >> (first & 7)) & 1 == (bits[(first + 1) >> 3] >> ((first + 1) & 7)) & 1:
            return REFUSED
        return OK
    return distinct(&run.hashes, keys, 0 if node.op == TEXT else <int64_t>width(node), first)


cdef class Reader:
    """A compiled plan. It never changes, so threads may share it."""

    cdef Node* _nodes
    cdef Field* _fields
    cdef int _count
    cdef int _field_count
    cdef int _columns
    cdef int _root

    def __cinit__(self, list nodes, list fields, int columns, int root):
        """`nodes`: (op, column, first field, fields, child, child's wire type); `fields`: (number, wire type, node,
        nullable, required, oneof). They are the plan's own and not checked here."""
        cdef int i
        self._nodes = <Node*>calloc(len(nodes), sizeof(Node))
        self._fields = <Field*>calloc(len(fields) + 1, sizeof(Field))
        if self._nodes == NULL or self._fields == NULL:
            raise MemoryError
        for i, (op, column, first, count, child, child_wire) in enumerate(nodes):
            self._nodes[i] = Node(op, column, first, count, child, child_wire)
        for i, (number, wire, node, nullable, required, oneof) in enumerate(fields):
            self._fields[i] = Field(number, wire, node, nullable, required, oneof)
        self._count = <int>len(nodes)
        self._field_count = <int>len(fields)
        self._columns = columns
        self._root = root

    def __dealloc__(self):
        free(self._nodes)
        free(self._fields)

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
            run.fields = self._fields
            run.columns = reading.columns
            run.slots = <Slot*>calloc(self._field_count + 1, sizeof(Slot))
            if run.slots == NULL:
                raise MemoryError
            with nogil:
                outcome = self._run(&run, &reading)
            if outcome != OK:
                raise MemoryError
            return take(&reading.taken), take(&reading.refused), take_columns(&reading)
        finally:
            end_reading(&reading)
            free(run.slots)
            free(run.hashes.data)

    cdef int _run(self, Run* run, Reading* reading) noexcept nogil:
        cdef int64_t i, done = 0
        cdef const uint8_t* at
        cdef const uint8_t* stop
        cdef int outcome = self._begin(run)
        for i in range(reading.count):
            if outcome == NO_MEMORY:
                return NO_MEMORY
            look_ahead(reading, i)
            at = value_start(reading, i)
            stop = value_end(reading, i)
            outcome = read_message(run, &run.nodes[self._root], at, stop) if at <= stop else REFUSED
            if outcome == OK:
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
            if node.op == TEXT or node.op == BYTES or node.op == OPAQUE or node.op == LIST:
                if push_zeros(&run.columns[node.column].offsets, sizeof(int64_t)) != OK:
                    return NO_MEMORY
            elif node.op == MAP:
                if push_zeros(&run.columns[node.column].offsets, sizeof(int32_t)) != OK:
                    return NO_MEMORY
        return OK
