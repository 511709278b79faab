//! Changes to zip archives that keep them whole.

use fastrand::Rng;

use crate::mutation::Bytes;

/// Changes bytes, and mostly sets the checksums right that the archive has: otherwise hardly anything would come by them.
pub fn mutate(input: &mut Vec<u8>, random: &mut Rng, bytes: Bytes<'_>) {
    bytes(input, random);
    if random.u8(..4) > 0 {
        seal(input);
    }
}

/// Writes the checksums of a zip archive's stored entries, as far as it is one.
fn seal(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(found) = archive[at..].windows(4).position(|window| window == b"PK\x01\x02") {
        let central = at + found;
        at = central + 4;
        seal_entry(archive, central);
    }
}

/// Writes the checksum of the entry whose part of the directory is at byte `central`.
fn seal_entry(archive: &mut [u8], central: usize) -> Option<()> {
    let number = |at: usize, length: usize| {
        let bytes = archive.get(at..at + length)?;
        Some(bytes.iter().rev().fold(0_usize, |number, &byte| number << 8 | usize::from(byte)))
    };
    let header = number(central + 42, 4)?;
    let start = header + 30 + number(header + 26, 2)? + number(header + 28, 2)?;
    let data = archive.get(start..start + number(central + 20, 4)?)?;
    let checksum = crc32fast::hash(data).to_le_bytes();
    archive.get_mut(header + 14..header + 18)?.copy_from_slice(&checksum);
    archive.get_mut(central + 16..central + 20)?.copy_from_slice(&checksum);
    Some(())
}
