"""Checkpoints that are damaged or mean harm, and what the reader must say of each.

    python make.py        # the standard library alone

`cases.json` has a piece of the expected message for each file. None of these files may be given to `torch.load` with
`weights_only=False`: some would run a command (it creates no more than a file `harm` in the current folder).
"""

import io
import json
import pickle
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

HERE = Path(__file__).parent
CASES = {}

# Pickles, opcode by opcode.


def integer(value):
    if 0 <= value < 256:
        return b"K" + bytes([value])
    encoded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def text(value):
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def called(module, name):
    return f"c{module}\n{name}\n".encode()


def many(*parts):
    return b"(" + b"".join(parts) + b"t"


def integers(values):
    return many(*map(integer, values))


FLOATS = called("torch", "FloatStorage")


def storage(key="0", elements=4, kind=FLOATS, view=b""):
    return many(text("storage"), kind, text(key), text("cpu"), integer(elements), view) + b"Q"


def tensor(dims=(2, 2), strides=(2, 1), offset=0, of=None):
    hooks = called("collections", "OrderedDict") + b")R"
    parts = many(of or storage(), integer(offset), integers(dims), integers(strides), b"\x89", hooks)
    return called("torch._utils", "_rebuild_tensor_v2") + parts + b"R"


def mapping(**entries):
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def program(value, protocol=2):
    return bytes([0x80, protocol]) + value + b"."


# Archives, entry by entry. Each field of an entry's own header and of the directory may lie.


def entry(name, data, place, local=None, central=None, start=None):
    fields = {"flags": 0, "method": 0, "crc": zlib.crc32(data), "stored": len(data), "size": len(data), "name": name}
    own, listed = fields | (local or {}), fields | (central or {})
    header = struct.pack(
        "<4s5H3I2H",
        b"PK\3\4",
        0,
        own["flags"],
        own["method"],
        0,
        0,
        own["crc"],
        own["stored"],
        own["size"],
        len(own["name"]),
        0,
    )
    fixed = struct.pack(
        "<4s6H3I5H2I",
        b"PK\1\2",
        0,
        0,
        listed["flags"],
        listed["method"],
        0,
        0,
        listed["crc"],
        listed["stored"],
        listed["size"],
        len(listed["name"]),
        0,
        0,
        0,
        0,
        0,
        place if start is None else start,
    )
    return header + own["name"].encode() + data, fixed + listed["name"].encode()


def pack(entries, end=None, comment=b"", gap=b""):
    body, directory = b"", b""
    for name, data, *lies in entries:
        here, there = entry(name, data, len(body), **(lies[0] if lies else {}))
        body, directory = body + here, directory + there
    numbers = {"here": len(entries), "all": len(entries), "size": len(directory), "offset": len(body)} | (end or {})
    end = struct.pack(
        "<4s4H2IH", b"PK\5\6", 0, 0, numbers["here"], numbers["all"], numbers["size"], numbers["offset"], len(comment)
    )
    return body + directory + gap + end + comment


NUMBERS = struct.pack("<4f", 1, 2, 3, 4)
# The same as a legacy file has them.
FOUR = struct.pack("<q", 4) + NUMBERS


def archive(pickled, data=NUMBERS, more=(), **options):
    entries = [("a/data.pkl", pickled), ("a/byteorder", b"little"), ("a/data/0", data), ("a/version", b"3\n"), *more]
    return pack(entries, **options)


def lying(name, **lies):
    """An honest archive but for one entry."""
    entries = [("a/data.pkl", HONEST), ("a/data/0", NUMBERS), ("a/version", b"3\n")]
    return pack([(key, data, lies) if key == name else (key, data) for key, data in entries])


HONEST = program(mapping(w=tensor()))
HARM = text("touch harm") + b"\x85R"


def case(name, content, message):
    path = HERE / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    CASES[name] = message


def pickled(name, value, message, protocol=2):
    case(f"{name}.pth", archive(program(value, protocol)), message)


def harm():
    refused = "names `os.system`, which no state dict needs; nothing was run"
    system = called("os", "system")
    pickled("harm_reduce", mapping(w=tensor(), x=system + HARM), refused)
    pickled("harm_first", system + HARM, refused)
    short = b"\x8c\x02os\x8c\x06system\x93\x8c\x0atouch harm\x85R"
    pickled("harm_stack_global", short, refused, protocol=4)
    state = b"}" + text("__setstate__") + system + b"s"
    pickled(
        "harm_build", called("collections", "OrderedDict") + b")R" + state + b"b" + text("touch harm") + b"b", refused
    )
    pickled("harm_inst", b"(" + text("touch harm") + b"ios\nsystem\n", refused)
    pickled("harm_obj", b"(" + system + text("touch harm") + b"o", refused)
    pickled("harm_newobj", system + text("touch harm") + b"\x85\x81", refused)
    pickled("harm_in_storage", mapping(w=tensor(of=storage(kind=system))), refused)
    pickled("harm_posix", called("posix", "system") + HARM, "names `posix.system`")
    pickled("harm_eval", called("__builtin__", "eval") + HARM, "names `__builtin__.eval`")
    pickled("harm_getattr", called("builtins", "getattr") + HARM, "names `builtins.getattr`")
    pickled(
        "harm_nested",
        called("torch.storage", "_load_from_bytes") + b"B\0\0\0\0\x85R",
        "names `torch.storage._load_from_bytes`",
    )
    pickled("harm_escape", called("os\x1b[2J", "system") + HARM, "names `os\\u{1b}[2J.system`")
    pickled("listed_inst", b"(icollections\nOrderedDict\n", "opcode INST")
    pickled("listed_obj", b"(" + called("collections", "OrderedDict") + b"o", "opcode OBJ")
    pickled(
        "whole_module",
        called("models.resnet", "ResNet") + b")\x81}b",
        "names `models.resnet.ResNet`, which no state dict needs",
    )
    pickled("extension", b"\x82\x01", "opcode EXT1")
    pickled("call_number", integer(1) + b")R", "REDUCE is given an integer; expected a class or function")
    pickled(
        "call_tensor",
        called("torch._utils", "_rebuild_tensor_v2") + b")R",
        "REDUCE is given a listed name with arguments",
    )


def damaged_pickles():
    pickled("empty_stack", b"", "takes a value from an empty stack")
    pickled("pop_below_mark", b"N(0" + b"(a", "takes a value from an empty stack")
    pickled("no_mark", b"t", "down to a mark that is not there")
    pickled("no_memo", b"h\x07", "asks for value 7 of the memo")
    pickled("odd_dict", b"}(Nu", "given 1 keys and values")
    pickled("append_to_number", b"K\1Na", "APPENDS is given an integer; expected a list")
    pickled("long_of_2_gigabytes", b"\x8b\xff\xff\xff\x7f", "2147483647 bytes should follow and 1 do")
    pickled("long_of_negative_length", b"\x8b\xff\xff\xff\xff", "an integer of -1 bytes")
    pickled("text_beyond_file", b"X\xff\xff\xff\xffab", "4294967295 bytes should follow and 3 do")
    pickled(
        "text_of_2_to_63", b"\x8d" + struct.pack("<Q", 1 << 63), "9223372036854775808 bytes should follow", protocol=4
    )
    pickled(
        "bytes_of_2_to_63", b"\x8e" + struct.pack("<Q", 1 << 63), "9223372036854775808 bytes should follow", protocol=4
    )
    pickled("frame_beyond_file", b"\x95" + struct.pack("<Q", 1 << 40), "1099511627776 bytes should follow", protocol=4)
    pickled("not_utf8", b"X\1\0\0\0\xff", "a text is not UTF-8")
    pickled("endless_name", b"c" + b"m" * 1100, "does not end within 1024 bytes")
    pickled("protocol_9", b"N", "the pickle has protocol 9; expected 2 to 5", protocol=9)
    case("protocol_0.pth", archive(b"(dp0\n."), "is not a pickle of protocol 2 to 5")
    case("no_stop.pth", archive(program(mapping(w=tensor()))[:-1]), "1 bytes should follow and 0 do")
    pickled("text_opcode", b"I1\n", "opcode INT")
    deep = "values are nested more than 256 deep"
    pickled("deep_lists", b"]" * 600 + b"a" * 599, deep)
    pickled("deep_tuples", b")" + b"\x85" * 600, deep)
    pickled("deep_dicts", b"}" + b"K\0}" * 600 + b"s" * 600, deep)
    pickled("list_of_itself", b"]q\0h\0a", "the file is about a list")
    pickled("dict_of_itself", b"}q\0" + text("state_dict") + b"h\0s", "holds no state dict: its keys are `state_dict`")
    # Sixty levels, each the one below twice: 2^60 values for whoever writes them out.
    doubled = b")q\0" + b"".join(b"h%ch%c\x86q%c" % (level, level, level + 1) for level in range(60))
    pickled("memo_bomb", mapping(state_dict=doubled), "holds no state dict: its keys are `state_dict`")
    pickled(
        "memo_bomb_inside", mapping(state_dict=mapping(w=doubled)), "holds no state dict: its keys are `state_dict`"
    )


def views():
    def one(name, message, **options):
        pickled(name, mapping(**{"layer.weight": tensor(**options)}), f"tensor `layer.weight`: {message}")

    one(
        "tensor_beyond_storage",
        "dims [2, 4], strides [4, 1] and offset 0 need 8 elements; storage `0` has 4",
        dims=(2, 4),
        strides=(4, 1),
    )
    one("offset_beyond_storage", "dims [2, 2], strides [2, 1] and offset 1 need 5 elements", offset=1)
    one(
        "dims_2_to_62",
        "dims [4611686018427387904], strides [1] and offset 0 need 4611686018427387904",
        dims=(1 << 62,),
        strides=(1,),
    )
    one("dims_product", "dims are [1099511627776, 1099511627776]; expected", dims=(1 << 40, 1 << 40), strides=(0, 0))
    one(
        "dims_product_with_zero",
        "dims are [0, 1099511627776, 1099511627776]; expected",
        dims=(0, 1 << 40, 1 << 40),
        strides=(0, 0, 0),
    )
    one("dims_negative", "dims are [-2, -2]; expected sizes of 0 or more", dims=(-2, -2))
    one("stride_negative", "begins at element 3 with strides [-1]", dims=(4,), strides=(-1,), offset=3)
    one("offset_negative", "begins at element -1", offset=-1)
    one(
        "stride_overflow",
        "dims [3, 3], strides [9223372036854775807, 9223372036854775807]",
        dims=(3, 3),
        strides=((1 << 63) - 1,) * 2,
    )
    one("expanded", "dims [1099511627776] with strides [0] repeat elements", dims=(1 << 40,), strides=(0,))
    one(
        "storage_of_2_to_62",
        "storage `0` has 16 bytes; expected more than 2^64",
        of=storage(elements=1 << 62),
        dims=(1 << 62,),
        strides=(1,),
    )
    one("absent_storage", "the zip archive has no entry `a/data/7`", of=storage("7"))
    one("storage_outside", "the zip archive has no entry `a/data/../x`", of=storage("../x"))
    one("storage_of_root", "the zip archive has no entry `a/data//etc/passwd`", of=storage("/etc/passwd"))
    one(
        "complex",
        "is of type complex64; expected float16",
        of=storage(elements=2, kind=called("torch", "ComplexFloatStorage")),
        dims=(2,),
        strides=(1,),
    )
    pickled(
        "many_dims", mapping(w=tensor(dims=(1,) * 65, strides=(1,) * 65)), "shape is 65 numbers; expected at most 64"
    )
    pickled(
        "dims_beyond_64_bits",
        mapping(w=tensor(dims=(1 << 70,), strides=(1,))),
        "is given an integer; expected integers below 2^63",
    )
    pickled(
        "few_strides",
        mapping(w=tensor(strides=(1,))),
        "strides is [1] for dims [2, 2]; expected one for each dimension",
    )
    pickled("tensor_of_text", mapping(w=tensor(of=text("0"))), "a tensor is given a text; expected a storage")
    pickled("storage_negative", mapping(w=tensor(of=storage(elements=-4))), "a persistent id is one of -4 elements")
    pickled("id_of_text", text("0") + b"Q", "a persistent id is a text; expected ('storage'")
    pickled("id_of_module", many(text("module"), text("0")) + b"Q", "a persistent id is (a text, a text)")
    pickled(
        "quantized",
        mapping(w=called("torch._utils", "_rebuild_qtensor") + b")R", x=tensor()),
        "tensor `w`: is a quantized tensor; expected a plain tensor",
    )
    pickled("twice", mapping(w=tensor()) + text("w") + tensor() + b"s", "tensor `w`: is in the state dict twice")
    pickled(
        "no_tensors",
        mapping(epoch=integer(3), args=b"}"),
        "holds no state dict: its keys are `epoch`, `args`, and none is a dict of tensors",
    )
    pickled("only_optimizer", mapping(optimizer=mapping(w=tensor())), "holds no state dict: its keys are `optimizer`")
    pickled(
        "name_of_number",
        b"}" + integer(0) + tensor() + b"s",
        "holds no state dict: a tensor's name in it is an integer",
    )
    pickled("only_tensor", tensor(), "the file is about a tensor")
    case(
        "storage_short.pth",
        archive(HONEST, data=NUMBERS[:8]),
        "tensor `w`: storage `0` has 8 bytes; expected 16: 4 elements of type float32",
    )


def archives():
    honest = archive(HONEST)
    for place in (30, 100, len(honest) // 2, len(honest) - 22, len(honest) - 1):
        case(f"truncated_{place}.pth", honest[:place], "a zip archive without its end; the file is truncated")
    case("empty.pth", b"", "is not a checkpoint: the file is empty")
    case("magic.pth", b"QK" + honest[2:], "is not a checkpoint: it begins with 51 4b 03 04")
    case("nothing_in_it.pth", pack([]), "is not a checkpoint: it begins as an empty or divided zip archive")
    case("duplicate.pth", archive(HONEST, more=[("a/data/0", NUMBERS)]), "two entries `a/data/0`")
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(NUMBERS) + packer.flush()
    compressed = {"method": 8, "size": len(NUMBERS), "crc": zlib.crc32(NUMBERS)}
    entries = [("a/data.pkl", HONEST), ("a/data/0", packed, {"local": compressed, "central": compressed})]
    arrays = [("w.npy", packed, {"local": compressed, "central": compressed})]
    case("compressed_arrays.pth", pack(arrays), "a NumPy archive; expected a checkpoint")
    case("compressed.pth", pack(entries), "entry `a/data/0` is compressed (method 8)")
    script = [("a/data.pkl", HONEST), ("a/code/model.py", packed, {"local": compressed, "central": compressed})]
    case("script_compressed.pth", pack(script), "a TorchScript archive: it has an entry `a/code/model.py`")
    case("encrypted.pth", lying("a/data/0", local={"flags": 1}, central={"flags": 1}), "entry `a/data/0` is encrypted")
    wrong = {"crc": 0x12345678}
    case(
        "checksum.pth",
        lying("a/data/0", local=wrong, central=wrong),
        f"entry `a/data/0`: its checksum is {zlib.crc32(NUMBERS):08x}; expected 12345678",
    )
    case(
        "checksum_of_pickle.pth", lying("a/data.pkl", local=wrong, central=wrong), "entry `a/data.pkl`: its checksum is"
    )
    case(
        "header_checksum.pth",
        lying("a/data/0", local=wrong),
        "entry `a/data/0`: its own header says checksum 305419896",
    )
    case(
        "header_name.pth",
        lying("a/data/0", local={"name": "a/data/1"}),
        "entry `a/data/0`: its own header says name `a/data/1`, the directory `a/data/0`",
    )
    case(
        "header_size.pth",
        lying("a/data/0", local={"size": 12}),
        "entry `a/data/0`: its own header says size 12, the directory 16",
    )
    case(
        "header_method.pth",
        lying("a/data/0", local={"method": 8}),
        "its own header says compression method 8, the directory 0",
    )
    case("header_flags.pth", lying("a/data/0", local={"flags": 8}), "its own header says flags 8, the directory 0")
    longer = {"size": 20, "stored": 20}
    case("overlapping.pth", lying("a/data/0", local=longer, central=longer), "overlap another entry")
    same = [
        ("a/data.pkl", HONEST),
        ("a/data/0", NUMBERS),
        ("a/data/0", NUMBERS, {"start": len(HONEST) + 40, "central": {"name": "a/data/1"}}),
    ]
    case("two_names.pth", pack(same), "entry `a/data/1`: its own header says name `a/data/0`")
    large = {"size": 1 << 20, "stored": 1 << 20}
    case(
        "beyond_file.pth", lying("a/version", local=large, central=large), "reach into the directory or beyond the file"
    )
    case("header_beyond_file.pth", lying("a/version", start=1 << 31), "reach into the directory or beyond the file")
    case("header_elsewhere.pth", lying("a/version", start=3), "do not begin with an entry's header")
    case("two_sizes.pth", lying("a/version", central={"stored": 1}), "a stored entry has two sizes")
    case(
        "zip64_without_sizes.pth",
        lying("a/version", central={"size": 0xFFFFFFFF, "stored": 0xFFFFFFFF}),
        "an entry lacks its zip64 sizes",
    )
    case("fewer_entries.pth", archive(HONEST, end={"here": 3, "all": 3}), "number of entries is 3; expected 4")
    case("more_entries.pth", archive(HONEST, end={"here": 500, "all": 500}), "number of entries is 500; expected 4")
    case("other_disk.pth", archive(HONEST, end={"here": 3}), "number of entries is 3; expected 4")
    case("directory_elsewhere.pth", archive(HONEST, end={"offset": 5}), "directory's end is")
    case("directory_beyond_file.pth", archive(HONEST, end={"size": 0xFFFFFFF0}), "directory's end is")
    case("directory_gap.pth", archive(HONEST, gap=b"\0" * 9), "directory's end is")
    two = archive(HONEST) + archive(HONEST)
    case("comment.pth", archive(HONEST, comment=two), "directory's end")
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 0, 0, 0, 0, 4, 4, 1, 1 << 63) + struct.pack(
        "<4sIQI", b"PK\6\7", 0, 1 << 62, 1
    )
    case("zip64_elsewhere.pth", archive(HONEST, gap=end64), "zip64 end is 4611686018427387904; expected")
    case("zip_in_zip.pth", pack([("a/inner.zip", archive(HONEST))]), "no entry `…/data.pkl`")
    case("zip_as_pickle.pth", archive(archive(HONEST)), "is not a pickle of protocol 2 to 5")
    case(
        "script.pth",
        archive(HONEST, more=[("a/code/model.py", b"pass"), ("a/constants.pkl", b"N.")]),
        "a TorchScript archive: it has an entry `a/code/model.py`",
    )
    case("arrays.pth", pack([("w.npy", b"\x93NUMPY")]), "a NumPy archive; expected a checkpoint")
    case(
        "two_pickles.pth", archive(HONEST, more=[("b/data.pkl", HONEST)]), "two pickles, `a/data.pkl` and `b/data.pkl`"
    )
    case(
        "big_endian.pth",
        pack([("a/data.pkl", HONEST), ("a/byteorder", b"big"), ("a/data/0", NUMBERS)]),
        "entry `a/byteorder` says `big`; expected `little`",
    )
    case("program.pth", pack([("a/archive_format", b"pt2")]), "a program of torch.export: it has an entry")
    case("no_data.pth", pack([("a/data.pkl", HONEST)]), "no entry `a/data/0`")


def legacy():
    head = program(integer(0x1950A86A20F9469CFC6C)) + program(integer(1001))

    def system(little=b"\x88"):
        return program(mapping(protocol_version=integer(1001), little_endian=little))

    def file(value, keys=("0",), data=FOUR, machine=None):
        return head + (machine or system()) + program(value) + program(b"](" + b"".join(map(text, keys)) + b"e") + data

    honest = file(mapping(w=tensor()))
    for place in (1, 12, 40, len(honest) // 2):
        case(
            f"legacy_truncated_{place}.pth",
            honest[:place],
            "is not a checkpoint" if place == 1 else "the file is truncated or damaged",
        )
    case(
        "legacy_truncated_in_storage.pth",
        honest[:-1],
        "a storage of 4 elements of type float32, with 15 bytes to the end of the file",
    )
    case("legacy_truncated_before_storage.pth", honest[:-20], "4 bytes for the length of a storage; expected 8")
    refused = "names `os.system`, which no state dict needs; nothing was run"
    case("legacy_harm.pth", file(called("os", "system") + HARM), refused)
    case("legacy_harm_first.pth", program(called("os", "system") + HARM), refused)
    case(
        "legacy_harm_in_keys.pth",
        head + system() + program(mapping(w=tensor())) + program(called("os", "system") + HARM),
        refused,
    )
    case(
        "legacy_arrays.pth",
        pickle.dumps({"w": [1, 2]}, 2),
        "a pickle of a dict, without the magic number that torch.save begins with",
    )
    case("legacy_other_magic.pth", program(integer(1 << 70)), "a pickle of an integer, without the magic number")
    case(
        "legacy_version.pth",
        program(integer(0x1950A86A20F9469CFC6C)) + program(integer(1002)),
        "torch's protocol version is 1002; expected 1001",
    )
    case(
        "legacy_big_endian.pth",
        file(mapping(w=tensor()), machine=system(b"\x89")),
        "the file was written big-endian; expected little_endian: True",
    )
    case(
        "legacy_unknown_endian.pth",
        file(mapping(w=tensor()), machine=program(b"}")),
        "it is not said how bytes are ordered",
    )
    case(
        "legacy_huge_storage.pth",
        file(mapping(w=tensor()), data=struct.pack("<q", 1 << 62) + NUMBERS),
        "a storage of 4611686018427387904 elements",
    )
    case(
        "legacy_negative_storage.pth",
        file(mapping(w=tensor()), data=struct.pack("<q", -4) + NUMBERS),
        "a storage of -4 elements",
    )
    case(
        "legacy_short_storage.pth",
        file(mapping(w=tensor()), data=struct.pack("<q", 3) + NUMBERS),
        "tensor `w`: storage `0` has 12 bytes; expected 16",
    )
    case(
        "legacy_no_storage.pth",
        file(mapping(w=tensor()), keys=(), data=b""),
        "tensor `w`: storage `0` is not in the file",
    )
    case("legacy_unknown_storage.pth", file(mapping(w=tensor()), keys=("1",)), "a storage is listed that no tensor has")
    data = FOUR * 2
    case("legacy_storage_twice.pth", file(mapping(w=tensor()), keys=("0", "0"), data=data), "a storage is listed twice")
    view = many(text("1"), integer(2), integer(3))
    case(
        "legacy_view_outside.pth",
        file(mapping(w=tensor(of=storage(view=view)))),
        "elements 2 and 3 more of a storage of 4",
    )
    view = many(text("1"), integer((1 << 63) - 1), integer((1 << 63) - 1))
    case("legacy_view_overflow.pth", file(mapping(w=tensor(of=storage(view=view)))), "more of a storage of 4")
    view = many(text("1"), integer(1), integer(3))
    case("legacy_beyond_view.pth", file(mapping(w=tensor(of=storage(view=view)))), "need 4 elements; storage `0` has 3")
    two = mapping(w=tensor(), x=tensor(of=storage(kind=called("torch", "DoubleStorage"))))
    case("legacy_two_types.pth", file(two), "a storage has elements of types float32 and float64")
    old = io.BytesIO()
    with tarfile.open(fileobj=old, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("sys_info"), io.BytesIO())
    case("tar.pth", old.getvalue()[:1024], "it is a tar archive, as PyTorch wrote them before 0.1.10")


def safetensors(header, data=NUMBERS, length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def described(dtype="F32", shape=(2, 2), start=0, end=16):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def tensors():
    def one(name, content, message):
        case(f"{name}.safetensors", content, message)

    honest = safetensors({"w": described()})
    one(
        "length_2_to_63",
        safetensors({"w": described()}, length=1 << 63),
        "safetensors header: its length is 9223372036854775808 bytes",
    )
    one(
        "length_beyond_file",
        safetensors({"w": described()}, length=1 << 20),
        "safetensors header: its length is 1048576 bytes",
    )
    one("header_truncated", honest[:40], "to the end of the file; expected at most those")
    one("data_truncated", honest[:-1], "expected offsets that follow each other and cover the file")
    one("data_surplus", honest + b"\0", "expected offsets that follow each other and cover the file")
    one("not_json", safetensors(b'{"w": hello}'), "safetensors header: is not a JSON object")
    one("json_then_more", safetensors(b'{"__metadata__": {}} {}', b""), "safetensors header: is not a JSON object")
    one(
        "deep_json",
        safetensors(b'{"w": ' + b"[" * 3000 + b"]" * 3000 + b"}", b""),
        "safetensors header: invalid JSON in header: recursion limit exceeded",
    )
    half = json.dumps(described(shape=(2,), end=8))
    one(
        "duplicate_name",
        safetensors(f'{{"w": {json.dumps(described())}, "w": {half}}}'.encode()),
        "has `w` twice; expected each name once",
    )
    one(
        "overlapping_offsets",
        safetensors({"v": described(shape=(3,), end=12), "w": described(shape=(2,), start=8)}),
        "invalid offset for tensor `w`",
    )
    one("same_offsets", safetensors({"v": described(), "w": described()}), "invalid offset for tensor")
    one(
        "hole",
        safetensors({"v": described(shape=(1,), end=4), "w": described(shape=(2,), start=8)}),
        "invalid offset for tensor `w`",
    )
    one("offsets_beyond_file", safetensors({"w": described(shape=(100,), end=400)}), "file not fully covered")
    one("offsets_backwards", safetensors({"w": described(start=16, end=0)}), "invalid offset for tensor `w`")
    one("offsets_negative", safetensors({"w": described(start=-16, end=0)}), "safetensors header: ")
    one("shape_disagrees", safetensors({"w": described(shape=(3, 3))}), "invalid shape, data type, or offset")
    one("shape_overflow", safetensors({"w": described(shape=(1 << 40, 1 << 40))}), "overflow")
    one("shape_negative", safetensors({"w": described(shape=(-2, -2))}), "safetensors header: ")
    one("float8", safetensors({"w": described("F8_E4M3", (16,))}), "tensor `w`: is of type F8_E4M3; expected float16")
    one("unknown_type", safetensors({"w": described("F12", (16,))}), "unknown variant `F12`")


def indexes():
    shutil.rmtree(HERE / "sharded", ignore_errors=True)
    (HERE / "sharded").mkdir()
    for shard in ("one", "two"):
        (HERE / f"sharded/{shard}.safetensors").write_bytes(safetensors({shard: described()}))
    both = safetensors({"one": described(shape=(2,), end=8), "two": described(shape=(2,), start=8)})
    (HERE / "sharded/both.safetensors").write_bytes(both)

    def one(name, places, message):
        content = places if isinstance(places, bytes) else json.dumps({"metadata": {}, "weight_map": places}).encode()
        case(f"sharded/{name}.json", content, message)

    plain = "is not a plain name; expected a file beside the index"
    one("parent", {"w": "../harm.safetensors"}, f"index: file `../harm.safetensors` {plain}")
    one("absolute", {"w": "/etc/passwd"}, f"index: file `/etc/passwd` {plain}")
    one("below", {"w": "folder/one.safetensors"}, f"index: file `folder/one.safetensors` {plain}")
    one("dot", {"w": "."}, f"index: file `.` {plain}")
    one("dots", {"w": ".."}, f"index: file `..` {plain}")
    one("slash", {"one": "one.safetensors/"}, plain)
    one("nameless", {"w": ""}, f"index: file `` {plain}")
    one("backslash", {"w": "..\\harm.safetensors"}, plain)
    one("missing", {"w": "three.safetensors"}, "index: file `three.safetensors` cannot be read")
    one("itself", {"w": "itself.json"}, "itself.json: safetensors header: ")
    one(
        "not_in_shard",
        {"one": "one.safetensors", "three": "two.safetensors"},
        "tensor `three` is not in `two.safetensors`, where it should be",
    )
    one(
        "in_the_other",
        {"one": "two.safetensors", "two": "one.safetensors"},
        "tensor `one` is not in `two.safetensors`, where it should be",
    )
    one(
        "in_two",
        {"one": "one.safetensors", "two": "both.safetensors"},
        "tensor `one` is in `one.safetensors` and in `both.safetensors`",
    )
    one("unlisted", {"one": "both.safetensors"}, "does not list tensor `two` of `both.safetensors`")
    one("twice", b'{"weight_map": {"one": "one.safetensors", "one": "two.safetensors"}}', "weight_map has `one` twice")
    one("two_maps", b'{"weight_map": {}, "weight_map": {}}', "duplicate field `weight_map`")
    one("not_an_object", b'{"weight_map": [1, 2]}', "expected a JSON object")
    one("number", b'{"weight_map": {"one": 1}}', "expected a JSON object whose `weight_map` names a file")
    one("not_json", b'{"weight_map": {"one": ', "index: EOF while parsing")


for old in [*HERE.glob("*.pth"), *HERE.glob("*.safetensors")]:
    old.unlink()
harm()
damaged_pickles()
views()
archives()
legacy()
tensors()
indexes()
(HERE / "cases.json").write_text(json.dumps(CASES, indent=1) + "\n")
