//! The floating-point environment that callbacks run in.
//!
//! A host may have its threads take subnormal numbers for zeros. ONNX Runtime does where a session is made with
//! `session.set_denormal_as_zero`: on the threads of the session's pool, but not on every thread that runs the session, so that a
//! sample's bits would depend on the thread that it came to. Rust's code, too, is compiled for the default environment, and what
//! it does in another is undefined. So the default one is set whenever the host calls, and the host's own when it gets back control.
//!
//! That is within Rust's rules, which forbid to leave the default environment: here it is come back to, before any arithmetic, and
//! the host's is set again after all of it, as the calling convention asks of whoever changed it.

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod machine {
    use std::arch::asm;

    /// What `MXCSR` holds in the default environment: no exception traps, rounding to nearest, subnormal numbers as they are.
    pub(super) const DEFAULT: u32 = 0x1f80;

    /// The flags of exceptions that have happened, which are no part of the environment.
    pub(super) const HAPPENED: u32 = 0x3f;

    /// The bits by which subnormal operands and subnormal results are zeros.
    #[cfg(test)]
    pub(super) const NO_SUBNORMAL_NUMBERS: u32 = 0x8040;

    pub(super) fn get() -> u32 {
        let mut control = 0_u32;
        // SAFETY: writes the four bytes that it is given.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut control, options(nostack, preserves_flags)) };
        control
    }

    /// # Safety
    /// `control` is a value that the register had, or the default. The environment is the default one as long as Rust's code may do
    /// arithmetic. (The compiler moves no load or store across this, so no arithmetic either on what is in memory.)
    pub(super) unsafe fn set(control: u32) {
        // SAFETY: reads the four bytes that it is given, of which none is reserved by the caller's promise; and as above.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack, preserves_flags)) };
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod machine {
    use std::arch::asm;

    /// What `FPCR` holds in the default environment.
    pub(super) const DEFAULT: u64 = 0;

    /// The flags of exceptions are in another register.
    pub(super) const HAPPENED: u64 = 0;

    /// The bit by which subnormal operands and subnormal results are zeros.
    #[cfg(test)]
    pub(super) const NO_SUBNORMAL_NUMBERS: u64 = 1 << 24;

    pub(super) fn get() -> u64 {
        let control;
        // SAFETY: changes nothing.
        unsafe { asm!("mrs {}, fpcr", out(reg) control, options(nostack, preserves_flags)) };
        control
    }

    /// # Safety
    /// As on the other processor.
    pub(super) unsafe fn set(control: u64) {
        // SAFETY: by the caller's promise.
        unsafe { asm!("msr fpcr, {}", in(reg) control, options(nostack, preserves_flags)) };
    }
}

/// Nothing is known of other processors.
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
mod machine {
    pub(super) const DEFAULT: u32 = 0;
    pub(super) const HAPPENED: u32 = 0;
    #[cfg(test)]
    pub(super) const NO_SUBNORMAL_NUMBERS: u32 = 0;

    pub(super) fn get() -> u32 {
        DEFAULT
    }

    pub(super) unsafe fn set(_: u32) {}
}

/// Runs `body`, which the host called on this thread, in the default environment. Nothing unwinds out of it: what it does with a
/// panic is its own affair.
pub(super) fn in_default<O>(body: impl FnOnce() -> O) -> O {
    let host = machine::get();
    if host & !machine::HAPPENED == machine::DEFAULT {
        return body();
    }
    // SAFETY: the default.
    unsafe { machine::set(machine::DEFAULT) };
    let result = body();
    // SAFETY: the host's own, to which control goes back; nothing but returning is left to do.
    unsafe { machine::set(host) };
    result
}

/// Whether the environment is the default one.
#[cfg(test)]
pub(super) fn is_default() -> bool {
    machine::get() & !machine::HAPPENED == machine::DEFAULT
}

/// Calls `callback` as a host does whose threads take subnormal numbers for zeros, and says whether they still do afterwards.
#[cfg(test)]
pub(super) fn without_subnormal_numbers(callback: impl FnOnce()) -> bool {
    // Results that are subnormal, and operands: the bits that ONNX Runtime sets.
    let control = machine::DEFAULT | machine::NO_SUBNORMAL_NUMBERS;
    // SAFETY: all that runs in this environment is the beginning and the end of a callback, and no arithmetic.
    unsafe {
        machine::set(control);
        callback();
        let after = machine::get();
        machine::set(machine::DEFAULT);
        after & !machine::HAPPENED == control
    }
}
