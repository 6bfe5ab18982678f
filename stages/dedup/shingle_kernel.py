"""Compiled shingling: UTF-8 bytes to hashes of word shingles, and those to MinHash signatures.

A text passes through a few loops over flat arrays, most of which LLVM turns into vector instructions: folded bytes and
what each is to words, where words begin and end, a hash a word, a hash a shingle, minima. numba is imported with this
module, so it is imported where it is first needed; the machine code is kept on disk. Nothing here starts a thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.dedup.compiled import jit

# What a character is to words, by stages.text.normal_form: between them, part of one, what joins two parts, a word.
BETWEEN, PART, JOINT, ALONE = range(4)

# Odd numbers of 64 bits: the fraction of the golden ratio, and two multipliers of known mixers (MurmurHash3, rrmxmx).
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MURMUR = np.uint64(0xFF51AFD7ED558CCD)
MIXER = np.uint64(0x9FB21C651E98DF25)
_HALF = np.uint64(32)
_LAST = np.uint64(29)
_EIGHT = np.uint64(8)
_EMPTY = np.uint32(0xFFFFFFFF)
_CODE_POINTS = 0x110000

# Masks of the first and of the second eight bytes of a word of 0 to 16 bytes.
FIRST_BYTES = np.array([(1 << 8 * min(length, 8)) - 1 for length in range(17)], np.uint64)
SECOND_BYTES = np.array([(1 << 8 * max(length - 8, 0)) - 1 for length in range(17)], np.uint64)


@jit
def _fold_ascii(source: Any, text: Any, flags: Any) -> None:
    for i in range(len(source)):
        byte = source[i]
        byte = np.uint8(byte | np.uint8(((byte >= 65) & (byte <= 90)) << 5))
        text[i] = byte
        part = ((byte >= 97) & (byte <= 122)) | ((byte >= 48) & (byte <= 57)) | (byte == 95)
        flags[i] = np.uint8(part | ((byte == 39) << 1))


@jit
def _put(point: Any, text: Any, flags: Any, at: int) -> int:
    """Write a code point of a word as UTF-8; returns where it ends."""
    if point < 0x80:
        text[at] = np.uint8(point)
        flags[at] = 1
        return at + 1
    if point < 0x800:
        text[at] = np.uint8(0xC0 | (point >> 6))
    elif point < 0x10000:
        text[at] = np.uint8(0xE0 | (point >> 12))
    else:
        text[at] = np.uint8(0xF0 | (point >> 18))
        flags[at] = 1
        at += 1
        text[at] = np.uint8(0x80 | ((point >> 12) & 0x3F))
    flags[at] = 1
    at += 1
    if point >= 0x800:
        text[at] = np.uint8(0x80 | ((point >> 6) & 0x3F))
        flags[at] = 1
        at += 1
    text[at] = np.uint8(0x80 | (point & 0x3F))
    flags[at] = 1
    return at + 1


@jit
def _fold(source: Any, kinds: Any, folds: Any, text: Any, flags: Any) -> int:
    """Fold a text into text[1:], with what each byte is to words in flags[1:]; returns how many bytes that makes.

    flags: PART, JOINT or BETWEEN; a character that is ALONE is a part between two bytes that are not. flags[0] and the
    flag behind the last byte are BETWEEN. A character that the text cuts off is none.
    """
    length = len(source)
    high = np.uint8(0)
    for i in range(length):
        high |= source[i]
    flags[0] = BETWEEN
    if high < 128:
        _fold_ascii(source, text[1:], flags[1:])
        flags[length + 1] = BETWEEN
        return length
    at = 1
    i = 0
    while i < length:
        # Unsigned places: numba tests every other for one that counts from the end.
        point = np.int64(source[np.uint64(i)])
        if point < 0x80:
            text[np.uint64(at)] = np.uint8(folds[np.uint64(point)])
            flags[np.uint64(at)] = kinds[np.uint64(point)]
            at += 1
            i += 1
            continue
        if point < 0xE0:
            width = 2
            if i + 2 <= length:
                point = ((point & 0x1F) << 6) | (source[i + 1] & 0x3F)
        elif point < 0xF0:
            width = 3
            if i + 3 <= length:
                point = ((point & 0xF) << 12) | ((source[i + 1] & 0x3F) << 6) | (source[i + 2] & 0x3F)
        else:
            width = 4
            if i + 4 <= length:
                point = ((point & 7) << 18) | ((source[i + 1] & 0x3F) << 12)
                point |= ((source[i + 2] & 0x3F) << 6) | (source[i + 3] & 0x3F)
        i += width
        kind = kinds[point] if i <= length and point < _CODE_POINTS else BETWEEN
        if kind == PART:
            at = _put(np.int64(folds[point]), text, flags, at)
            if point == 0x130:  # the only one that folds to two: a dotted capital I, to i and a dot above
                at = _put(0x307, text, flags, at)
            continue
        if kind == ALONE:
            flags[at] = BETWEEN
            at = _put(np.int64(folds[point]), text, flags, at + 1)
        if kind == JOINT:
            text[at] = 39
            flags[at] = JOINT
        else:
            flags[at] = BETWEEN
        at += 1
    flags[at] = BETWEEN
    return at - 1


@jit
def _join(flags: Any, before: Any, after: Any, inside: Any) -> None:
    """1 for every byte inside a word: parts, and joints between two parts."""
    for i in range(len(flags)):
        inside[i] = (flags[i] & 1) | ((flags[i] >> 1) & before[i] & after[i] & 1)


@jit
def _edges(inside: Any, length: int, edges: Any) -> Any:
    """Where words begin and end, in turn, in the text that inside[1 : length + 1] is about; returns how many words."""
    found = np.uint64(0)
    here = inside[1 : length + 2]
    before = inside[: length + 1]
    for i in range(length + 1):  # no branch: one that depends on the text costs more than all else here
        edges[found] = np.uint32(i + 1)
        found += np.uint64(here[i] ^ before[i])
    return np.int64(found >> np.uint64(1))


@jit
def _hash_words(windows: Any, edges: Any, number: int, first: Any, second: Any, hashes: Any) -> None:
    """A hash of 64 bits a word: its bytes, eight at a time and sixteen at least, padded with zeros."""
    for i in range(number):
        at = np.uint64(edges[2 * i])
        length = np.uint64(edges[2 * i + 1]) - at
        mixed = GOLDEN ^ length
        if length <= np.uint64(16):
            mixed = (mixed ^ (windows[at] & first[length])) * MURMUR
            mixed ^= mixed >> _HALF
            mixed = (mixed ^ (windows[at + _EIGHT] & second[length])) * MURMUR
        else:
            while length > _EIGHT:
                mixed = (mixed ^ windows[at]) * MURMUR
                mixed ^= mixed >> _HALF
                at += _EIGHT
                length -= _EIGHT
            mixed = (mixed ^ (windows[at] & first[length])) * MURMUR
        mixed ^= mixed >> _HALF
        mixed *= MIXER
        hashes[i] = mixed ^ (mixed >> _LAST)


@jit
def _hash_shingles(words: Any, number: int, size: int, hashes: Any) -> int:
    """A hash of 64 bits a shingle of `size` words, in order; fewer words are one shingle. Returns how many."""
    if number == 0:
        return 0
    leaving = np.uint64(1)
    rolled = np.uint64(0)
    for j in range(min(number, size)):
        rolled = rolled * GOLDEN + words[j]
        leaving *= GOLDEN
    hashes[0] = rolled
    found = 1
    for j in range(size, number):
        rolled = rolled * GOLDEN + words[j] - words[j - size] * leaving
        hashes[found] = rolled
        found += 1
    for i in range(found):
        mixed = (hashes[i] ^ (hashes[i] >> _HALF)) * MIXER
        hashes[i] = mixed ^ (mixed >> _HALF)
    return found


@jit
def _shingled(source: Any, size: int, tables: Any, scratch: Any) -> int:
    """Hashes of a text's shingles, into the last array of `scratch`; returns how many."""
    kinds, folds, first, second = tables
    text, windows, flags, inside, edges, words, hashes = scratch
    length = _fold(source, kinds, folds, text, flags)
    _join(flags[1 : length + 1], flags[:length], flags[2 : length + 2], inside[1 : length + 1])
    inside[length + 1] = 0
    number = _edges(inside, length, edges)
    _hash_words(windows, edges, number, first, second, words)
    return _hash_shingles(words, number, size, hashes)


@jit
def _mix(hashes: Any, number: int, mixed: Any) -> None:
    """The low 32 bits of hashes through MurmurHash3's finalizer, as datasketch does before its permutations."""
    for i in range(number):
        value = np.uint32(hashes[i])
        value = np.uint32(value ^ (value >> np.uint32(16)))
        value = np.uint32(value * np.uint32(0x85EBCA6B))
        value = np.uint32(value ^ (value >> np.uint32(13)))
        value = np.uint32(value * np.uint32(0xC2B2AE35))
        mixed[i] = np.uint32(value ^ (value >> np.uint32(16)))


@jit
def _minima(mixed: Any, number: int, a: Any, b: Any, signature: Any) -> None:
    """signature[k]: the smallest a[k] * value + b[k] modulo 2^32."""
    signature[:] = _EMPTY
    i = 0
    while i + 8 <= number:  # eight at a time: loads and stores of signature, a and b are shared
        v0, v1, v2, v3 = mixed[i], mixed[i + 1], mixed[i + 2], mixed[i + 3]
        v4, v5, v6, v7 = mixed[i + 4], mixed[i + 5], mixed[i + 6], mixed[i + 7]
        for k in range(len(signature)):
            x, y = a[k], b[k]
            # numba makes a product of two uint32 a uint64, which must be cut before it is compared.
            low = min(np.uint32(x * v0 + y), np.uint32(x * v1 + y))
            low = min(low, min(np.uint32(x * v2 + y), np.uint32(x * v3 + y)))
            high = min(np.uint32(x * v4 + y), np.uint32(x * v5 + y))
            high = min(high, min(np.uint32(x * v6 + y), np.uint32(x * v7 + y)))
            signature[k] = min(signature[k], min(low, high))
        i += 8
    for j in range(i, number):
        for k in range(len(signature)):
            signature[k] = min(signature[k], np.uint32(a[k] * mixed[j] + b[k]))


@jit
def sign(
    data: Any, offsets: Any, size: int, a: Any, b: Any, tables: Any, scratch: Any, mixed: Any, signatures: Any
) -> None:
    """Signatures uint32 (texts, permutations) of texts data[offsets[i] : offsets[i + 1]]; no shingle: all 2^32 - 1.

    `tables`, `scratch`, `mixed`: as stages.dedup.shingles makes them, for the longest of the texts.
    """
    for i in range(len(offsets) - 1):
        number = _shingled(data[offsets[i] : offsets[i + 1]], size, tables, scratch)
        _mix(scratch[6], number, mixed)
        _minima(mixed, number, a, b, signatures[i])


@jit
def hash_text(source: Any, size: int, tables: Any, scratch: Any) -> Any:
    """Hashes of a text's shingles, uint64, in order."""
    number = _shingled(source, size, tables, scratch)
    return scratch[6][:number].copy()
