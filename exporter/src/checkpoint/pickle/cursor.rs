//! Bytes of a pickle, one after the other.

use super::PickleProblem;

/// Where reading stands.
pub(super) struct Cursor<'a> {
    pub(super) content: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    /// Whether `length` bytes are left.
    pub(super) fn has(&self, length: u64) -> Result<(), PickleProblem> {
        let left = (self.content.len() - self.at) as u64;
        if length > left { Err(PickleProblem::Truncated { needed: length, left }) } else { Ok(()) }
    }

    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], PickleProblem> {
        self.has(length)?;
        // No more than the content's length, so it fits.
        let end = self.at + length as usize;
        let taken = &self.content[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleProblem> {
        let mut own = [0; N];
        own.copy_from_slice(self.take(N as u64)?);
        Ok(own)
    }

    pub(super) fn byte(&mut self) -> Result<u8, PickleProblem> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, PickleProblem> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, PickleProblem> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, PickleProblem> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The name on a line. No name is longer than the bound, so a hostile pickle cannot have the file searched anew for
    /// each opcode.
    pub(super) fn line(&mut self) -> Result<&'a str, PickleProblem> {
        const LONGEST: usize = 1024;
        let rest = &self.content[self.at..];
        let window = &rest[..rest.len().min(LONGEST)];
        let end = window.iter().position(|&byte| byte == b'\n').ok_or(PickleProblem::Line)?;
        let line = self.take(end as u64 + 1)?;
        str::from_utf8(&line[..end]).map_err(|_| PickleProblem::Text)
    }
}
