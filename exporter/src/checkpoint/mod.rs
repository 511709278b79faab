//! Trained weights from files of `torch.save` and from safetensors.
//!
//! Such files come from strangers, and torch's are programs: a pickle may call anything. Nothing of a file is run
//! here ([`pickle`]), names it may mention are listed ([`globals`]), and sizes are compared with the bytes there are before
//! anything is made of them. Tensors share the bytes of the file, which is mapped where it is large.

mod archive;
mod element;
mod error;
mod globals;
mod legacy;
mod pairs;
mod pickle;
mod place;
mod safetensors;
mod sharded;
mod state_dict;
mod storage;
mod torch_zip;

use std::fmt::{self, Display};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use isqrt_cov_proto::onnx::TensorProto;
use isqrt_cov_proto::{content, stand_in};

pub use archive::ArchiveProblem;
pub use error::Error;
pub use pickle::PickleProblem;
use state_dict::Contents;
pub use storage::ViewProblem;

/// A trained model's weights as they stand in a file.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The file.
    pub path: PathBuf,
    /// How it is stored.
    pub format: Format,
    /// The tensors of the state dict, in the file's order, under the file's names; their elements row by row,
    /// little-endian, in `raw_data`.
    pub tensors: Vec<TensorProto>,
    /// What else stands beside the state dict, as far as it is a number or a word: `epoch`, `arch`, `best_prec1`;
    /// safetensors' `__metadata__`.
    pub facts: Vec<(String, String)>,
    /// Where the state dict was found, where that is not where it usually is, and what else could have been taken for it.
    pub notes: Vec<String>,
    /// The files that its index names; none where it has none.
    pub shards: Vec<PathBuf>,
}

/// How a checkpoint is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The zip archive that `torch.save` writes from PyTorch 1.6 on.
    TorchArchive,
    /// The run of pickles and storages that it wrote before.
    LegacyTorch,
    /// One safetensors file.
    Safetensors,
    /// So many safetensors files and their index.
    ShardedSafetensors(usize),
}

impl Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TorchArchive => f.write_str("torch archive"),
            Self::LegacyTorch => f.write_str("legacy torch file"),
            Self::Safetensors => f.write_str("safetensors"),
            Self::ShardedSafetensors(1) => f.write_str("safetensors, 1 shard"),
            Self::ShardedSafetensors(shards) => write!(f, "safetensors, {shards} shards"),
        }
    }
}

/// What a file's first bytes say it is.
enum Kind {
    Zip,
    Pickle,
    Safetensors,
    Index,
}

/// How many bytes of a file tell what it is: an index has to be looked through for its map.
const HEAD: usize = 64 << 10;

impl Kind {
    fn of(head: &[u8]) -> Option<Self> {
        match head {
            [b'P', b'K', 3, 4, ..] => Some(Self::Zip),
            [0x80, 2..=5, ..] => Some(Self::Pickle),
            // The length is not looked at: a file that lies about it is refused by its reader, which says so.
            [_, _, _, _, _, _, _, _, b'{', b'"' | b'}' | b' ' | b'\n', ..] => Some(Self::Safetensors),
            _ if head.trim_ascii_start().starts_with(b"{") => {
                let map = format!("\"{}\"", sharded::MAP);
                head.windows(map.len()).any(|window| window == map.as_bytes()).then_some(Self::Index)
            }
            _ => None,
        }
    }
}

/// Whether the content of the file `path`, not its name, is a checkpoint's and not an ONNX model's.
#[must_use]
pub fn is_checkpoint(path: &Path) -> bool {
    head(path).is_some_and(|head| Kind::of(&head).is_some())
}

/// Whether a file begins as an ONNX model does, as far as it can be read.
#[must_use]
pub fn begins_as_model(path: &Path) -> bool {
    head(path).is_some_and(|head| is_model(&head))
}

fn head(path: &Path) -> Option<Vec<u8>> {
    // Opening a pipe waits for its other end.
    let file = path.is_file().then(|| File::open(path).ok())??;
    let mut head = Vec::new();
    file.take(HEAD as u64).read_to_end(&mut head).ok()?;
    Some(head)
}

/// Whether these are a model's first field, ir_version, and one of its next.
fn is_model(content: &[u8]) -> bool {
    matches!(content, [0x08, _, 0x12 | 0x3a, ..])
}

impl Checkpoint {
    /// Reads a checkpoint, or the files that the index of a sharded one names.
    ///
    /// # Errors
    /// A file that cannot be read or is not a checkpoint; one that is damaged or truncated; one whose pickle names what
    /// no state dict needs; tensors that their storages do not hold, or of types that ONNX or networks here do not have.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        Self::decode(content(path, u64::MAX)?, path)
    }

    /// Decodes a checkpoint as if it had been read from `path`, in whose folder the files lie that an index names.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub fn decode(content: Bytes, path: &Path) -> Result<Self, Error> {
        let kind = Kind::of(&content[..content.len().min(HEAD)]);
        let mut shards = Vec::new();
        let (contents, format) = match kind {
            Some(Kind::Zip) => (torch_zip::read(path, content)?, Format::TorchArchive),
            Some(Kind::Pickle) => (legacy::read(path, &content)?, Format::LegacyTorch),
            Some(Kind::Safetensors) => (safetensors::read(path, &content)?, Format::Safetensors),
            Some(Kind::Index) => {
                let (contents, files) = sharded::read(path, &content)?;
                let format = Format::ShardedSafetensors(files.len());
                shards = files;
                (contents, format)
            }
            None => return Err(Error::Kind { path: path.to_owned(), found: unknown(&content) }),
        };
        let Contents { tensors, facts, notes } = contents;
        if tensors.is_empty() {
            return Err(Error::StateDict { path: path.to_owned(), found: "it holds no tensors".to_owned() });
        }
        Ok(Self { path: path.to_owned(), format, tensors, facts, notes, shards })
    }
}

/// What a file is that is no checkpoint, as far as that is easily told.
fn unknown(content: &[u8]) -> String {
    if let Some(found) = stand_in(content) {
        return found.to_owned();
    }
    match content {
        [] => "the file is empty".to_owned(),
        // What torch.save wrote before 0.1.10.
        _ if content.get(257..262) == Some(b"ustar") => {
            "it is a tar archive, as PyTorch wrote them before 0.1.10, or of files; load it there and save it again, or \
             unpack it"
                .to_owned()
        }
        [0x80, protocol, ..] => format!("it begins as a pickle of protocol {protocol} would, and there are 2 to 5"),
        [b'{', ..] => "it is a JSON text, and no index of safetensors files".to_owned(),
        _ if is_model(content) => "it begins as an ONNX model does: give it a name that ends in .onnx".to_owned(),
        [b'P', b'K', ..] => "it begins as an empty or divided zip archive does".to_owned(),
        _ => {
            let head: Vec<String> = content.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("it begins with {}", head.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use isqrt_cov_proto::TensorData;

    use super::*;

    /// One honest file of each kind.
    fn honest() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/checkpoints/forms");
        let files = ["beside.pth", "legacy_strided.pth", "old_training.pth.tar", "types.safetensors"];
        files.into_iter().map(move |file| (file, std::fs::read(folder.join(file)).unwrap()))
    }

    fn decode(content: &[u8]) -> Result<Checkpoint, Error> {
        Checkpoint::decode(Bytes::copy_from_slice(content), Path::new("file"))
    }

    #[test]
    fn what_is_no_checkpoint_is_named() {
        for (content, said) in [
            (&b"\x1f\x8b\x08\0\0\0\0\0"[..], "compressed with gzip"),
            (b"<!DOCTYPE html><html>Quota exceeded", "a web page"),
            (b"\n <html>", "a web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "git lfs pull"),
            (b"\x18\0\0\0ORTM\0\0\0\0", "ONNX Runtime's own format"),
            (b"ir_version: 8\n", "ONNX's text format"),
            (b"\x02\0\0\0\0\0\0\0{}", "holds no tensors"),
            (b"{\"a\": 1}", "a JSON text"),
            (b"\x80\x01N.", "a pickle of protocol 1"),
            (b"\x08\x08\x12\x07", "as an ONNX model does"),
            (b"\x08\x08\x3a\x07", "as an ONNX model does"),
        ] {
            let message = decode(content).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn a_file_of_any_kind_has_a_bounded_number_of_tensors() {
        let listed = |count: usize, one: &str| {
            (0..count).map(|index| format!("\"{index}\": {one}")).collect::<Vec<_>>().join(", ")
        };
        let safetensors =
            |header: &str| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        let empty = r#"{"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}"#;
        let of = |count| safetensors(&format!("{{{}}}", listed(count, empty)));
        assert_eq!(decode(&of(1 << 14)).unwrap().tensors.len(), 1 << 14);
        let index = format!("{{\"weight_map\": {{{}}}}}", listed((1 << 14) + 1, "\"shard\""));
        for content in [of((1 << 14) + 1), index.into_bytes()] {
            let many = decode(&content).unwrap_err().to_string();
            assert!(many.contains("a state dict of 16385 tensors"), "{many}");
        }
        let wide = empty.replace("[0]", "[9223372036854775808, 0]");
        let wide = decode(&safetensors(&format!("{{\"a\": {wide}}}"))).unwrap_err().to_string();
        assert!(wide.contains("dims are [-9223372036854775808, 0]"), "{wide}");
    }

    #[test]
    fn bytes_behind_an_archive_do_no_harm() {
        let (_, whole) = honest().next().unwrap();
        let honest = decode(&whole).unwrap();
        for behind in [&b"\n\n"[..], b"a comment", &[0; 4096]] {
            assert_eq!(decode(&[&whole, behind].concat()).unwrap().tensors, honest.tensors);
        }
        // A second archive is the one that is taken, by torch too, and its numbers do not fit the place.
        let two = decode(&[&whole[..], &whole].concat()).unwrap_err().to_string();
        assert!(two.contains("made to deceive"), "{two}");
    }

    #[test]
    fn files_are_refused_wherever_they_are_cut() {
        for (file, whole) in honest() {
            for length in 0..whole.len() {
                let message = decode(&whole[..length]).expect_err(file).to_string();
                assert!(message.len() < 1000, "{file} at {length}: {message}");
            }
        }
    }

    #[test]
    fn a_flipped_byte_is_noticed_or_does_no_harm() {
        for (file, mut whole) in honest() {
            let honest = decode(&whole).unwrap();
            for at in 0..whole.len() {
                for flip in [0xff, 1, 0x80] {
                    whole[at] ^= flip;
                    if let Ok(checkpoint) = decode(&whole) {
                        for tensor in &checkpoint.tensors {
                            TensorData::inline(tensor).unwrap();
                        }
                        // Archives have checksums: what they give is what was saved.
                        let sealed = checkpoint.format == Format::TorchArchive;
                        assert!(!sealed || checkpoint.tensors == honest.tensors, "{file} at {at}");
                    }
                    whole[at] ^= flip;
                }
            }
        }
    }
}
