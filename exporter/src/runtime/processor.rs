//! Which processor a shared library is for: of one for another the loader says that there is no such file.

use std::env::consts::ARCH;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Result, bail};

/// `e_machine` in the header of an ELF file, and what Rust calls the processor.
const MACHINES: [(u16, &str); 6] =
    [(3, "x86"), (40, "arm"), (62, "x86_64"), (183, "aarch64"), (21, "powerpc64"), (243, "riscv64")];

/// Refuses a library for another processor than this program's.
///
/// # Errors
/// An ELF file that says so. What else may be wrong with a file the loader tells.
pub fn check(library: &Path) -> Result<()> {
    let mut header = [0; 20];
    let read = File::open(library).and_then(|mut file| file.read_exact(&mut header));
    if read.is_err() || !header.starts_with(b"\x7fELF") {
        return Ok(());
    }
    let machine = [header[18], header[19]];
    let machine = if header[5] == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    let name = MACHINES.iter().find(|(number, _)| *number == machine).map(|(_, name)| *name);
    if name == Some(ARCH) || MACHINES.iter().all(|(_, name)| *name != ARCH) {
        return Ok(());
    }
    let found = name.map_or_else(|| format!("another processor (e_machine {machine})"), str::to_owned);
    bail!(
        "{}: is a library for {found}, and this program runs on {ARCH}; name one for that",
        library.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_for_another_processor_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("op.so");
        let refused = |order: u8, machine: [u8; 2]| {
            let mut header = [0; 64];
            header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, order]);
            header[18..20].copy_from_slice(&machine);
            std::fs::write(&path, header).unwrap();
            check(&path).err().map(|error| error.to_string())
        };
        for (order, machine, named) in [
            (1, [62, 0], "x86_64"),
            (1, [183, 0], "aarch64"),
            (2, [0, 21], "powerpc64"),
            (1, [0xff, 0xff], "another processor (e_machine 65535)"),
        ] {
            let refused = refused(order, machine);
            let own = named == ARCH;
            assert_eq!(refused.is_none(), own, "{refused:?}");
            assert!(own || refused.unwrap().contains(&format!("op.so: is a library for {named}, and")));
        }
        std::fs::write(&path, b"\x7fELF").unwrap();
        assert!(check(&path).is_ok() && check(folder.path()).is_ok());
    }
}
