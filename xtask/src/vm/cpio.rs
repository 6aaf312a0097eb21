//! An initial RAM file system: the "newc" format of cpio (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const END: &str = "TRAILER!!!";

/// What is to be in it, by absolute path. The folders on the way are made.
#[derive(Debug, Default)]
pub struct Archive(BTreeMap<PathBuf, Entry>);

#[derive(Debug)]
enum Entry {
    Folder,
    Program(Vec<u8>),
    Link(PathBuf),
}

impl Archive {
    /// Adds an empty folder.
    pub fn folder(&mut self, path: impl AsRef<Path>) {
        self.add(path.as_ref(), Entry::Folder);
    }

    /// Adds a file that can be run.
    pub fn program(&mut self, path: impl AsRef<Path>, content: Vec<u8>) {
        self.add(path.as_ref(), Entry::Program(content));
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: impl AsRef<Path>, target: impl Into<PathBuf>) {
        self.add(path.as_ref(), Entry::Link(target.into()));
    }

    /// Whether there is something of that path already.
    pub fn contains(&self, path: &Path) -> bool {
        self.0.contains_key(&plain(path))
    }

    /// Writes all of it.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        for (number, (path, entry)) in self.0.iter().enumerate() {
            let name = path.strip_prefix("/").unwrap_or(path).as_os_str().as_encoded_bytes();
            let (mode, content) = match entry {
                Entry::Folder => (FOLDER, &[][..]),
                Entry::Program(content) => (PROGRAM, &content[..]),
                Entry::Link(target) => (LINK, target.as_os_str().as_encoded_bytes()),
            };
            member(to, number as u32 + 1, mode, name, content)?;
        }
        member(to, 0, 0, END.as_bytes(), &[])
    }

    fn add(&mut self, path: &Path, entry: Entry) {
        let path = plain(path);
        for folder in path.ancestors().skip(1).filter(|folder| folder.parent().is_some()) {
            self.0.entry(folder.into()).or_insert(Entry::Folder);
        }
        self.0.insert(path, entry);
    }
}

/// Without `.` and `..`, which the kernel does not resolve here.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            _ => {}
        }
    }
    plain
}

fn member(to: &mut impl Write, inode: u32, mode: u32, name: &[u8], content: &[u8]) -> io::Result<()> {
    let size = |bytes: usize| u32::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
    let (links, name_size) = (1, size(name.len() + 1)?);
    let (user, group, time, major, minor, checksum) = (0, 0, 0, 0, 0, 0);
    let fields = [
        inode,
        mode,
        user,
        group,
        links,
        time,
        size(content.len())?,
        major,
        minor,
        major,
        minor,
        name_size,
        checksum,
    ];
    let mut header = b"070701".to_vec();
    for field in fields {
        write!(header, "{field:08X}")?;
    }
    header.extend_from_slice(name);
    header.push(0);
    to.write_all(&header)?;
    to.write_all(padding(header.len()))?;
    to.write_all(content)?;
    to.write_all(padding(content.len()))
}

/// Up to the next multiple of four.
fn padding(length: usize) -> &'static [u8] {
    &[0; 3][..length.next_multiple_of(4) - length]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, after the format's description: magic number, thirteen fields, name and zero, padding, content, padding.
    #[test]
    fn a_program_in_a_folder() {
        let mut archive = Archive::default();
        archive.program("/a/./x/../bc", b"12345".to_vec());
        archive.link("/l", "a/bc");
        let mut written = Vec::new();
        archive.write(&mut written).unwrap();
        let header = |inode: &str, mode: &str, size: &str, name_size: &str| {
            let zeros = |count| "00000000".repeat(count);
            format!(
                "070701{inode}{mode}{}00000001{}{size}{}{name_size}{}",
                zeros(2),
                zeros(1),
                zeros(4),
                zeros(1)
            )
        };
        let expected = [
            header("00000001", "000041ED", "00000000", "00000002") + "a\0",
            header("00000002", "000081ED", "00000005", "00000005") + "a/bc\0\0" + "12345\0\0\0",
            header("00000003", "0000A1FF", "00000004", "00000002") + "l\0" + "a/bc",
            header("00000000", "00000000", "00000000", "0000000B") + "TRAILER!!!\0\0\0\0",
        ];
        assert_eq!(String::from_utf8(written).unwrap(), expected.concat());
    }
}
