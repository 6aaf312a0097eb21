//! The file system of a guest: programs with the libraries that they are linked with, all at the same paths as on the host.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::cpio::Archive;
use super::guest::{PLAN, Plan};
use super::mirror::Image;
use crate::command::{find, output};

/// What the lab's and coturn's ways of working need.
const PROGRAMS: [&str; 13] = [
    "turnserver",
    "ip",
    "tc",
    "ethtool",
    "nft",
    "cat",
    "ls",
    "kill",
    "nsenter",
    "setpriv",
    "sh",
    "sleep",
    "true",
];
/// Mounted by the first process, and what programs expect to be there.
const FOLDERS: [&str; 7] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/var/tmp"];

/// The part that is the same for all kernels.
pub struct Base(Archive);

impl Base {
    /// Puts the programs together: the first process and these, which the project has built.
    pub fn new(init: &Path, built: &[PathBuf], scratch: &Path) -> Result<Self> {
        let mut archive = Archive::default();
        FOLDERS.iter().for_each(|folder| archive.folder(folder));
        archive.program("/init", stripped(init, scratch)?);
        add_libraries(&mut archive, init)?;
        for program in built {
            archive.program(program, stripped(program, scratch)?);
            add_libraries(&mut archive, program)?;
        }
        for name in PROGRAMS {
            let program = find(name).with_context(|| format!("{name} is not there: cargo xtask setup"))?;
            archive.program(&program, fs::read(&program)?);
            add_libraries(&mut archive, &program)?;
            if name == "sh" {
                archive.link("/bin/sh", &program);
            }
        }
        Ok(Self(archive))
    }

    /// A file that a test reads.
    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        let content = fs::read(path).with_context(|| path.display().to_string())?;
        self.0.program(path, content);
        Ok(())
    }

    /// A folder that a program is to run in.
    pub fn add_folder(&mut self, path: &Path) {
        self.0.folder(path);
    }

    /// Writes the file for one kernel: this, and behind it an archive of what is that kernel's own.
    pub fn write(&self, image: &Image, modules: &[&str], mut plan: Plan, to: &Path) -> Result<()> {
        let mut own = Archive::default();
        for module in modules {
            let name = format!("{module}.ko");
            // What is not there is built in.
            if let Ok(content) = fs::read(image.modules.join(&name)) {
                let path = Path::new("/modules").join(name);
                own.program(&path, content);
                plan.modules.push(path);
            }
        }
        own.program(PLAN, serde_json::to_vec(&plan)?);
        let mut file = BufWriter::new(File::create(to).with_context(|| to.display().to_string())?);
        self.0.write(&mut file)?;
        own.write(&mut file)?;
        Ok(file.flush()?)
    }
}

/// A program without its debugging information, which is most of it.
fn stripped(program: &Path, scratch: &Path) -> Result<Vec<u8>> {
    let smaller = scratch.join("stripped");
    let done = Command::new("strip").arg("--strip-debug").arg("-o").arg(&smaller).arg(program).status();
    let read = if done.is_ok_and(|status| status.success()) { &smaller } else { program };
    fs::read(read).with_context(|| read.display().to_string())
}

/// Adds the libraries that the dynamic linker would take, and the linker itself.
fn add_libraries(archive: &mut Archive, program: &Path) -> Result<()> {
    let listed = output(Command::new("ldd").arg(program))?;
    for library in libraries(&listed) {
        if !archive.contains(library) {
            archive.program(library, fs::read(library).with_context(|| library.display().to_string())?);
        }
    }
    Ok(())
}

/// Reads ldd's `name => /path (0x...)` and `/path (0x...)`.
fn libraries(listed: &str) -> impl Iterator<Item = &Path> {
    let words = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_linker_are_found() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"].map(Path::new);
        assert_eq!(libraries(listed).collect::<Vec<_>>(), expected);
    }
}
