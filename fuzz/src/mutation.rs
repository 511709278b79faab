//! Changes to inputs that know nothing of what the bytes mean.

use fastrand::Rng;

/// Changes bytes without knowing what they mean: [`bytes`], or libFuzzer's own ways.
pub type Bytes<'a> = &'a mut dyn FnMut(&mut Vec<u8>, &mut Rng);

/// Numbers at which readers go wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    i64::MAX as u64,
    i64::MIN as u64,
    u64::MAX,
    1 << 40,
];

/// Changes a few places of an input, in the ways that fuzzers have found to be good ones.
pub fn bytes(input: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.usize(1..=4) {
        if input.is_empty() {
            input.push(random.u8(..));
            continue;
        }
        let at = random.usize(..input.len());
        let length = random.usize(1..=16).min(input.len() - at);
        match random.u8(..8) {
            0 => input[at] ^= 1 << random.u8(..8),
            1 => input[at] = random.u8(..),
            2 => drop(input.drain(at..at + length)),
            3 => {
                let piece = input[at..at + length].to_vec();
                let to = random.usize(..=input.len());
                input.splice(to..to, piece);
            }
            4 => {
                let piece = input[at..at + length].to_vec();
                let to = random.usize(..=input.len() - length);
                input[to..to + length].copy_from_slice(&piece);
            }
            5 => {
                let edge = EDGES[random.usize(..EDGES.len())].to_le_bytes();
                let width = (1 << random.u8(..4)).min(input.len() - at);
                input[at..at + width].copy_from_slice(&edge[..width]);
            }
            6 => input[at] = input[at].wrapping_add(random.u8(..32)).wrapping_sub(16),
            _ => input.truncate(at + 1),
        }
    }
}
