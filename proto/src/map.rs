//! Mapped files, and what becomes of a process whose mapped file is shortened by another.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;

/// The content of `file`, which `path` names, mapped: pages are read when they are first looked at.
pub(crate) fn map(file: &File, path: &Path) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: a mapping is sound as long as nobody shortens or rewrites the file while it lives. This crate writes
    // a file before it gives it the name by which others could map it, so it is not the one to do it. Another process could; that is the contract of every
    // runtime that maps weights, and the user's own file. Where one shortens it, what follows is not the memory of
    // anything else but SIGBUS, which `on_lost` answers.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::from_owner(lost::Watched::new(map, path)))
}

/// Whether the system could not read what it was given to write: a mapped page, for it raises no signal for those.
pub(crate) fn is_fault(error: &io::Error) -> bool {
    cfg!(unix) && error.raw_os_error() == Some(EFAULT)
}

/// The number that Linux, macOS and the BSDs have for it.
const EFAULT: i32 = 14;

/// Looks at every byte, as the system just failed to do: what cannot be read shows itself.
pub(crate) fn look_at(content: &[u8]) {
    std::hint::black_box(content.iter().fold(0, |all, byte| all ^ byte));
}

/// From now on, where a page of a mapped file cannot be read, because the file was shortened or its disk failed, calls
/// `lost` with the file's path and ends the process with the status that it returns. Without this, the system ends it.
///
/// `lost` runs on the thread that read the page, in the middle of that read.
pub fn on_lost(lost: fn(&Path) -> i32) {
    lost::install(lost);
}

#[cfg(unix)]
mod lost {
    use std::path::{Path, PathBuf};
    use std::ptr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

    use memmap2::Mmap;

    /// The last of the files ever mapped, through which all others are found.
    static LAST: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());

    /// What is called.
    static LOST: OnceLock<fn(&Path) -> i32> = OnceLock::new();

    /// Where a file is, or was, mapped. It is never freed: the signal may come while any thread maps and unmaps.
    struct Place {
        path: PathBuf,
        start: usize,
        /// Zero once it is mapped no more.
        length: AtomicUsize,
        before: AtomicPtr<Place>,
    }

    /// A mapped file that is in the list.
    pub(super) struct Watched {
        map: Mmap,
        place: &'static Place,
    }

    impl Watched {
        pub(super) fn new(map: Mmap, path: &Path) -> Self {
            let place: &'static Place = Box::leak(Box::new(Place {
                path: path.to_owned(),
                start: map.as_ptr().addr(),
                length: AtomicUsize::new(map.len()),
                before: AtomicPtr::new(ptr::null_mut()),
            }));
            let mut last = LAST.load(Ordering::Acquire);
            loop {
                place.before.store(last, Ordering::Relaxed);
                let own = ptr::from_ref(place).cast_mut();
                match LAST.compare_exchange_weak(last, own, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => break,
                    Err(other) => last = other,
                }
            }
            Self { map, place }
        }
    }

    impl AsRef<[u8]> for Watched {
        fn as_ref(&self) -> &[u8] {
            &self.map
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            self.place.length.store(0, Ordering::Release);
        }
    }

    /// The file that is mapped at an address.
    fn mapped_at(address: usize) -> Option<&'static Path> {
        let mut next = LAST.load(Ordering::Acquire);
        // SAFETY: every pointer in the list is null or from a leaked box, which nobody changes but through atomics.
        while let Some(place) = unsafe { next.cast_const().as_ref() } {
            if address.checked_sub(place.start).is_some_and(|at| at < place.length.load(Ordering::Acquire)) {
                return Some(&place.path);
            }
            next = place.before.load(Ordering::Relaxed);
        }
        None
    }

    extern "C" fn answer(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the system passes the information of a SIGBUS, which has an address.
        let address = unsafe { (*info).si_addr() }.addr();
        match (mapped_at(address), LOST.get()) {
            (Some(path), Some(lost)) => {
                // A load from the mapping raised the signal, on this thread: it is in no allocation, and holds no lock of
                // one or of a standard stream, so that what is called here may use all of these.
                let status = lost(path);
                // SAFETY: it only ends the process, without what other threads might still be using.
                unsafe { libc::_exit(status) }
            }
            // SAFETY: with the default action back in place, the same load raises the signal again and ends the process.
            _ => unsafe {
                libc::signal(signal, libc::SIG_DFL);
            },
        }
    }

    pub(super) fn install(lost: fn(&Path) -> i32) {
        if LOST.set(lost).is_err() {
            return;
        }
        // SAFETY: an action of zeroes is a valid one; `answer` has the signature that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = answer as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
        }
    }
}

#[cfg(not(unix))]
mod lost {
    use std::path::Path;

    use memmap2::Mmap;

    /// A mapped file.
    pub(super) struct Watched(Mmap);

    impl Watched {
        pub(super) fn new(map: Mmap, _: &Path) -> Self {
            Self(map)
        }
    }

    impl AsRef<[u8]> for Watched {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    pub(super) fn install(_: fn(&Path) -> i32) {}
}
