"""What a picture's file says of itself, read from its bytes before a decoder allocates or computes anything.

Decoders trust these statements, and some pay for them at once: a few kilobytes can ask for thousands of passes over
a large picture, for a directory that is read again for each of its pages, for a canvas of gigabytes.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

# An animation is its first frame here; this bounds the work of counting the others.
MAX_FRAMES = 10_000
# Passes over a progressive JPEG, each of which may touch every pixel: ten are usual, djpeg's own guard is 500 as well.
MAX_SCANS = 500
# Segments of a JPEG, chunks of a PNG, blocks of a GIF's comments: Python looks at each. Encoders make them kilobytes.
MAX_PARTS = 100_000
# Entries of a TIFF's directory: cameras write some dozens.
MAX_ENTRIES = 4_096
# Numbers in a TIFF's directory (a strip or a tile has two) and runs of a BMP, of each of which Python makes an object.
MAX_NUMBERS = 1_000_000

_MAX_BRANDS = 1024  # bytes of a file type box that are looked at

# The next marker: filled with any number of 0xFF, neither a stuffed byte nor a restart, which stand inside scans.
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)
_JPEG_ALONE = (0x01, 0xD8)  # markers without a body
_TIFF_OFFSETS = (273, 324)  # StripOffsets, TileOffsets
_TIFF_BYTES = (1, 2, 7)  # BYTE, ASCII, UNDEFINED: kept as they are


class Undecodable(ValueError):
    """No picture: `reason` is the rule's name, `detail` one line of evidence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Undecodable "too_many_pixels" when the header promises more than `max_pixels`."""
    if width < 1 or height < 1:
        raise Undecodable("damaged", f"{width} x {height} pixels")
    if width * height > max_pixels:
        raise Undecodable("too_many_pixels", f"{width} x {height} is more than {max_pixels} pixels")


def check_jpeg(data: bytes) -> None:
    """Undecodable "too_many_scans" or "too_many_parts" by the markers up to the end of image (T.81, annex B)."""
    num_parts = num_scans = offset = 0
    while marker := _JPEG_MARKER.search(data, offset):
        offset = marker.end()
        code = marker[1][0]
        if code in _JPEG_ALONE:
            continue
        if code == 0xD9 or offset + 2 > len(data):
            return
        num_scans += code == 0xDA
        num_parts += 1
        if num_scans > MAX_SCANS:
            raise Undecodable("too_many_scans", f"more than {MAX_SCANS}")
        if num_parts > MAX_PARTS:
            raise Undecodable("too_many_parts", f"more than {MAX_PARTS} JPEG segments")
        offset += int.from_bytes(data[offset : offset + 2], "big")


def png_chunks(data: bytes) -> Iterator[tuple[int, bytes, memoryview]]:
    """(offset, type, body) of each chunk; Undecodable when one is cut or its checksum is wrong."""
    view = memoryview(data)
    offset = 8
    for _ in range(MAX_PARTS):
        if offset + 12 > len(data):
            raise Undecodable("truncated", f"PNG ends at byte {len(data)} without IEND")
        (length,) = struct.unpack_from(">I", data, offset)
        end = offset + 12 + length
        if end > len(data):
            raise Undecodable("truncated", f"PNG chunk at byte {offset} ends at {end} of {len(data)}")
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(view[offset + 4 : end - 4]) != checksum:
            raise Undecodable("damaged", f"PNG chunk at byte {offset} has a wrong checksum")
        yield offset, data[offset + 4 : offset + 8], view[offset + 8 : end - 4]
        if data[offset + 4 : offset + 8] == b"IEND":
            return
        offset = end
    raise Undecodable("too_many_parts", f"more than {MAX_PARTS} PNG chunks")


def check_png(data: bytes) -> None:
    """Every chunk's CRC-32 up to IEND (Pillow passes over those of IDAT)."""
    for _ in png_chunks(data):
        pass


def count_gif_frames(data: bytes) -> int:
    """Image blocks up to the trailer (GIF89a specification), or to an end between two blocks, which browsers show too.

    Undecodable when it ends within one, or holds too many frames, or too many blocks outside of them.
    """
    try:
        offset = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
        frames = parts = 0
        while not (frames and offset == len(data)) and (block := data[offset]) != 0x3B:
            if block == 0x21:
                offset += 2
            elif block == 0x2C:
                frames += 1
                flags = data[offset + 9]
                offset += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
            elif block == 0 and frames:
                # Padding between blocks, which encoders of the nineties wrote and every viewer passes over.
                offset += 1
                continue
            else:
                raise Undecodable("damaged", f"GIF block of unknown type {block} at byte {offset}")
            num_blocks = 1
            while data[offset]:
                offset += data[offset] + 1
                num_blocks += 1
            offset += 1
            parts += num_blocks if block == 0x21 else 0  # a decoder reads the others without Python
            if frames > MAX_FRAMES:
                raise Undecodable("too_many_frames", f"more than {MAX_FRAMES}")
            if parts > MAX_PARTS:
                raise Undecodable("too_many_parts", f"more than {MAX_PARTS} GIF blocks that are no picture")
    except IndexError:
        raise Undecodable("truncated", f"GIF ends at byte {len(data)} without its trailer") from None
    return frames


def count_tiff_pages(data: bytes) -> int:
    """Pages of a TIFF by its chain of directories (TIFF 6.0, section 2), counted to MAX_FRAMES.

    Undecodable "truncated" when a directory lies outside the file, "too_many_parts" when the first, which alone is
    read, holds more than MAX_ENTRIES entries or MAX_NUMBERS numbers.
    """
    order = "<" if data[:2] == b"II" else ">"
    seen: dict[int, None] = {}
    try:
        (offset,) = struct.unpack_from(order + "I", data, 4)
        while offset and offset not in seen and len(seen) < MAX_FRAMES:
            seen[offset] = None
            (num_entries,) = struct.unpack_from(order + "H", data, offset)
            end = offset + 2 + 12 * num_entries
            (following,) = struct.unpack_from(order + "I", data, end)
            if len(seen) == 1:
                _check_tiff_directory(data[offset + 2 : end], order)
            offset = following
    except struct.error:
        raise Undecodable("truncated", f"TIFF directory at byte {offset} of {len(data)}") from None
    return len(seen)


def _check_tiff_directory(entries: bytes, order: str) -> None:
    if len(entries) > 12 * MAX_ENTRIES:
        raise Undecodable("too_many_parts", f"{len(entries) // 12} entries in a TIFF directory")
    numbers = sum(
        count
        for tag, kind, count, _ in struct.iter_unpack(order + "HHII", entries)
        if kind not in _TIFF_BYTES or tag in _TIFF_OFFSETS
    )
    if numbers > MAX_NUMBERS:
        raise Undecodable("too_many_parts", f"{numbers} numbers in a TIFF directory, more than {MAX_NUMBERS}")


def check_bmp(data: bytes) -> None:
    """Undecodable "too_many_parts" for a BMP in more runs than Python, which unpacks them, should look at."""
    run_length_encoded = len(data) >= 34 and int.from_bytes(data[30:34], "little") in (1, 2)
    if run_length_encoded and len(data) > 2 * MAX_NUMBERS:
        raise Undecodable("too_many_parts", f"{len(data)} bytes of runs in a BMP, more than {2 * MAX_NUMBERS}")


def check_ico(data: bytes, max_pixels: int) -> None:
    """Undecodable when a picture of an icon lies outside the file or exceeds `max_pixels` by its own header.

    The directory's sizes are bytes and say nothing: each entry is a whole PNG, or a BMP without its file header.
    """
    (num_entries,) = struct.unpack_from("<H", data, 4)
    for entry in range(num_entries):
        try:
            (offset,) = struct.unpack_from("<I", data, 6 + 16 * entry + 12)
            if data[offset : offset + 8] == b"\x89PNG\r\n\x1a\n":
                width, height = struct.unpack_from(">II", data, offset + 16)
            elif data[offset : offset + 4] == b"\x0c\x00\x00\x00":
                width, height = struct.unpack_from("<HH", data, offset + 4)
                height //= 2
            else:
                width, height = struct.unpack_from("<Ii", data, offset + 4)
                height = abs(height) // 2  # of the colours and of the mask below them
        except struct.error:
            raise Undecodable("truncated", f"ICO ends at byte {len(data)}, before its picture {entry}") from None
        check_size(width, height, max_pixels)


def is_avif(data: bytes) -> bool:
    """Whether the file type box has an AVIF brand, as the major one or among the compatible (AVIF 1.1, section 6)."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), len(data), _MAX_BRANDS)
    return any(data[at : at + 4] in (b"avif", b"avis") for at in (8, *range(16, end - 3, 4)))


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP by its header (RFC 9649), before libwebp allocates a canvas for them."""
    if 8 + int.from_bytes(data[4:8], "little") > len(data):
        raise Undecodable("truncated", f"WebP says {8 + int.from_bytes(data[4:8], 'little')} bytes, has {len(data)}")
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(data) >= 30:
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    raise Undecodable("damaged", f"WebP chunk {kind!r}")
