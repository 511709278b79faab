//! How much memory an input may cost.

use peak_alloc::PeakAlloc;

/// Counts what is allocated, by every thread of the process.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The most that may be allocated at one time while an input is worked on: a constant, and so many bytes for each of the
/// input's.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Bytes that any input may cost.
    pub constant: usize,
    /// Bytes that each byte of an input may cost beside them.
    pub factor: usize,
}

impl Memory {
    /// Does `work` on an input of `length` bytes, and says how many bytes it had allocated at most at one time.
    ///
    /// # Panics
    /// If that is more than it may be.
    pub fn hold(self, length: usize, work: impl FnOnce()) -> usize {
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        work();
        let peak = ALLOCATOR.peak_usage().saturating_sub(before);
        let bound = self.constant + self.factor * length;
        assert!(
            peak <= bound,
            "{peak} bytes were allocated for an input of {length}; expected at most {bound}"
        );
        peak
    }
}
