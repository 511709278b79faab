"""Drops a shared library's machine code for other GPUs: `prune.py IN OUT ARCHITECTURES`, such as 90 or 80,90.

Device code lies in containers (fat binaries), each with an entry for every architecture. A container stays where it is, and so does
everything else in the file: only its entries get fewer, and zeros follow them, which compress to nothing.
"""

import mmap
import shutil
import struct
import sys
from collections import Counter

MAGIC = struct.pack("<I", 0xBA55ED50)
# Magic, version, the size of this, and the size of the entries.
CONTAINER = struct.Struct("<IHHQ")
# Kind, a word not looked at, the size of the entry's header, and of what follows it; the architecture lies further on.
ENTRY = struct.Struct("<HHIQ")
KINDS = {1, 2, 16, 17, 64}
ARCHITECTURE = 28


def main() -> None:
    source, target, wanted = sys.argv[1:]
    keep = {int(architecture) for architecture in wanted.split(",")}
    shutil.copyfile(source, target)
    kept, dropped = Counter(), Counter()
    with open(target, "r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        position = data.find(MAGIC)
        while position >= 0:
            _, version, header, size = CONTAINER.unpack_from(data, position)
            begin, end = position + header, position + header + size
            if version != 1 or header != CONTAINER.size or size == 0 or end > len(data):
                # The same four bytes, meaning something else.
                position = data.find(MAGIC, position + len(MAGIC))
                continue
            found = entries(data, begin, end)
            # Never an empty container: where none is wanted, the smallest stays.
            chosen = [entry for entry in found if entry[2] in keep] or [min(found, key=lambda entry: entry[1])]
            for entry in found:
                (kept if entry in chosen else dropped)[entry[2]] += entry[1]
            body = b"".join(data[start : start + length] for start, length, _ in chosen)
            data[begin:end] = body + bytes(size - len(body))
            CONTAINER.pack_into(data, position, struct.unpack("<I", MAGIC)[0], version, header, len(body))
            position = data.find(MAGIC, end)
    for name, counted in (("kept", kept), ("dropped", dropped)):
        print(name, ", ".join(f"sm_{a}: {size / 1e6:.1f} MB" for a, size in sorted(counted.items())))


def entries(data: mmap.mmap, begin: int, end: int) -> list[tuple[int, int, int]]:
    """Start, length and architecture of a container's entries."""
    found = []
    while begin < end:
        kind, _, header, size = ENTRY.unpack_from(data, begin)
        if kind not in KINDS or header < 64 or size == 0 or begin + header + size > end:
            raise SystemExit(f"an entry at {begin} that is not understood: kind {kind}, sizes {header} and {size}")
        found.append((begin, header + size, struct.unpack_from("<I", data, begin + ARCHITECTURE)[0]))
        begin += header + size
    return found


if __name__ == "__main__":
    main()
