//! The zip archives that `torch.save` writes, and no others.
//!
//! Readers of zip archives differ in which of two equal names they take, whom they believe where the directory and an
//! entry's own header disagree, and what they forgive; one that checks and one that loads may see different files
//! (CVE-2026-24747). So this one is strict where libraries are lenient: every name is there once, the directory and the
//! headers agree, entries do not overlap, those that are read are stored as they are, and all lie in front of the
//! directory, which reaches to the end of the archive. Data is sliced out of the file, never copied.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use thiserror::Error;

use isqrt_cov_proto::Printable;

/// What is wrong with an archive.
#[derive(Debug, Error)]
pub enum ArchiveProblem {
    /// The end of the archive is missing.
    #[error("a zip archive without its end; the file is truncated: copy or download it again")]
    NoEnd,
    /// The end of the archive does not say what there is.
    #[error(
        "the zip archive's {part} is {found}; expected {expected}; the file is damaged or made to deceive"
    )]
    End {
        /// Which number.
        part: &'static str,
        /// Its value.
        found: u64,
        /// What it should be.
        expected: u64,
    },
    /// An entry of the directory is incomplete or reaches outside the file.
    #[error(
        "the zip archive's directory, byte {at}: {problem}; the file is damaged: copy or download it again"
    )]
    Directory {
        /// The byte in the file.
        at: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// The name is there twice.
    #[error("the zip archive has two entries `{}`; torch.save writes each once", Printable(.0))]
    Duplicate(String),
    /// The entry is compressed.
    #[error(
        "entry `{}` is compressed (method {method}); expected stored data: load and save the file with torch, or pack \
         it with zip -0",
        Printable(entry)
    )]
    Compressed {
        /// The entry.
        entry: String,
        /// The number of the method.
        method: u16,
    },
    /// The entry is encrypted.
    #[error("entry `{}` is encrypted; decrypt the file first", Printable(.0))]
    Encrypted(String),
    /// What the directory says of an entry is not what its own header says.
    #[error(
        "entry `{}`: its own header says {part} {found}, the directory {expected}; the file is damaged or made to \
         deceive",
        Printable(entry)
    )]
    Header {
        /// The entry.
        entry: String,
        /// Of what.
        part: &'static str,
        /// What the header says.
        found: String,
        /// What the directory says.
        expected: String,
    },
    /// The entry lies, in whole or in part, where the file has something else.
    #[error(
        "entry `{}`: bytes {start} to {end} {problem}; the file is truncated, damaged or made to deceive",
        Printable(entry)
    )]
    Bounds {
        /// The entry.
        entry: String,
        /// Its first byte in the file.
        start: u64,
        /// The byte after its last.
        end: u64,
        /// What is wrong with that.
        problem: &'static str,
    },
    /// The entry's data is not what was written.
    #[error(
        "entry `{}`: its checksum is {found:08x}; expected {expected:08x}; the file is damaged: copy or download it \
         again",
        Printable(entry)
    )]
    Checksum {
        /// The entry.
        entry: String,
        /// Of the data there is.
        found: u32,
        /// Of the data that was written.
        expected: u32,
    },
    /// The entry is not there.
    #[error("the zip archive has no entry `{}`; the file is incomplete", Printable(.0))]
    Missing(String),
}

/// An archive and where its entries lie.
pub(super) struct Archive {
    content: Bytes,
    names: Vec<String>,
    entries: HashMap<String, Entry>,
    /// Whether there are checksums: `torch.serialization.set_crc32_options(False)` writes zeros, all of them.
    sealed: bool,
}

struct Entry {
    data: Range<usize>,
    checksum: u32,
    /// How it is compressed; 0 where it is not.
    method: u16,
}

const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";

/// The bit of an entry's flags by which its own header leaves sizes and checksum to what follows the data.
const DESCRIPTOR: u16 = 1 << 3;
/// The bits by which it, or the directory, is encrypted.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;

impl Archive {
    /// Reads the directory, and the header of every entry.
    pub(super) fn open(content: Bytes) -> Result<Self, ArchiveProblem> {
        let directory = Directory::find(&content)?;
        let mut names = Vec::new();
        let mut entries = HashMap::new();
        let mut extents = Vec::new();
        let mut at = directory.bytes.start;
        while at < directory.bytes.end {
            let central = Central::read(&content[..directory.bytes.end], at)?;
            at = central.end;
            let range = central.locate(&content, directory.bytes.start)?;
            extents.push((central.offset, range.end as u64, names.len()));
            let entry = Entry { data: range, checksum: central.checksum, method: central.method };
            if entries.insert(central.name.clone(), entry).is_some() {
                return Err(ArchiveProblem::Duplicate(central.name));
            }
            names.push(central.name);
        }
        if names.len() as u64 != directory.entries {
            return Err(ArchiveProblem::End {
                part: "number of entries",
                found: directory.entries,
                expected: names.len() as u64,
            });
        }
        extents.sort_unstable();
        for pair in extents.windows(2) {
            let (_, before, _) = pair[0];
            let (start, end, index) = pair[1];
            if start < before {
                let entry = names[index].clone();
                return Err(ArchiveProblem::Bounds { entry, start, end, problem: "overlap another entry" });
            }
        }
        let sealed = entries.values().any(|entry| entry.checksum != 0);
        Ok(Self { content, names, entries, sealed })
    }

    /// The entries' names, in the directory's order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The data of an entry, held against its checksum where the archive has any.
    pub(super) fn read(&self, name: &str) -> Result<Bytes, ArchiveProblem> {
        let entry = self.entries.get(name).ok_or_else(|| ArchiveProblem::Missing(name.to_owned()))?;
        if entry.method != 0 {
            return Err(ArchiveProblem::Compressed { entry: name.to_owned(), method: entry.method });
        }
        let data = self.content.slice(entry.data.clone());
        if !self.sealed {
            return Ok(data);
        }
        let found = crc32fast::hash(&data);
        if found != entry.checksum {
            let expected = entry.checksum;
            return Err(ArchiveProblem::Checksum { entry: name.to_owned(), found, expected });
        }
        Ok(data)
    }
}

/// Where the directory is.
struct Directory {
    bytes: Range<usize>,
    entries: u64,
}

impl Directory {
    fn find(content: &[u8]) -> Result<Self, ArchiveProblem> {
        let mut end = last(content).ok_or(ArchiveProblem::NoEnd)?;
        let disks = [number(content, end + 4, 2), number(content, end + 6, 2)];
        if let Some(&found) = disks.iter().find(|&&found| found != 0) {
            return Err(ArchiveProblem::End { part: "disk number", found, expected: 0 });
        }
        let (mut entries, here) = (number(content, end + 10, 2), number(content, end + 8, 2));
        let (mut size, mut offset) = (number(content, end + 12, 4), number(content, end + 16, 4));
        if here != entries {
            return Err(ArchiveProblem::End { part: "number of entries", found: here, expected: entries });
        }
        let locator = end.checked_sub(20).filter(|&locator| content[locator..].starts_with(&LOCATOR_64));
        if let Some(locator) = locator {
            let record = locator.checked_sub(56).filter(|&record| content[record..].starts_with(&END_64));
            let record = record.ok_or(ArchiveProblem::NoEnd)?;
            let expect = |part, found, expected| {
                if found == expected { Ok(()) } else { Err(ArchiveProblem::End { part, found, expected }) }
            };
            expect("zip64 end", number(content, locator + 8, 8), record as u64)?;
            expect("zip64 end's size", number(content, record + 4, 8), 44)?;
            let large = [
                ("number of entries", number(content, record + 32, 8), entries, 0xffff),
                ("directory's size", number(content, record + 40, 8), size, 0xffff_ffff),
                ("directory's place", number(content, record + 48, 8), offset, 0xffff_ffff),
            ];
            // Both ends say the same, or the older one that the number is too large for it.
            for (part, found, small, marker) in large {
                if small != marker {
                    expect(part, found, small)?;
                }
            }
            [entries, size, offset] = large.map(|(_, found, _, _)| found);
            end = record;
        }
        let found = offset.saturating_add(size);
        if found != end as u64 {
            return Err(ArchiveProblem::End { part: "directory's end", found, expected: end as u64 });
        }
        Ok(Self { bytes: offset as usize..end, entries })
    }
}

/// Where the last end of an archive begins: the one that torch takes too, whatever stands before it. Behind it may be as
/// many bytes as a comment can have, such as padding or the newline of a download.
fn last(content: &[u8]) -> Option<usize> {
    let last = content.len().checked_sub(22)?;
    (last.saturating_sub(usize::from(u16::MAX))..=last).rev().find(|&at| content[at..].starts_with(&END))
}

/// What the directory says of an entry.
struct Central {
    name: String,
    flags: u16,
    method: u16,
    checksum: u32,
    size: u64,
    /// The bytes that it takes in the file: other than its size where it is compressed.
    stored: u64,
    /// Where the entry's own header is.
    offset: u64,
    /// The byte after this part of the directory.
    end: usize,
}

impl Central {
    /// Reads the entry at byte `at`; the directory reaches to the end of `content`.
    fn read(content: &[u8], at: usize) -> Result<Self, ArchiveProblem> {
        let wrong = |problem| ArchiveProblem::Directory { at, problem };
        let fixed = content.get(at..at + 46).filter(|fixed| fixed.starts_with(&CENTRAL));
        let fixed = fixed.ok_or_else(|| wrong("no entry of a directory is there"))?;
        let lengths = [28, 30, 32].map(|place| number(fixed, place, 2) as usize);
        let name = at + 46..at + 46 + lengths[0];
        let extra = name.end..name.end + lengths[1];
        let end = extra.end + lengths[2];
        let (Some(name), Some(extra), true) = (content.get(name), content.get(extra), end <= content.len())
        else {
            return Err(wrong("an entry reaches beyond the directory"));
        };
        let name = str::from_utf8(name).map_err(|_| wrong("the name of an entry is not UTF-8"))?;
        let mut numbers = [number(fixed, 24, 4), number(fixed, 20, 4), number(fixed, 42, 4)];
        let marked = numbers.iter().filter(|&&number| number == 0xffff_ffff).count();
        if marked > 0 {
            let field = zip64(extra).filter(|field| field.len() >= 8 * marked);
            let field = field.ok_or_else(|| wrong("an entry lacks its zip64 sizes"))?;
            let large = numbers.iter_mut().filter(|number| **number == 0xffff_ffff);
            large.enumerate().for_each(|(place, large)| *large = number(field, 8 * place, 8));
        }
        let [size, stored, offset] = numbers;
        let method = number(fixed, 10, 2) as u16;
        if method == 0 && size != stored {
            return Err(wrong("a stored entry has two sizes"));
        }
        if number(fixed, 34, 2) != 0 {
            return Err(wrong("an entry lies on another disk"));
        }
        Ok(Self {
            name: name.to_owned(),
            flags: number(fixed, 8, 2) as u16,
            method,
            checksum: number(fixed, 16, 4) as u32,
            size,
            stored,
            offset,
            end,
        })
    }

    /// The bytes of the entry's data, which must lie before `limit`, if its own header agrees.
    fn locate(&self, content: &[u8], limit: usize) -> Result<Range<usize>, ArchiveProblem> {
        let entry = || self.name.clone();
        if self.flags & ENCRYPTED != 0 {
            return Err(ArchiveProblem::Encrypted(entry()));
        }
        let outside = |end| ArchiveProblem::Bounds {
            entry: entry(),
            start: self.offset,
            end,
            problem: "reach into the directory or beyond the file",
        };
        let content = &content[..limit];
        let fixed_end = self.offset.saturating_add(30);
        if fixed_end > limit as u64 {
            return Err(outside(fixed_end));
        }
        let at = self.offset as usize;
        let fixed = &content[at..at + 30];
        let differs = |part, found: String, expected: String| {
            Err(ArchiveProblem::Header { entry: entry(), part, found, expected })
        };
        if !fixed.starts_with(&LOCAL) {
            let problem = "do not begin with an entry's header";
            return Err(ArchiveProblem::Bounds {
                entry: entry(),
                start: self.offset,
                end: fixed_end,
                problem,
            });
        }
        let [name, extra] = [26, 28].map(|place| number(fixed, place, 2) as usize);
        let start = at + 30 + name + extra;
        let end = (start as u64).saturating_add(self.stored);
        if end > limit as u64 {
            return Err(outside(end));
        }
        let name = &content[at + 30..at + 30 + name];
        if name != self.name.as_bytes() {
            let found = format!("`{}`", Printable(&String::from_utf8_lossy(name)));
            return differs("name", found, format!("`{}`", Printable(&self.name)));
        }
        let extra = zip64(&content[start - extra..start]);
        let size_of = |place, field: usize| match (number(fixed, place, 4), extra) {
            (0xffff_ffff, Some(extra)) if extra.len() >= 16 => number(extra, field, 8),
            (size, _) => size,
        };
        let deferred = self.flags & DESCRIPTOR != 0;
        let pairs = [
            ("flags", number(fixed, 6, 2), u64::from(self.flags), false),
            ("compression method", number(fixed, 8, 2), u64::from(self.method), false),
            ("checksum", number(fixed, 14, 4), u64::from(self.checksum), deferred),
            ("size", size_of(22, 0), self.size, deferred),
            ("stored size", size_of(18, 8), self.stored, deferred),
        ];
        for (part, found, expected, deferred) in pairs {
            if found != expected && !(deferred && found == 0) {
                return differs(part, found.to_string(), expected.to_string());
            }
        }
        Ok(start..end as usize)
    }
}

/// The field of `extra` that holds sizes of more than 32 bits.
fn zip64(mut extra: &[u8]) -> Option<&[u8]> {
    while extra.len() >= 4 {
        let length = number(extra, 2, 2) as usize;
        let field = extra.get(4..4 + length)?;
        if number(extra, 0, 2) == 1 {
            return Some(field);
        }
        extra = &extra[4 + length..];
    }
    None
}

/// The little-endian number of `length` bytes at `at`, which must be there.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_disagrees_is_refused() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/checkpoints/forms");
        let whole = std::fs::read(folder.join("beside.pth")).unwrap();
        let last = |mark: [u8; 4]| whole.windows(4).rposition(|bytes| bytes == mark).unwrap();
        let (end, end_64, central) = (last(END), last(END_64), last(CENTRAL));
        // The first entry, in the directory and its own header.
        let first = number(&whole, end_64 + 48, 8) as usize;
        let own = number(&whole, first + 42, 4) as usize;
        let no_checksum = [16, 17, 18, 19].map(|byte| (first + byte, 0));
        for (changes, said) in [
            (&[][..], ""),
            (&[(end + 4, 1)], "disk number is 1"),
            (&[(end + 6, 1)], "disk number is 1"),
            (&[(end + 8, 9), (end + 10, 9)], "number of entries is 10; expected 9"),
            (&[(end_64 + 4, 45)], "zip64 end's size is 45"),
            (&[(first + 34, 1)], "an entry lies on another disk"),
            (&[(first + 8, 0x48), (own + 6, 0x48)], "is encrypted"),
            (&[(own + 6, 0), (own + 7, 0)], "says flags 0"),
            (&[(own + 14, 1)], "says checksum 1"),
            (&[(own + 18, 1)], "says stored size 1"),
            (&[(central + 32, 1)], "an entry reaches beyond the directory"),
            // One that is 0 may be right, and is no sign that all are left out.
            (&no_checksum, "expected 00000000"),
        ] {
            let mut whole = whole.clone();
            changes.iter().for_each(|&(at, byte)| whole[at] = byte);
            let read = Archive::open(whole.into())
                .and_then(|archive| archive.names().try_for_each(|name| archive.read(name).map(drop)));
            let problem = read.err().map_or_else(String::new, |problem| problem.to_string());
            assert!(problem.contains(said) && problem.is_empty() == said.is_empty(), "{said}: {problem}");
        }
    }

    #[test]
    fn behind_an_archive_is_as_much_as_a_comment() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/checkpoints/forms");
        let whole = std::fs::read(folder.join("beside.pth")).unwrap();
        let behind = |bytes: usize| Archive::open([&whole[..], &vec![0; bytes]].concat().into());
        assert!(behind(0xffff).is_ok());
        assert!(matches!(behind(0x1_0000), Err(ArchiveProblem::NoEnd)));
    }

    #[test]
    fn large_sizes_are_in_their_own_field() {
        assert_eq!(zip64(b"FB\x01\0x\x01\0\x02\0yz"), Some(&b"yz"[..]));
        // Two sizes that are elsewhere, and room for one.
        let mut entry = [0; 46 + 12];
        entry[..4].copy_from_slice(&CENTRAL);
        entry[20..28].fill(0xff);
        (entry[30], entry[46], entry[48]) = (12, 1, 8);
        let Err(problem) = Central::read(&entry, 0) else { panic!("sizes are made up") };
        assert!(problem.to_string().contains("an entry lacks its zip64 sizes"), "{problem}");
    }
}
