# cython: language_level=3, cdivision=True
"""JSON values in C, straight into Arrow's buffers, by a plan (native.py).

The twin (scan.py) is the referee: a value that is refused here leaves no trace in the columns, and the twin reads it
again. So only this must hold: what is taken here, the twin takes too, and makes the same of it. No byte is read before it
is known to be there, and no depth is without a limit.

Where a plan has a *rest*, what does not fit its column is a misfit: the column gets a null, and the rest the text as it
is, under the keys that lead to it. In a list or map, the whole list or map is the misfit.
"""

from libc.math cimport floor, isinf
from libc.stdint cimport INT32_MAX, INT64_MAX, int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, strtod
from libc.string cimport memcmp, memcpy, memset

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
)
from streamlake.table.formats.columns cimport cut, distinct, push_bytes, push_fixed, push_offset
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
    NOTHING = 0
    BOOLEAN = 1
    LONG = 2
    DOUBLE = 3
    TEXT = 4
    JSON = 5
    STRUCT = 6
    LIST = 7
    MAP = 8
    REST = 9
    RESTS = 10

cdef enum:
    MISFIT = 3  # beside Outcome: the value is sound, but not of its column
    ENDED = 4  # beside Outcome: the list or object has no more
    LEVELS_MAX = 100  # of values that are skipped, and of structs
    NUMBER_CHARS_MAX = 63
    DIGITS_MAX = 18  # that fit an int64 whatever they are
    EXACT_POWER_MAX = 22  # powers of ten that a double holds

cdef uint64_t ONES = 0x0101010101010101
cdef uint64_t HIGHS = 0x8080808080808080
cdef double EXACT_MAX = 9007199254740992.0  # 2^53
cdef int64_t EXACT_LONG_MAX = 9007199254740992
cdef double[EXACT_POWER_MAX + 1] POWERS
for _power in range(EXACT_POWER_MAX + 1):
    POWERS[_power] = 10.0**_power


cdef struct Field:
    const uint8_t* key
    int key_size
    int node


cdef struct Node:
    int op
    int column  # -1: none
    int first  # in the fields
    int count


# The key of a struct that is being read, as it is in the text.
cdef struct Step:
    const uint8_t* key
    size_t size


cdef struct Run:
    const Node* nodes
    const Field* fields
    const int* order  # the fields of each struct by length and bytes
    int64_t* seen  # for each field the number of the struct that had it last
    int64_t structs
    Column* columns
    Column* rest  # NULL: what does not fit is refused
    size_t rest_start  # of this row, in the data of `rest`
    int opened  # structs whose keys are in the rest
    int level
    int in_list
    bint novel  # a key without a column, whose value could have one
    Step steps[LEVELS_MAX]
    Vec slots  # a hash table, for maps of many keys
    Vec key  # one that is written with escapes, without them
    const uint8_t* at
    const uint8_t* end


cdef struct Number:
    bint whole  # neither fraction nor exponent
    bint fits  # an int64, if it is whole
    int64_t value
    double approximate


# --- syntax


cdef inline void skip_space(Run* run) noexcept nogil:
    while run.at < run.end and (run.at[0] == 0x20 or run.at[0] == 0x0A or run.at[0] == 0x0D or run.at[0] == 0x09):
        run.at += 1


cdef inline bint has(Run* run, uint8_t sign) noexcept nogil:
    return run.at < run.end and run.at[0] == sign


cdef inline int open_items(Run* run, uint8_t close) noexcept nogil:
    """Into a list or an object, to its first item; ENDED if it has none."""
    run.at += 1
    skip_space(run)
    if has(run, close):
        run.at += 1
        return ENDED
    return OK


cdef inline int next_item(Run* run, uint8_t close) noexcept nogil:
    """From behind one item to the next; ENDED behind the last one's list or object."""
    skip_space(run)
    if has(run, close):
        run.at += 1
        return ENDED
    if not has(run, 0x2C):
        return REFUSED
    run.at += 1
    skip_space(run)
    return OK


cdef inline int skip_colon(Run* run) noexcept nogil:
    """From behind a key to its value."""
    skip_space(run)
    if not has(run, 0x3A):
        return REFUSED
    run.at += 1
    skip_space(run)
    return OK


cdef inline bint is_digit(Run* run) noexcept nogil:
    return run.at < run.end and 0x30 <= run.at[0] <= 0x39


cdef int word(Run* run, const char* text, size_t size) noexcept nogil:
    if <size_t>(run.end - run.at) < size or memcmp(run.at, text, size) != 0:
        return REFUSED
    run.at += size
    return OK


cdef inline const uint8_t* plain_end(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """The next quote, backslash or control character."""
    cdef uint64_t eight, quotes, slashes
    while end - at >= 8:
        memcpy(&eight, at, 8)
        quotes = eight ^ (ONES * 0x22)
        slashes = eight ^ (ONES * 0x5C)
        if (((quotes - ONES) & ~quotes) | ((slashes - ONES) & ~slashes) | ((eight - ONES * 0x20) & ~eight)) & HIGHS:
            break
        at += 8
    while at < end and at[0] != 0x22 and at[0] != 0x5C and at[0] >= 0x20:
        at += 1
    return at


cdef inline int hex_four(const uint8_t* at) noexcept nogil:
    """The number of four hexadecimal digits, -1 if they are none."""
    cdef int number = 0, i
    cdef uint8_t sign
    for i in range(4):
        sign = at[i]
        if 0x30 <= sign <= 0x39:
            number = number * 16 + sign - 0x30
        elif 0x61 <= (sign | 0x20) <= 0x66:
            number = number * 16 + (sign | 0x20) - 0x57
        else:
            return -1
    return number


cdef int skip_string(Run* run, bint* escaped) noexcept nogil:
    """From the opening to behind the closing quote; the text in between is sound."""
    cdef const uint8_t* start = run.at + 1
    cdef const uint8_t* at = start
    escaped[0] = False
    while True:
        at = plain_end(at, run.end)
        if at == run.end or at[0] < 0x20:
            return REFUSED
        if at[0] == 0x22:
            break
        escaped[0] = True
        if run.end - at < 2:
            return REFUSED
        if at[1] == 0x75:
            if run.end - at < 6 or hex_four(at + 2) < 0:
                return REFUSED
            at += 6
        elif at[1] in (0x22, 0x5C, 0x2F, 0x62, 0x66, 0x6E, 0x72, 0x74):
            at += 2
        else:
            return REFUSED
    if not is_utf8(start, <size_t>(at - start)):
        return REFUSED
    run.at = at + 1
    return OK


cdef int push_utf8(Vec* out, int point) noexcept nogil:
    cdef uint8_t bytes[4]
    cdef size_t size
    if point < 0x80:
        bytes[0] = <uint8_t>point
        size = 1
    elif point < 0x800:
        bytes[0] = <uint8_t>(0xC0 | point >> 6)
        bytes[1] = <uint8_t>(0x80 | (point & 0x3F))
        size = 2
    elif point < 0x10000:
        bytes[0] = <uint8_t>(0xE0 | point >> 12)
        bytes[1] = <uint8_t>(0x80 | (point >> 6 & 0x3F))
        bytes[2] = <uint8_t>(0x80 | (point & 0x3F))
        size = 3
    else:
        bytes[0] = <uint8_t>(0xF0 | point >> 18)
        bytes[1] = <uint8_t>(0x80 | (point >> 12 & 0x3F))
        bytes[2] = <uint8_t>(0x80 | (point >> 6 & 0x3F))
        bytes[3] = <uint8_t>(0x80 | (point & 0x3F))
        size = 4
    return push(out, bytes, size)


cdef inline uint8_t unescaped(uint8_t sign) noexcept nogil:
    if sign == 0x62:
        return 0x08
    if sign == 0x66:
        return 0x0C
    if sign == 0x6E:
        return 0x0A
    if sign == 0x72:
        return 0x0D
    if sign == 0x74:
        return 0x09
    return sign


cdef int push_text(Vec* out, const uint8_t* at, const uint8_t* end) noexcept nogil:
    """The characters of a sound text between quotes. REFUSED for half of a surrogate pair."""
    cdef const uint8_t* start
    cdef int point, low
    cdef uint8_t sign
    while at < end:
        start = at
        while at < end and at[0] != 0x5C:
            at += 1
        if push(out, start, <size_t>(at - start)) != OK:
            return NO_MEMORY
        if at == end:
            break
        if at[1] != 0x75:
            sign = unescaped(at[1])
            if push(out, &sign, 1) != OK:
                return NO_MEMORY
            at += 2
            continue
        point = hex_four(at + 2)
        at += 6
        if 0xD800 <= point <= 0xDFFF:
            if point >= 0xDC00 or end - at < 6 or at[0] != 0x5C or at[1] != 0x75:
                return REFUSED
            low = hex_four(at + 2)
            if not 0xDC00 <= low <= 0xDFFF:
                return REFUSED
            point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00)
            at += 6
        if push_utf8(out, point) != OK:
            return NO_MEMORY
    return OK


cdef int read_number(Run* run, Number* out, bint wanted) noexcept nogil:
    """A number's syntax, and if it is `wanted`, what it is. REFUSED also for one that only the twin can read."""
    cdef const uint8_t* start = run.at
    cdef const uint8_t* first
    cdef char[NUMBER_CHARS_MAX + 1] copy
    cdef bint negative = has(run, 0x2D), exponent_negative
    cdef uint64_t digits = 0
    cdef int count = 0, fraction = 0, exponent = 0
    cdef double magnitude
    cdef char* stop
    out.whole = True
    if negative:
        run.at += 1
    if not is_digit(run):
        return REFUSED
    first = run.at
    while is_digit(run):
        if count < DIGITS_MAX:
            digits = digits * 10 + (run.at[0] - 0x30)
        count += 1 if count or run.at[0] != 0x30 else 0
        run.at += 1
    if first[0] == 0x30 and run.at - first > 1:
        return REFUSED
    if has(run, 0x2E):
        out.whole = False
        run.at += 1
        if not is_digit(run):
            return REFUSED
        while is_digit(run):
            if count < DIGITS_MAX:
                digits = digits * 10 + (run.at[0] - 0x30)
                fraction += 1
            count += 1 if count or run.at[0] != 0x30 else 0
            run.at += 1
    if run.at < run.end and (run.at[0] | 0x20) == 0x65:
        out.whole = False
        run.at += 1
        exponent_negative = has(run, 0x2D)
        if exponent_negative or has(run, 0x2B):
            run.at += 1
        if not is_digit(run):
            return REFUSED
        while is_digit(run):
            if exponent < 10000:
                exponent = exponent * 10 + (run.at[0] - 0x30)
            run.at += 1
        if exponent_negative:
            exponent = -exponent
    if not wanted:
        return OK
    if out.whole and count <= DIGITS_MAX:
        out.fits = True
        out.value = -<int64_t>digits if negative else <int64_t>digits
        out.approximate = <double>out.value
        if negative and digits == 0:
            out.approximate = -0.0
        return OK
    if run.at - start > NUMBER_CHARS_MAX:
        return REFUSED
    out.fits = False
    exponent -= fraction
    if count <= DIGITS_MAX and digits <= <uint64_t>EXACT_LONG_MAX and -EXACT_POWER_MAX <= exponent <= EXACT_POWER_MAX:
        # Both are exact as doubles, so one rounding makes it the nearest. https://dl.acm.org/doi/10.1145/93542.93557
        magnitude = <double>digits / POWERS[-exponent] if exponent < 0 else <double>digits * POWERS[exponent]
        out.approximate = -magnitude if negative else magnitude
        return OK
    memcpy(copy, start, <size_t>(run.at - start))
    copy[run.at - start] = 0
    out.approximate = strtod(copy, &stop)
    if stop != copy + (run.at - start):
        return REFUSED  # somebody has set a locale whose numbers have no point
    if out.whole and count == DIGITS_MAX + 1:
        return whole_of(start, run.at, negative, out)
    return OK


cdef int whole_of(const uint8_t* at, const uint8_t* end, bint negative, Number* out) noexcept nogil:
    """A whole number of 19 digits: it may fit."""
    cdef uint64_t number = 0
    at += negative
    while at < end:
        number = number * 10 + (at[0] - 0x30)
        at += 1
    if number <= <uint64_t>INT64_MAX + negative:
        out.fits = True
        out.value = <int64_t>(0 - number) if negative else <int64_t>number
    return OK


cdef int skip_value(Run* run, int levels) noexcept nogil:
    """A sound value of any kind."""
    cdef Number number
    cdef bint escaped
    cdef uint8_t sign, close
    cdef int outcome
    if run.at == run.end or levels == 0:
        return REFUSED
    sign = run.at[0]
    if sign == 0x22:
        return skip_string(run, &escaped)
    if sign == 0x74:
        return word(run, b"true", 4)
    if sign == 0x66:
        return word(run, b"false", 5)
    if sign == 0x6E:
        return word(run, b"null", 4)
    if sign != 0x7B and sign != 0x5B:
        return read_number(run, &number, False)
    close = sign + 2
    outcome = open_items(run, close)
    while outcome == OK:
        if sign == 0x7B and (not has(run, 0x22) or skip_string(run, &escaped) != OK or skip_colon(run) != OK):
            return REFUSED
        outcome = skip_value(run, levels - 1)
        if outcome == OK:
            outcome = next_item(run, close)
    return OK if outcome == ENDED else outcome


# --- columns


cdef inline size_t width(int op) noexcept nogil:
    return 8 if op == LONG or op == DOUBLE else 0


cdef int push_null(Run* run, int index) noexcept nogil:
    """A null in the column of a node, and in those below it that are as long."""
    cdef const Node* node = &run.nodes[index]
    cdef Column* column
    cdef int32_t end
    cdef int i
    if node.column < 0:
        return OK
    column = &run.columns[node.column]
    if node.op == STRUCT:
        for i in range(node.first, node.first + node.count):
            if push_null(run, run.fields[i].node) != OK:
                return NO_MEMORY
    elif node.op == LIST or node.op == TEXT or node.op == JSON:
        if push_offset(column, (<const int64_t*>column.offsets.data)[column.length]) != OK:
            return NO_MEMORY
    elif node.op == MAP:
        end = (<const int32_t*>column.offsets.data)[column.length]
        if push(&column.offsets, &end, sizeof(end)) != OK:
            return NO_MEMORY
    elif node.op == BOOLEAN:
        if push_bit(&column.data, column.length, False) != OK:
            return NO_MEMORY
    elif push_zeros(&column.data, width(node.op)) != OK:
        return NO_MEMORY
    return count_value(column, False)


cdef void truncate(Run* run, int index, int64_t length) noexcept nogil:
    """Drop all but the first `length` values of a node and what is below it."""
    cdef const Node* node = &run.nodes[index]
    cdef Column* column
    cdef int64_t end
    cdef int i
    if node.column < 0:
        return
    column = &run.columns[node.column]
    cut(column, length)
    if node.op == STRUCT:
        for i in range(node.first, node.first + node.count):
            truncate(run, run.fields[i].node, length)
    elif node.op == LIST or node.op == TEXT or node.op == JSON:
        column.offsets.size = <size_t>(length + 1) * sizeof(int64_t)
        end = (<const int64_t*>column.offsets.data)[length]
        if node.op == LIST:
            truncate(run, run.fields[node.first].node, end)
        else:
            column.data.size = <size_t>end
    elif node.op == MAP:
        column.offsets.size = <size_t>(length + 1) * sizeof(int32_t)
        end = (<const int32_t*>column.offsets.data)[length]
        truncate(run, run.fields[node.first].node, end)
        truncate(run, run.fields[node.first + 1].node, end)
    elif node.op == BOOLEAN:
        column.data.size = <size_t>((length + 7) >> 3)
    else:
        column.data.size = <size_t>length * width(node.op)


# --- the rest


cdef int push_sign(Vec* vec, uint8_t sign) noexcept nogil:
    return push(vec, &sign, 1)


cdef int push_rest_key(Run* run, const Step* step) noexcept nogil:
    cdef Vec* rest = &run.rest.data
    # What is pushed here ends with a brace only where one was opened: values are sound, and end with their own.
    if rest.data[rest.size - 1] != 0x7B and push_sign(rest, 0x2C) != OK:
        return NO_MEMORY
    if push(rest, step.key, step.size) != OK:
        return NO_MEMORY
    return push_sign(rest, 0x3A)


cdef int push_rest(Run* run, const Step* step, const uint8_t* value) noexcept nogil:
    """The text from `value` up to here, under the keys of the structs around it and its own."""
    cdef Vec* rest = &run.rest.data
    if rest.size == run.rest_start and push_sign(rest, 0x7B) != OK:
        return NO_MEMORY
    while run.opened < run.level:
        if push_rest_key(run, &run.steps[run.opened]) != OK or push_sign(rest, 0x7B) != OK:
            return NO_MEMORY
        run.opened += 1
    if push_rest_key(run, step) != OK:
        return NO_MEMORY
    return push(rest, value, <size_t>(run.at - value))


# --- values


cdef int find(Run* run, const Node* node, const uint8_t* key, int size, int hint) noexcept nogil:
    """The field of a key, -1 if there is none. Objects nearly always have their keys in the same order: `hint`."""
    cdef const Field* field
    cdef int low = node.first, high = node.first + node.count, middle, sign
    if hint < high:
        field = &run.fields[hint]
        if field.key_size == size and memcmp(field.key, key, <size_t>size) == 0:
            return hint
    while low < high:
        middle = (low + high) >> 1
        field = &run.fields[run.order[middle]]
        sign = field.key_size - size
        if sign == 0:
            sign = memcmp(field.key, key, <size_t>size)
        if sign == 0:
            return run.order[middle]
        if sign < 0:
            low = middle + 1
        else:
            high = middle
    return -1


cdef int read_struct(Run* run, const Node* node) noexcept nogil:
    cdef Column* column = &run.columns[node.column]
    cdef int64_t length = column.length, serial
    cdef int outcome, i, hint = node.first
    if run.level + 1 >= LEVELS_MAX:
        return REFUSED
    run.structs += 1
    serial = run.structs
    outcome = open_items(run, 0x7D)
    while outcome == OK:
        outcome = read_field(run, node, length, serial, &hint)
        if outcome == OK:
            outcome = next_item(run, 0x7D)
    if outcome != ENDED:
        return outcome
    for i in range(node.first, node.first + node.count):
        if run.seen[i] != serial and push_null(run, run.fields[i].node) != OK:
            return NO_MEMORY
    return count_value(column, True)


cdef int read_field(Run* run, const Node* node, int64_t length, int64_t serial, int* hint) noexcept nogil:
    """A key and its value, `length`: of the columns before it."""
    cdef Step step
    cdef const uint8_t* value
    cdef bint escaped
    cdef int field, outcome, op
    step.key = run.at
    if not has(run, 0x22) or skip_string(run, &escaped) != OK:
        return REFUSED
    step.size = <size_t>(run.at - step.key)
    if step.size > INT32_MAX:
        return REFUSED
    run.key.size = 0
    if escaped:
        outcome = push_text(&run.key, step.key + 1, run.at - 1)
        if outcome != OK:
            return outcome
    if skip_colon(run) != OK or run.at == run.end:
        return REFUSED
    value = run.at
    if escaped:
        field = find(run, node, run.key.data, <int>run.key.size, hint[0])
    else:
        field = find(run, node, step.key + 1, <int>step.size - 2, hint[0])
    if field < 0:
        return read_unknown(run, &step)
    hint[0] = field + 1
    if run.seen[field] == serial:
        return REFUSED  # a key twice: the twin knows which counts
    run.seen[field] = serial
    op = run.nodes[run.fields[field].node].op
    if op == REST:
        return read_rest(run, &step)
    if op == STRUCT and run.rest != NULL and not run.in_list and value[0] == 0x7B:
        run.steps[run.level] = step
        run.level += 1
        outcome = read_value(run, run.fields[field].node)
        run.level -= 1
        if outcome == OK and run.opened > run.level:
            run.opened = run.level
            return push_sign(&run.rest.data, 0x7D)
        return outcome
    outcome = read_value(run, run.fields[field].node)
    if outcome != MISFIT or run.rest == NULL or run.in_list:
        return outcome
    truncate(run, run.fields[field].node, length)
    if push_null(run, run.fields[field].node) != OK:
        return NO_MEMORY
    run.at = value
    return read_rest(run, &step)


cdef int read_unknown(Run* run, const Step* step) noexcept nogil:
    """The value of a key that has no column."""
    cdef uint8_t sign = run.at[0]
    cdef const uint8_t* ahead = run.at + 1
    if run.rest == NULL or sign == 0x6E:
        return skip_value(run, LEVELS_MAX)
    if sign == 0x7B or sign == 0x5B:  # nothing inside says what its column would be
        while ahead < run.end and ahead[0] <= 0x20:
            ahead += 1
        run.novel = run.novel or (ahead < run.end and ahead[0] != sign + 2)
    else:
        run.novel = True
    return read_rest(run, step)


cdef int read_rest(Run* run, const Step* step) noexcept nogil:
    cdef const uint8_t* value = run.at
    cdef int outcome
    if has(run, 0x6E):
        return word(run, b"null", 4)
    if run.in_list:
        return MISFIT
    outcome = skip_value(run, LEVELS_MAX)
    return push_rest(run, step, value) if outcome == OK else outcome


cdef int read_list(Run* run, const Node* node) noexcept nogil:
    cdef int item = run.fields[node.first].node, outcome
    outcome = open_items(run, 0x5D)
    while outcome == OK:
        outcome = read_value(run, item)
        if outcome == OK:
            outcome = next_item(run, 0x5D)
    if outcome != ENDED:
        return outcome
    if push_offset(&run.columns[node.column], run.columns[run.nodes[item].column].length) != OK:
        return NO_MEMORY
    return count_value(&run.columns[node.column], True)


cdef int read_map(Run* run, const Node* node) noexcept nogil:
    cdef Column* keys = &run.columns[run.nodes[run.fields[node.first].node].column]
    cdef int64_t first = keys.length
    cdef int32_t end
    cdef int outcome
    outcome = open_items(run, 0x7D)
    while outcome == OK:
        if not has(run, 0x22):
            return REFUSED
        outcome = read_text(run, keys)
        if outcome == OK:
            outcome = skip_colon(run)
        if outcome == OK:
            outcome = read_value(run, run.fields[node.first + 1].node)
        if outcome == OK:
            outcome = next_item(run, 0x7D)
    if outcome != ENDED:
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


cdef int read_text(Run* run, Column* column) noexcept nogil:
    cdef const uint8_t* start = run.at + 1
    cdef bint escaped
    cdef int outcome
    if skip_string(run, &escaped) != OK:
        return REFUSED
    if not escaped:
        return push_bytes(column, start, <size_t>(run.at - 1 - start))
    outcome = push_text(&column.data, start, run.at - 1)
    if outcome != OK:
        return outcome
    if push_offset(column, <int64_t>column.data.size) != OK:
        return NO_MEMORY
    return count_value(column, True)


cdef int read_long(Run* run, Column* column) noexcept nogil:
    cdef Number number
    if read_number(run, &number, True) != OK:
        return REFUSED
    if not number.whole and floor(number.approximate) == number.approximate and -EXACT_MAX < number.approximate < EXACT_MAX:
        number.fits = True
        number.value = <int64_t>number.approximate
    return push_fixed(column, &number.value, sizeof(int64_t)) if number.fits else MISFIT


cdef int read_double(Run* run, Column* column) noexcept nogil:
    cdef Number number
    if read_number(run, &number, True) != OK:
        return REFUSED
    if isinf(number.approximate):
        return MISFIT
    if run.rest != NULL and number.whole and not (
        number.fits and -EXACT_LONG_MAX <= number.value <= EXACT_LONG_MAX
    ):
        return MISFIT
    return push_fixed(column, &number.approximate, sizeof(double))


cdef int read_boolean(Run* run, Column* column) noexcept nogil:
    cdef bint value = run.at[0] == 0x74
    cdef int outcome = word(run, b"true", 4) if value else word(run, b"false", 5)
    if outcome != OK:
        return outcome
    if push_bit(&column.data, column.length, value) != OK:
        return NO_MEMORY
    return count_value(column, True)


cdef int read_json(Run* run, Column* column) noexcept nogil:
    cdef const uint8_t* start = run.at
    cdef int outcome = skip_value(run, LEVELS_MAX)
    return push_bytes(column, start, <size_t>(run.at - start)) if outcome == OK else outcome


cdef int read_value(Run* run, int index) noexcept nogil:
    """One value; its depth is limited by the plan, not by the bytes."""
    cdef const Node* node = &run.nodes[index]
    cdef Column* column
    cdef uint8_t sign
    cdef int outcome
    if run.at == run.end:
        return REFUSED
    sign = run.at[0]
    if node.column < 0:
        return skip_value(run, LEVELS_MAX)
    if sign == 0x6E:
        return push_null(run, index) if word(run, b"null", 4) == OK else REFUSED
    column = &run.columns[node.column]
    if node.op == TEXT:
        return read_text(run, column) if sign == 0x22 else MISFIT
    if node.op == LONG or node.op == DOUBLE:
        if sign != 0x2D and not 0x30 <= sign <= 0x39:
            return MISFIT
        return read_long(run, column) if node.op == LONG else read_double(run, column)
    if node.op == BOOLEAN:
        return read_boolean(run, column) if sign == 0x74 or sign == 0x66 else MISFIT
    if node.op == STRUCT:
        return read_struct(run, node) if sign == 0x7B else MISFIT
    if node.op == JSON:
        return read_json(run, column)
    if sign != (0x5B if node.op == LIST else 0x7B):
        return MISFIT
    run.in_list += 1
    outcome = read_list(run, node) if node.op == LIST else read_map(run, node)
    run.in_list -= 1
    return outcome


cdef int read_row(Run* run, int root) noexcept nogil:
    cdef int outcome
    run.opened = run.level = run.in_list = 0
    run.novel = False
    if run.end - run.at >= 3 and run.at[0] == 0xEF and run.at[1] == 0xBB and run.at[2] == 0xBF:
        run.at += 3  # a byte order mark
    skip_space(run)
    if run.rest != NULL and not has(run, 0x7B):
        return REFUSED
    outcome = read_value(run, root)
    skip_space(run)
    if outcome != OK:
        return outcome
    return OK if run.at == run.end else REFUSED


cdef int end_rest(Run* run) noexcept nogil:
    """The rest of a row that was taken: null if all fitted."""
    cdef bint some = run.rest.data.size > run.rest_start
    if some and push_sign(&run.rest.data, 0x7D) != OK:
        return NO_MEMORY
    if push_offset(run.rest, <int64_t>run.rest.data.size) != OK:
        return NO_MEMORY
    return count_value(run.rest, some)


cdef class Reader:
    """A compiled plan. It never changes, so threads may share it."""

    cdef Node* _nodes
    cdef Field* _fields
    cdef int* _order
    cdef uint8_t* _keys
    cdef int _count
    cdef int _fields_count
    cdef int _columns
    cdef int _root
    cdef int _rest

    def __cinit__(self, list nodes, list fields, list order, int columns, int root, int rest):
        """`nodes`: (op, column, first field, fields); `fields`: (key in UTF-8, node); `order`: the numbers of the fields,
        those of each node by the length of the key and its bytes; `rest`: the column of the rest, or -1. They are the
        plan's own and not checked here."""
        cdef const uint8_t* data
        cdef size_t size = 0
        cdef int i
        for key, _ in fields:
            size += <size_t>len(key)
        self._nodes = <Node*>calloc(len(nodes), sizeof(Node))
        self._fields = <Field*>calloc(len(fields) + 1, sizeof(Field))
        self._order = <int*>calloc(len(fields) + 1, sizeof(int))
        self._keys = <uint8_t*>malloc(size + 1)
        if self._nodes == NULL or self._fields == NULL or self._order == NULL or self._keys == NULL:
            raise MemoryError
        for i, (op, column, first, count) in enumerate(nodes):
            self._nodes[i] = Node(op, column, first, count)
        size = 0
        for i, (key, node) in enumerate(fields):
            data = key
            memcpy(self._keys + size, data, <size_t>len(key))
            self._fields[i] = Field(self._keys + size, <int>len(key), node)
            self._order[i] = order[i]
            size += <size_t>len(key)
        self._count = <int>len(nodes)
        self._fields_count = <int>len(fields)
        self._columns = columns
        self._root = root
        self._rest = rest

    def __dealloc__(self):
        free(self._nodes)
        free(self._fields)
        free(self._order)
        free(self._keys)

    def read(self, offsets, data, int64_t first_value, rows, int64_t skip_bytes):
        """The values number `rows` (int64 buffer) of a binary array (int32 `offsets`, that of its first value at
        `first_value`; `data`), each without its first `skip_bytes`.

        (rows taken, rows refused, of those taken the rows with a key that might have a column: blocks of int64; columns
        as take_column gives them)."""
        cdef Reading reading
        cdef Vec novel
        cdef Run run
        cdef int outcome
        memset(&reading, 0, sizeof(Reading))
        memset(&novel, 0, sizeof(Vec))
        memset(&run, 0, sizeof(Run))
        try:
            begin_reading(&reading, offsets, data, first_value, rows, skip_bytes, self._columns)
            run.nodes = self._nodes
            run.fields = self._fields
            run.order = self._order
            run.columns = reading.columns
            if self._rest >= 0:
                run.rest = &run.columns[self._rest]
            run.seen = <int64_t*>calloc(self._fields_count + 1, sizeof(int64_t))
            if run.seen == NULL:
                raise MemoryError
            with nogil:
                outcome = self._run(&run, &reading, &novel)
            if outcome != OK:
                raise MemoryError
            return take(&reading.taken), take(&reading.refused), take(&novel), take_columns(&reading)
        finally:
            end_reading(&reading)
            free(run.seen)
            free(run.slots.data)
            free(run.key.data)
            free(novel.data)

    cdef int _run(self, Run* run, Reading* reading, Vec* novel) noexcept nogil:
        cdef int64_t i, done = 0
        cdef int outcome = self._begin(run)
        for i in range(reading.count):
            if outcome == NO_MEMORY:
                return NO_MEMORY
            look_ahead(reading, i)
            run.at = value_start(reading, i)
            run.end = value_end(reading, i)
            run.rest_start = run.rest.data.size if run.rest != NULL else 0
            outcome = read_row(run, self._root) if run.at <= run.end else REFUSED
            if outcome == OK:
                outcome = took(reading, i)
                if outcome == OK and run.rest != NULL:
                    outcome = end_rest(run)
                if outcome == OK and run.novel:
                    outcome = push(novel, &reading.rows[i], sizeof(int64_t))
                done += 1
            elif outcome != NO_MEMORY:
                truncate(run, self._root, done)
                if run.rest != NULL:
                    run.rest.data.size = run.rest_start
                outcome = refuse(reading, i)
        return outcome

    cdef int _begin(self, Run* run) noexcept nogil:
        """Offsets begin with a zero."""
        cdef const Node* node
        cdef int i
        for i in range(self._count):
            node = &self._nodes[i]
            if node.column < 0:
                continue
            if node.op == TEXT or node.op == JSON or node.op == LIST or node.op == RESTS:
                if push_zeros(&run.columns[node.column].offsets, sizeof(int64_t)) != OK:
                    return NO_MEMORY
            elif node.op == MAP:
                if push_zeros(&run.columns[node.column].offsets, sizeof(int32_t)) != OK:
                    return NO_MEMORY
        return OK
