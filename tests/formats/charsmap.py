"""SentencePiece's precompiled_charsmap, written: a double-array trie of Darts' units and the replacements behind it."""
import base64
import struct


def units(entries):
    """{bytes: value} to 32-bit units; a child of a node with offset o and byte b lies at o ^ b, a value at o."""
    trie = {}
    for key, value in entries.items():
        node = trie
        for byte in key:
            node = node.setdefault(byte, {})
        node[0] = value
    cells, used, start = {}, {0}, 1

    def place(index, node, label):
        nonlocal start
        base = start
        while any(base ^ child in used for child in node):
            base += 1
        while start in used:
            start += 1
        used.update(base ^ child for child in node)
        offset = index ^ base
        assert offset < 1 << 21
        cells[index] = offset << 10 | (1 << 8 if 0 in node else 0) | label
        for child, below in node.items():
            if child == 0:
                cells[base] = 1 << 31 | below
            else:
                place(base ^ child, below, child)

    place(0, trie, 0)
    return [cells.get(i, 0) for i in range(max(cells) + 256)]


def charsmap(replacements):
    """{text: replacement} as base64."""
    blob, entries = b"", {}
    for text, replacement in replacements.items():
        entries[text.encode()] = len(blob)
        blob += replacement.encode() + b"\0"
    array = units(entries)
    return base64.b64encode(struct.pack(f"<I{len(array)}I", 4 * len(array), *array) + blob).decode()
