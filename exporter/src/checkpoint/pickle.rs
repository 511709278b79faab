//! A reader of pickles that runs nothing.
//!
//! A pickle is a program for a stack machine; in Python its `REDUCE` calls whatever the file names. Here it calls the
//! few constructors of [`super::globals`], and any other name ends the reading (CVE-2025-32434, CVE-2026-24747).
//!
//! Values lie in one list and refer to each other by their place in it. So a list may contain itself, sharing costs
//! nothing, and nesting however deep is dropped without recursion. Each opcode makes at most one value and each
//! costs at least a byte: time and memory are linear in the pickle, and bounded by [`OPCODES`].

mod call;
mod cursor;
mod problem;

use std::collections::HashMap;

use super::element::Element;
use super::globals::{self, Global};
use cursor::Cursor;
pub use problem::PickleProblem;

/// The most opcodes of a pickle. A tensor takes some thirty of them.
const OPCODES: usize = 1 << 22;

/// How deep values may be nested.
const DEPTH: u16 = 256;

/// A value's place in the list.
pub(super) type Id = u32;

/// Something that a pickle made.
#[derive(Debug)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, little-endian.
    Long(&'a [u8]),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Bytes that are the characters of a text, as protocol 2 writes them.
    Latin1(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    NumpyDtype(NumpyDtype),
    Storage(Storage<'a>),
    Tensor(Box<Tensor>),
    /// Anything else, by the name it has in messages.
    Inert(&'static str),
}

/// A type of NumPy's numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct NumpyDtype {
    pub(super) kind: char,
    pub(super) bytes: usize,
}

/// A storage that the pickle refers to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    /// Its name in the file.
    pub(super) key: &'a str,
    /// The type of its elements.
    pub(super) element: &'static Element,
    /// How many elements the whole storage has.
    pub(super) length: u64,
    /// Where this one begins in it; other than 0 in old files only, as the length below.
    pub(super) start: u64,
    /// How many elements this one has.
    pub(super) size: u64,
}

/// A tensor: a view of a storage.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    /// The storage's place in the list.
    pub(super) storage: Id,
    /// The type of the elements, where it is not the storage's.
    pub(super) element: Option<&'static Element>,
    /// The first element in the storage.
    pub(super) offset: i64,
    pub(super) dims: Vec<i64>,
    /// The distance in elements between neighbors along each dimension.
    pub(super) strides: Vec<i64>,
}

/// What a pickle holds.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    /// The value that the pickle is about.
    pub(super) top: Id,
    /// The byte after the pickle.
    pub(super) end: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle that begins at byte `start`. The error comes with the byte of the opcode that it is about.
    pub(super) fn read(content: &'a [u8], start: usize) -> Result<Self, (usize, PickleProblem)> {
        let mut machine = Machine {
            cursor: Cursor { content, at: start },
            values: Vec::new(),
            depths: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        };
        if content.get(start) != Some(&0x80) {
            return Err((start, PickleProblem::NoProtocol));
        }
        for _ in 0..OPCODES {
            let at = machine.cursor.at;
            if machine.step().map_err(|problem| (at, problem))? {
                let top = machine.pop().map_err(|problem| (at, problem))?;
                return Ok(Self { values: machine.values, top, end: machine.cursor.at });
            }
        }
        Err((machine.cursor.at, PickleProblem::TooMany { limit: OPCODES }))
    }

    /// The value at a place.
    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    /// The places of all storages that the pickle refers to.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage<'a>> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }
}

impl Value<'_> {
    /// What the value is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a truth value",
            Value::Int(_) | Value::Long(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Text(_) => "a text",
            Value::Bytes(_) | Value::Latin1(_) => "bytes",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dict",
            Value::Global(_) => "a class or function",
            Value::NumpyDtype(_) => "a NumPy dtype",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
            Value::Inert(name) => name,
        }
    }
}

/// The stack machine.
struct Machine<'a> {
    cursor: Cursor<'a>,
    values: Vec<Value<'a>>,
    /// How deep each value is nested, counted when its parts are put into it.
    depths: Vec<u16>,
    stack: Vec<Id>,
    /// The heights of the stack at which `MARK` stood.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Elements that calls have copied out of other values.
    copied: usize,
}

impl<'a> Machine<'a> {
    /// Does one opcode. True at the end.
    fn step(&mut self) -> Result<bool, PickleProblem> {
        let opcode = self.cursor.byte()?;
        match opcode {
            0x80 => match self.cursor.byte()? {
                2..=5 => {}
                found => return Err(PickleProblem::Protocol(found)),
            },
            // FRAME only says how much to read ahead.
            0x95 => {
                let length = self.cursor.u64()?;
                self.cursor.has(length)?;
            }
            b'.' => return Ok(true),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                // In Python, POP takes a mark as well.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.peek()?;
                self.stack.push(top);
            }
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let value = self.cursor.u32()?.cast_signed();
                self.push(Value::Int(value.into()));
            }
            b'K' => {
                let value = self.cursor.byte()?;
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = self.cursor.u16()?;
                self.push(Value::Int(value.into()));
            }
            0x8a => {
                let length = self.cursor.byte()?;
                self.long(length.into())?;
            }
            0x8b => {
                let length = self.cursor.u32()?.cast_signed();
                let length = u64::try_from(length).map_err(|_| PickleProblem::NegativeLength(length))?;
                self.long(length)?;
            }
            b'G' => {
                let value = f64::from_bits(self.cursor.u64()?.swap_bytes());
                self.push(Value::Float(value));
            }
            b'X' | 0x8c | 0x8d => {
                let length = self.length(opcode, b'X', 0x8c)?;
                let text = str::from_utf8(self.cursor.take(length)?).map_err(|_| PickleProblem::Text)?;
                self.push(Value::Text(text));
            }
            // Python 2 writes its texts so, whatever they are.
            b'T' | b'U' => {
                let length = self.length(opcode, b'T', b'U')?;
                let bytes = self.cursor.take(length)?;
                self.push(str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text));
            }
            b'B' | b'C' | 0x8e | 0x96 => {
                let length = self.length(opcode, b'B', b'C')?;
                let bytes = self.cursor.take(length)?;
                self.push(Value::Bytes(bytes));
            }
            _ => self.compound(opcode)?,
        }
        Ok(false)
    }

    /// Does an opcode that takes values from the stack or the memo.
    fn compound(&mut self, opcode: u8) -> Result<(), PickleProblem> {
        match opcode {
            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_mark()?;
                self.tuple(items)?;
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let base = self.stack.len().checked_sub(count).filter(|&base| base >= self.base());
                let items = self.stack.split_off(base.ok_or(PickleProblem::Underflow)?);
                self.tuple(items)?;
            }
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(Vec::new()));
                self.extend(&items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item])?;
            }
            // A set is filled as a list is.
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(&items)?;
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(Vec::new()));
                self.insert(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.insert(&items)?;
            }
            0x8f => self.push(Value::Inert("a set")),
            0x91 => {
                self.pop_mark()?;
                self.push(Value::Inert("a frozenset"));
            }
            b'h' => {
                let key = self.cursor.byte()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = self.cursor.u32()?;
                self.recall(key)?;
            }
            b'q' => {
                let key = self.cursor.byte()?;
                self.memoize(key.into())?;
            }
            b'r' => {
                let key = self.cursor.u32()?;
                self.memoize(key)?;
            }
            0x94 => self.memoize(self.memo.len() as u32)?,
            b'c' | b'i' => {
                let module = self.cursor.line()?;
                let name = self.cursor.line()?;
                let global = global(module, name)?;
                // INST would make an object of a class of Python 1; named first, for whoever wants to know which.
                if opcode == b'i' {
                    return Err(PickleProblem::Opcode(opcode));
                }
                self.push(Value::Global(global));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (&Value::Text(module), &Value::Text(name)) = (self.get(module), self.get(name)) else {
                    return Err(self.operand("STACK_GLOBAL", module, "the names of a module and of a class"));
                };
                let global = global(module, name)?;
                self.push(Value::Global(global));
            }
            b'R' | 0x81 => {
                let (arguments, called) = (self.pop()?, self.pop()?);
                self.call(called, arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            b'Q' => {
                let reference = self.pop()?;
                self.refer(reference)?;
            }
            _ => return Err(PickleProblem::Opcode(opcode)),
        }
        Ok(())
    }

    fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    fn push(&mut self, value: Value<'a>) {
        self.push_nested(value, 1);
    }

    fn push_nested(&mut self, value: Value<'a>, depth: u16) {
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
        self.depths.push(depth);
    }

    /// The height below which the stack belongs to what is outside the last mark.
    fn base(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, PickleProblem> {
        let top = self.peek()?;
        self.stack.pop();
        Ok(top)
    }

    fn peek(&self) -> Result<Id, PickleProblem> {
        match self.stack.last() {
            Some(&top) if self.stack.len() > self.base() => Ok(top),
            _ => Err(PickleProblem::Underflow),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleProblem> {
        let mark = self.marks.pop().ok_or(PickleProblem::NoMark)?;
        Ok(self.stack.split_off(mark))
    }

    /// The depth of a value that holds these.
    fn depth_over(&self, items: &[Id]) -> Result<u16, PickleProblem> {
        let deepest = items.iter().map(|&item| self.depths[item as usize]).max().unwrap_or(0);
        if deepest >= DEPTH { Err(PickleProblem::Depth { limit: DEPTH }) } else { Ok(deepest + 1) }
    }

    /// Counts `items` as parts of the value `of`.
    fn deepen(&mut self, of: Id, items: &[Id]) -> Result<(), PickleProblem> {
        let depth = self.depth_over(items)?;
        let own = &mut self.depths[of as usize];
        *own = depth.max(*own);
        Ok(())
    }

    fn tuple(&mut self, items: Vec<Id>) -> Result<(), PickleProblem> {
        let depth = self.depth_over(&items)?;
        self.push_nested(Value::Tuple(items), depth);
        Ok(())
    }

    /// Appends to the list on the stack.
    fn extend(&mut self, items: &[Id]) -> Result<(), PickleProblem> {
        let to = self.peek()?;
        self.deepen(to, items)?;
        match &mut self.values[to as usize] {
            Value::List(list) => list.extend(items),
            Value::Inert(_) => {}
            _ => return Err(self.operand("APPENDS", to, "a list")),
        }
        Ok(())
    }

    /// Inserts keys and values, in turn, into the dict on the stack.
    fn insert(&mut self, items: &[Id]) -> Result<(), PickleProblem> {
        let to = self.peek()?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(PickleProblem::Odd(items.len()));
        };
        self.deepen(to, items)?;
        match &mut self.values[to as usize] {
            Value::Dict(dict) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(self.operand("SETITEMS", to, "a dict")),
        }
        Ok(())
    }

    fn memoize(&mut self, key: u32) -> Result<(), PickleProblem> {
        let top = self.peek()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), PickleProblem> {
        let id = *self.memo.get(&key).ok_or(PickleProblem::Memo(key))?;
        self.stack.push(id);
        Ok(())
    }

    fn long(&mut self, length: u64) -> Result<(), PickleProblem> {
        let bytes = self.cursor.take(length)?;
        let value = if bytes.len() <= 8 {
            let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
            let mut own = if negative { [0xff; 8] } else { [0; 8] };
            own[..bytes.len()].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(own))
        } else {
            Value::Long(bytes)
        };
        self.push(value);
        Ok(())
    }

    /// The length that follows an opcode: four bytes after `long`, one after `short`, eight after others.
    fn length(&mut self, opcode: u8, long: u8, short: u8) -> Result<u64, PickleProblem> {
        if opcode == long {
            Ok(self.cursor.u32()?.into())
        } else if opcode == short {
            Ok(self.cursor.byte()?.into())
        } else {
            self.cursor.u64()
        }
    }

    fn operand(&self, opcode: &'static str, found: Id, expected: &'static str) -> PickleProblem {
        PickleProblem::Operand { opcode, found: self.get(found).kind(), expected }
    }
}

fn global(module: &str, name: &str) -> Result<Global, PickleProblem> {
    globals::find(module, name).ok_or_else(|| PickleProblem::Global(format!("{module}.{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(program: &[u8]) -> String {
        Pickle::read(&[b"\x80\x04", program, b"."].concat(), 0).unwrap_err().1.to_string()
    }

    #[test]
    fn nesting_is_bounded_whatever_nests() {
        let deep = "values are nested more than 256 deep";
        for count in [300, 100_000] {
            assert!(error(&[vec![b']'; count], vec![b'a'; count - 1]].concat()).contains(deep));
            assert!(error(&[vec![b')'], vec![0x85; count]].concat()).contains(deep));
            assert!(error(&[vec![b'('; count], vec![b't'; count]].concat()).contains(deep));
            assert!(error(&[vec![b'('; count], vec![b'l'; count]].concat()).contains(deep));
            assert!(error(&[b"}".to_vec(), b"N}".repeat(count), vec![b's'; count]].concat()).contains(deep));
        }
    }

    #[test]
    fn values_that_contain_themselves_are_read_and_dropped() {
        let pickle = Pickle::read(b"\x80\x02]q\x00h\x00ah\x00a.", 0).unwrap();
        let Value::List(items) = pickle.get(pickle.top) else { panic!("{pickle:?}") };
        assert_eq!(items, &[pickle.top, pickle.top]);
    }

    #[test]
    fn work_is_bounded() {
        let many = "the pickle has more than 4194304 opcodes";
        assert!(error(&vec![b'N'; OPCODES]).contains(many));
        // A dict of a thousand pairs, made again and again of the same list.
        let pairs = [b"](".to_vec(), b"NN\x86".repeat(1000), b"e\x85q\x00".to_vec()].concat();
        let again = b"ccollections\nOrderedDict\nq\x010h\x01h\x00R".repeat(2100);
        assert!(error(&[pairs, again].concat()).contains(many));
    }

    #[test]
    fn numbers_of_every_width_are_read() {
        let int = |program: &[u8]| {
            let program = [b"\x80\x02", program, b"."].concat();
            let pickle = Pickle::read(&program, 0).unwrap();
            match pickle.get(pickle.top) {
                Value::Int(value) => *value,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(int(b"K\xff"), 255);
        assert_eq!(int(b"M\xff\xff"), 65535);
        assert_eq!(int(b"J\xff\xff\xff\xff"), -1);
        assert_eq!(int(b"\x8a\x00"), 0);
        assert_eq!(int(b"\x8a\x02\x00\x80"), -32768);
        assert_eq!(int(b"\x8b\x08\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\x7f"), i64::MAX);
    }
}
