use thiserror::Error;

use isqrt_cov_proto::Printable;

/// What is wrong with a pickle.
#[derive(Debug, Error)]
pub enum PickleProblem {
    /// The bytes do not begin as a pickle does.
    #[error("is not a pickle of protocol 2 to 5; expected its first byte to be 0x80")]
    NoProtocol,
    /// A protocol that no torch writes.
    #[error("the pickle has protocol {0}; expected 2 to 5")]
    Protocol(u8),
    /// The pickle ends before it is complete.
    #[error("{needed} bytes should follow and {left} do; the file is truncated or damaged")]
    Truncated {
        /// What is missing to go on.
        needed: u64,
        /// The bytes to the end.
        left: u64,
    },
    /// A class or function that is not on the list.
    #[error(
        "names `{}`, which no state dict needs; nothing was run. If you trust the file, torch.load it and save \
         `model.state_dict()` alone",
        Printable(.0)
    )]
    Global(String),
    /// An opcode that checkpoints have no use for.
    #[error("opcode {}; expected those with which torch.save writes tensors, numbers and texts", opcode(*.0))]
    Opcode(u8),
    /// A value is taken where none is left.
    #[error("takes a value from an empty stack; the pickle is damaged")]
    Underflow,
    /// A run of values is taken whose beginning is not marked.
    #[error("takes values down to a mark that is not there; the pickle is damaged")]
    NoMark,
    /// The memo is asked for what is not in it.
    #[error("asks for value {0} of the memo, which was not put there; the pickle is damaged")]
    Memo(u32),
    /// An opcode or a constructor is given the wrong kind of value.
    #[error("{opcode} is given {found}; expected {expected}")]
    Operand {
        /// The opcode or constructor.
        opcode: &'static str,
        /// What is given.
        found: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// A dict is given keys without values.
    #[error("a dict is given {0} keys and values; expected an even number")]
    Odd(usize),
    /// A text that is not UTF-8.
    #[error("a text is not UTF-8; the pickle is damaged")]
    Text,
    /// The name of a module or class without an end.
    #[error("a module's or class's name does not end within 1024 bytes; the pickle is damaged")]
    Line,
    /// A length below zero.
    #[error("an integer of {0} bytes; expected a length of 0 or more")]
    NegativeLength(i32),
    /// Values nested deeper than any checkpoint's.
    #[error("values are nested more than {limit} deep; a checkpoint has a few levels")]
    Depth {
        /// The limit.
        limit: u16,
    },
    /// More than any checkpoint needs.
    #[error("the pickle has more than {limit} opcodes; a tensor needs some thirty")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// A reference to data outside the pickle that is not one to a storage.
    #[error("a persistent id is {found}; expected ('storage', type, key, location, number of elements)")]
    PersistentId {
        /// What it is.
        found: String,
    },
    /// A tensor made of something else than torch makes it of.
    #[error("a tensor's {part} is {found}; expected {expected}")]
    Tensor {
        /// Which part.
        part: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// The name of an opcode that is refused.
fn opcode(code: u8) -> String {
    let name = match code {
        b'i' => "INST",
        b'o' => "OBJ",
        0x92 => "NEWOBJ_EX",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        b'P' => "PERSID",
        b'I' => "INT",
        b'L' => "LONG",
        b'F' => "FLOAT",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'g' => "GET",
        b'p' => "PUT",
        _ => return format!("0x{code:02x}"),
    };
    name.to_owned()
}
