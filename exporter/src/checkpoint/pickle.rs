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
mod machine;
mod problem;
mod value;

use machine::Machine;
pub use problem::PickleProblem;
use value::NumpyDtype;
pub(super) use value::{Id, Storage, Tensor, Value};

/// The most opcodes of a pickle. A tensor takes some thirty of them.
const OPCODES: usize = 1 << 22;

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
        let mut machine = Machine::new(content, start);
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
