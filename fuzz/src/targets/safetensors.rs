//! Changes to safetensors files and their indexes. They are read as all checkpoints are.

use fastrand::Rng;

use crate::mutation::Bytes;

/// Changes bytes, and sometimes sets the length of the header right.
pub fn mutate(input: &mut Vec<u8>, random: &mut Rng, bytes: Bytes<'_>) {
    bytes(input, random);
    if input.first() != Some(&b'{') && random.bool() {
        seal(input);
    }
}

/// Writes how long the header is, as far as there is one.
fn seal(file: &mut [u8]) {
    let Some((length, rest)) = file.split_first_chunk_mut::<8>() else { return };
    if let Some(end) = rest.iter().rposition(|&byte| byte == b'}') {
        *length = (end as u64 + 1).to_le_bytes();
    }
}
