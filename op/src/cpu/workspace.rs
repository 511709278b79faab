//! Scratch memory: one piece for each concurrent call, kept from call to call.

use std::sync::{Mutex, PoisonError};

use super::element::Real;

/// What rows are aligned to: a cache line, which is also the widest vector register.
const ALIGNMENT: usize = 64;

/// The workspaces that no call uses at the moment.
#[derive(Debug, Default)]
pub struct Pools {
    pub(super) single: Pool<f32>,
    pub(super) double: Pool<f64>,
}

/// The idle workspaces of one type.
#[derive(Debug, Default)]
pub struct Pool<R>(Mutex<Vec<Workspace<R>>>);

/// Numbers of which a call may use a part; it grows to the largest part ever asked for.
#[derive(Debug, Default)]
pub(super) struct Workspace<R>(Vec<R>);

impl<R: Real> Pool<R> {
    /// Calls `with` on `len` numbers of unspecified value that begin at a cache line. None where memory is lacking.
    pub(super) fn with<O>(&self, len: usize, with: impl FnOnce(&mut [R]) -> O) -> Option<O> {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut workspace = idle.unwrap_or_default();
        let result = workspace.reserve(len).map(with);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        result
    }
}

impl<R: Real> Workspace<R> {
    fn reserve(&mut self, len: usize) -> Option<&mut [R]> {
        let slack = ALIGNMENT / size_of::<R>();
        let whole = len.checked_add(slack)?;
        if self.0.len() < whole {
            // Freed first: the old contents are of no use, and both together may not fit.
            self.0 = Vec::new();
            self.0.try_reserve_exact(whole).ok()?;
            self.0.resize(whole, R::default());
        }
        let start = self.0.as_ptr().align_offset(ALIGNMENT).min(slack);
        Some(&mut self.0[start..start + len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_reused_and_refused_where_it_is_lacking() {
        let pool = Pool::<f32>::default();
        let first = pool.with(100, |numbers| numbers.as_ptr() as usize).unwrap();
        assert_eq!(first % ALIGNMENT, 0);
        assert_eq!(pool.with(70, |numbers| (numbers.as_ptr() as usize, numbers.len())), Some((first, 70)));
        assert_eq!(pool.with(usize::MAX, |_| ()), None);
        assert_eq!(pool.with(usize::MAX / 8, |_| ()), None);
        assert_eq!(pool.with(10, |numbers| numbers.len()), Some(10));
    }
}
