"""Arrow IPC streams, read and written by pyarrow; their memory and the number of their values are bounded.

pyarrow cannot limit the memory that it takes to decompress. Therefore the sizes that the compressed buffers declare
are added up before anything is decompressed; pyarrow refuses a buffer that is larger or smaller.
"""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
DAMAGED = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What the functions of this module, and pyarrow, raise for a stream that is damaged or too large."""
MAX_MESSAGES = 1000
MAX_BYTES = 64 << 20
"""Bytes of all buffers of a stream after decompression."""
MAX_ITEMS = 100_000
"""Items of a list column, in all rows of a record batch."""
MAX_TEXT_BYTES = 16 << 20
"""Bytes of a column's texts; string views may repeat the same bytes in each row."""


def read(body: bytes) -> pa.RecordBatchStreamReader:
    """Return a reader of record batches, which `validate` has to check."""
    count = size = 0
    for message in pa.ipc.MessageReader.open_stream(body):
        count += 1
        try:
            size += _decompressed_size(message)
        except struct.error as err:
            raise pa.ArrowInvalid("a buffer is outside of its message") from err
        if count > MAX_MESSAGES:
            raise pa.ArrowInvalid(f"it has more than {MAX_MESSAGES} messages; write fewer, larger record batches")
        if size > MAX_BYTES:
            raise pa.ArrowInvalid(f"it has more than {MAX_BYTES} bytes after decompression; send fewer rows at once")
    return pa.ipc.open_stream(body)


def _decompressed_size(message: pa.ipc.Message) -> int:
    """Return the sum of the sizes that compressed buffers declare.

    The layout of a message is in Message.fbs of Arrow's format; pyarrow has verified its flatbuffer.
    """
    metadata = message.metadata
    (root,) = struct.unpack_from("<I", metadata)
    header = _follow(metadata, root, slot=2)
    if message.type == "dictionary":
        header = _follow(metadata, header, slot=1)
    if message.type == "schema" or not _follow(metadata, header, slot=3):
        return 0  # without compression
    buffers = _follow(metadata, header, slot=2)
    (count,) = struct.unpack_from("<I", metadata, buffers)
    places = struct.iter_unpack("<qq", memoryview(metadata)[buffers + 4 : buffers + 4 + 16 * count])
    sizes = [struct.unpack_from("<q", message.body, start)[0] for start, length in places if length]
    return sum(max(0, size) for size in sizes)  # -1 is a buffer without compression


def _follow(metadata: pa.Buffer, table: int, slot: int) -> int:
    """Return the position of the table or list to which a field of a flatbuffer's table refers, 0 if it is absent."""
    entries = table - struct.unpack_from("<i", metadata, table)[0]
    present = 4 + 2 * slot < struct.unpack_from("<H", metadata, entries)[0]
    offset = struct.unpack_from("<H", metadata, entries + 4 + 2 * slot)[0] if present else 0
    return table + offset + int(struct.unpack_from("<I", metadata, table + offset)[0]) if offset else 0


def validate(batch: pa.RecordBatch) -> None:
    """Check all sizes, offsets, indices and texts of a record batch."""
    batch.validate()
    for column, name in zip(batch.columns, batch.schema.names, strict=True):
        _check_values(column, name)
    batch.validate(full=True)  # which reads the text of every view


def _check_values(array: pa.Array, name: str) -> None:
    """Raise ArrowInvalid if a column has more items or text than may be copied."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        _check_values(array.dictionary, name)
    elif pa.types.is_string_view(kind):
        lengths = np.frombuffer(array.buffers()[1] or b"", "<i4")[4 * array.offset :: 4][: len(array)]
        if lengths.sum(dtype=np.int64) > MAX_TEXT_BYTES:
            raise pa.ArrowInvalid(f"column {name[:100]!r}: its texts have more than {MAX_TEXT_BYTES} bytes in all")
    elif pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            _check_values(array.field(i), name)
    elif hasattr(array, "values"):  # a list of any kind
        if len(array.values) > MAX_ITEMS:
            text = f"its lists have more than {MAX_ITEMS} items in all; send fewer rows at once"
            raise pa.ArrowInvalid(f"column {name[:100]!r}: {text}")
        _check_values(array.values, name)


def write(columns: dict[str, pa.Array]) -> bytes:
    """Return a stream of one record batch."""
    batch, sink = pa.record_batch(columns), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())
