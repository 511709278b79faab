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
        let name = error(&[b"c", &[b'a'; 1024][..], b"\nb\n"].concat());
        assert!(name.contains("does not end within 1024 bytes"), "{name}");
        let many = "the pickle has more than 4194304 opcodes";
        assert!(error(&vec![b'N'; OPCODES]).contains(many));
        // A dict of a thousand pairs, made again and again of the same list.
        let pairs = [b"](".to_vec(), b"NN\x86".repeat(1000), b"e\x85q\x00".to_vec()].concat();
        let again = b"ccollections\nOrderedDict\nq\x010h\x01h\x00R".repeat(2100);
        assert!(error(&[pairs, again].concat()).contains(many));
    }

    /// What a pickle is about, as `Debug` has it.
    fn made(program: &[u8]) -> String {
        let program = [b"\x80\x02", program, b"."].concat();
        let pickle = Pickle::read(&program, 0).unwrap_or_else(|(at, problem)| panic!("byte {at}: {problem}"));
        format!("{:?}", pickle.get(pickle.top))
    }

    #[test]
    fn marks_part_the_stack() {
        assert_eq!(made(b"N(0"), "None", "POP takes a mark");
        assert_eq!(made(b"](N\x91a"), "List([2])");
        for below in [&b"N(\x85t"[..], b"NN(N\x86t", b"N(00"] {
            assert!(error(below).contains("an empty stack"), "{}", below.escape_ascii());
        }
    }

    #[test]
    fn constructors_take_what_torch_gives_them() {
        let parameter = b"ctorch._utils\n_rebuild_parameter\n".as_slice();
        let typed = b"ctorch._tensor\n_rebuild_from_type_v2\n".as_slice();
        let quantized = b"ctorch._utils\n_rebuild_qtensor\n)R".as_slice();
        for (program, expected) in [
            (vec![b"ccollections\ndefaultdict\ncbuiltins\nlist\n\x85R".as_slice()], "Dict([])"),
            (vec![b"ccollections\nCounter\n}\x85R"], "Dict([])"),
            (vec![b"ctorch\nSize\n)\x85R"], "Tuple([])"),
            (vec![parameter, quantized, b"\x85R"], "Inert(\"a quantized tensor\")"),
            (vec![typed, b"(ctorch\nSize\nctorch\nTensor\n)\x85}tR"], "Tuple([])"),
        ] {
            assert_eq!(made(&program.concat()), expected);
        }
        for refused in [
            vec![b"ccollections\nCounter\nN\x85R".as_slice()],
            vec![b"ctorch\nSize\nN\x85R"],
            vec![parameter, b"N\x85R"],
            vec![typed, b"(ctorch\nSize\nN)\x85}tR"],
            // One in another, as deep as a file likes.
            vec![typed, b"(", typed, b"ctorch\nTensor\n(ctorch\nSize\nctorch\nTensor\n)\x85}t}tR"],
        ] {
            let refused = error(&refused.concat());
            assert!(refused.contains("with arguments it does not take"), "{refused}");
        }
        let pairs = error(b"ccollections\nOrderedDict\n](N\x85e\x85R");
        assert!(pairs.contains("a list of pairs"), "{pairs}");
    }

    #[test]
    fn tensors_are_views_of_numbers_as_they_are() {
        let tensor = |function: &str, rest: &[u8]| {
            let storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x0atQ";
            let view = b"K\x00K\x02\x85K\x01\x85\x89}";
            [format!("ctorch._utils\n{function}\n(").as_bytes(), storage, view, rest, b"tR"].concat()
        };
        let v2 = "_rebuild_tensor_v2";
        assert!(made(&tensor(v2, b"}")).contains("element: None"));
        let negative = error(&tensor(v2, b"}X\x03\0\0\0neg\x88s"));
        assert!(negative.contains("numbers is metadata"), "{negative}");
        let half = made(&tensor("_rebuild_tensor_v3", b"ctorch\nfloat16\n"));
        assert!(half.contains("element: Some") && half.contains("float16"), "{half}");
    }

    #[test]
    fn scalars_of_numpy_are_numbers() {
        let scalar = |dtype: &str, order: &str, bytes: &[u8]| {
            let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
            let global = |name: &str| format!("cnumpy.core.multiarray\n{name}\n").into_bytes();
            let state = [b"(K\x03".to_vec(), text(order), b"NNNtb".to_vec()].concat();
            let dtype = [b"cnumpy\ndtype\n".to_vec(), text(dtype), b"\x85R".to_vec(), state].concat();
            made(&[global("scalar"), dtype, bytes.to_vec(), b"\x86R".to_vec()].concat())
        };
        let latin1 = |text: &str| {
            let length = (text.len() as u32).to_le_bytes();
            [b"c_codecs\nencode\nX", &length[..], text.as_bytes(), b"\x85R"].concat()
        };
        let no_number = "Inert(\"a NumPy scalar\")";
        for (dtype, order, bytes, expected) in [
            ("u1", "|", b"C\x01\xff".to_vec(), "Int(255)"),
            ("i1", "|", b"C\x01\xff".to_vec(), "Int(-1)"),
            ("i2", "<", b"C\x02\x01\x02".to_vec(), "Int(513)"),
            ("u8", "<", [b"C\x08".as_slice(), &[0xff; 8]].concat(), no_number),
            ("i1", "|", latin1("\u{fe}"), "Int(-2)"),
            ("i1", "|", latin1("ab"), no_number),
            ("i2", ">", b"C\x02\x01\x02".to_vec(), no_number),
        ] {
            assert_eq!(scalar(dtype, order, &bytes), expected, "{order}{dtype}");
        }
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
