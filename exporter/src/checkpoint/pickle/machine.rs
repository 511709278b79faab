//! The stack machine that a pickle is a program for.

use std::collections::HashMap;

use super::PickleProblem;
use super::cursor::Cursor;
use super::value::{Id, Value};
use crate::checkpoint::globals::{self, Global};

/// How deep values may be nested.
const DEPTH: u16 = 256;

/// The stack machine.
pub(super) struct Machine<'a> {
    pub(super) cursor: Cursor<'a>,
    pub(super) values: Vec<Value<'a>>,
    /// How deep each value is nested, counted when its parts are put into it.
    depths: Vec<u16>,
    pub(super) stack: Vec<Id>,
    /// The heights of the stack at which `MARK` stood.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Elements that calls have copied out of other values.
    pub(super) copied: usize,
}

impl<'a> Machine<'a> {
    /// A machine that reads `content` from byte `start` on.
    pub(super) fn new(content: &'a [u8], start: usize) -> Self {
        Self {
            cursor: Cursor { content, at: start },
            values: Vec::new(),
            depths: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        }
    }

    /// Does one opcode. True at the end.
    pub(super) fn step(&mut self) -> Result<bool, PickleProblem> {
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

    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    pub(super) fn push(&mut self, value: Value<'a>) {
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

    pub(super) fn pop(&mut self) -> Result<Id, PickleProblem> {
        let top = self.peek()?;
        self.stack.pop();
        Ok(top)
    }

    pub(super) fn peek(&self) -> Result<Id, PickleProblem> {
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
    pub(super) fn insert(&mut self, items: &[Id]) -> Result<(), PickleProblem> {
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

    pub(super) fn operand(&self, opcode: &'static str, found: Id, expected: &'static str) -> PickleProblem {
        PickleProblem::Operand { opcode, found: self.get(found).kind(), expected }
    }
}

fn global(module: &str, name: &str) -> Result<Global, PickleProblem> {
    globals::find(module, name).ok_or_else(|| PickleProblem::Global(format!("{module}.{name}")))
}
