//! What stays in the kernel when its daemon ends: maps and links as files of a BPF filesystem.
//!
//! In the folder that the user names there is one folder for the network namespace that the interfaces are in, and in that one folder for
//! links and one for the maps of each layout.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aya::programs::links::{FdLink, PinnedLink};
use rustix::fs::{FlockOperation, Mode as FileMode, OFlags, flock, fstat, major, minor, open, statfs};
use rustix::process::geteuid;

use crate::control::document::Mode;
use crate::host::{FIRST_WITH_TCX, KernelRelease, Process};

/// Where pins are by default.
pub const DEFAULT_FOLDER: &str = "/sys/fs/bpf/turn-bpf";

/// Why nothing can be kept, or what was kept cannot be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The folder is elsewhere.
    #[error(
        "{} is in no BPF filesystem; mount one (mount -t bpf bpf /sys/fs/bpf), or name a folder in one that is mounted: \
         --pin-dir", .0.display()
    )]
    NoBpfFilesystem(PathBuf),
    /// Another process has the folder.
    #[error(
        "{} is in use by another turn-bpf ({}) - stop that one first, or give each its own --pin-dir",
        folder.display(), holder.as_ref().map_or_else(|| "pid unknown".to_owned(), |process| format!("pid {}", process.pid))
    )]
    Held {
        /// The folder.
        folder: PathBuf,
        /// Who has it, if that can be told.
        holder: Option<Process>,
    },
    /// What is in the folder may be anybody's.
    #[error(
        "{} belongs to user {owner}, or others may write to it; take it away (turn-bpf detach --pin-dir), or name another --pin-dir",
        folder.display()
    )]
    OfOthers {
        /// The folder.
        folder: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// TC programs are filters.
    #[error(
        "--keep needs Linux {FIRST_WITH_TCX} or newer, where TC programs are held by links that can be handed on (this is {0}); run \
         without --keep"
    )]
    KernelTooOld(KernelRelease),
    /// The operating system refused something.
    #[error("cannot {what} {}", path.display())]
    Refused {
        /// What.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The ingress program, by the mode that it runs in.
    Ingress(Mode),
    /// The program that confirms what generic XDP saw.
    UnseenTag,
    /// The egress program.
    Egress,
}

impl Hook {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress(Mode::Native) => "native",
            Self::Ingress(Mode::Tc) => "tc",
            Self::Ingress(Mode::Generic) => "generic",
            Self::UnseenTag => "unseen_tag",
            Self::Egress => "egress",
        }
    }
}

/// The folder of pins, which is this process's alone.
#[derive(Debug)]
pub struct Pins {
    folder: PathBuf,
    space: PathBuf,
    layout: String,
    /// Until it is closed, others are kept out.
    _lock: OwnedFd,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Attachments to interfaces.
    pub links: usize,
    /// Maps.
    pub maps: usize,
}

impl Pins {
    /// Makes the folder where there is none, for maps of this layout.
    pub fn create(folder: &Path, layout: String) -> Result<Self, PinError> {
        if let Some(kernel) = KernelRelease::running().filter(|kernel| *kernel < FIRST_WITH_TCX) {
            return Err(PinError::KernelTooOld(kernel));
        }
        if !is_in_bpf_filesystem(folder) {
            return Err(PinError::NoBpfFilesystem(folder.to_owned()));
        }
        make(folder)?;
        refuse_shared(folder)?;
        let lock = lock(folder)?;
        let space = folder.join(space_name()?);
        make(&space.join(LINKS))?;
        make(&space.join(&layout))?;
        Ok(Self { folder: folder.to_owned(), space, layout, _lock: lock })
    }

    /// The same where an earlier daemon has left something in this network namespace; else none.
    pub fn find(folder: &Path, layout: String) -> Result<Option<Self>, PinError> {
        if !folder.join(space_name()?).exists() {
            return Ok(None);
        }
        match Self::create(folder, layout) {
            Err(error @ PinError::OfOthers { .. }) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "what is there is left");
                Ok(None)
            }
            created => created.map(Some),
        }
    }

    /// Where a map is.
    pub fn map(&self, name: &str) -> PathBuf {
        self.space.join(&self.layout).join(name)
    }

    /// Where a link is.
    pub fn link(&self, ifindex: u32, hook: Hook) -> PathBuf {
        self.space.join(LINKS).join(format!("{ifindex}-{}", hook.as_str()))
    }

    /// The mode in which an ingress program was left on an interface.
    pub fn mode(&self, ifindex: u32) -> Option<Mode> {
        let modes = [Mode::Native, Mode::Tc, Mode::Generic];
        modes.into_iter().find(|mode| self.link(ifindex, Hook::Ingress(*mode)).exists())
    }

    /// Detaches whatever was left of an ingress program on an interface.
    pub fn detach_ingress(&self, ifindex: u32) {
        for mode in [Mode::Native, Mode::Tc, Mode::Generic] {
            let _not_there = fs::remove_file(self.link(ifindex, Hook::Ingress(mode)));
        }
        let _not_there = fs::remove_file(self.link(ifindex, Hook::UnseenTag));
    }

    /// The ids of the programs that were left attached.
    pub fn programs(&self) -> HashSet<u32> {
        programs(&self.space)
    }

    /// Removes what is not in use: links of other interfaces than these, maps of other layouts, and all of other network namespaces.
    pub fn remove_others(&self, ifindexes: &[u32]) {
        let is_wanted = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let ifindex = name.split_once('-').and_then(|(ifindex, _)| ifindex.parse().ok());
            ifindex.is_some_and(|ifindex| ifindexes.contains(&ifindex))
        };
        for link in entries(&self.space.join(LINKS)).iter().filter(|path| !is_wanted(path)) {
            log(fs::remove_file(link), link);
        }
        let others = entries(&self.space)
            .into_iter()
            .filter(|path| !path.ends_with(LINKS) && !path.ends_with(&self.layout));
        let other_spaces = spaces(&self.folder).into_iter().filter(|path| *path != self.space);
        for folder in others.chain(other_spaces) {
            tracing::info!(folder = %folder.display(), "what an earlier turn-bpf kept in another layout or namespace is replaced");
            log(fs::remove_dir_all(&folder), &folder);
        }
    }

    /// Removes all of it, the folder too.
    pub fn remove(self) -> Result<Removed, PinError> {
        let refused = |what, path: &Path| {
            let path = path.to_owned();
            move |source| PinError::Refused { what, path, source }
        };
        let mut removed = Removed::default();
        for space in spaces(&self.folder) {
            for folder in entries(&space) {
                let files = entries(&folder).len();
                match folder.ends_with(LINKS) {
                    true => removed.links += files,
                    false => removed.maps += files,
                }
            }
            fs::remove_dir_all(&space).map_err(refused("remove", &space))?;
        }
        fs::remove_dir(&self.folder).map_err(refused("remove", &self.folder))?;
        Ok(removed)
    }
}

/// Has nothing stay in the kernel. None where nothing does.
pub fn detach(folder: &Path) -> Result<Option<Removed>, PinError> {
    if spaces(folder).is_empty() {
        return Ok(None);
    }
    let pins = Pins {
        folder: folder.to_owned(),
        space: folder.join(space_name()?),
        layout: String::new(),
        _lock: lock(folder)?,
    };
    let programs = spaces(folder).iter().flat_map(|space| programs(space)).collect();
    let removed = pins.remove()?;
    wait_until_gone(&programs);
    Ok(Some(removed))
}

/// The kernel detaches them by a work queue. Told only to who has CAP_SYS_ADMIN; others do not wait.
fn wait_until_gone(programs: &HashSet<u32>) {
    let is_there =
        || aya::programs::loaded_programs().flatten().any(|program| programs.contains(&program.id()));
    let began = Instant::now();
    while is_there() && began.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

const LINKS: &str = "links";
const SPACE: &str = "netns-";

/// include/uapi/linux/magic.h
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Interfaces are numbered anew in each network namespace.
fn space_name() -> Result<String, PinError> {
    let path = Path::new("/proc/thread-self/ns/net");
    let metadata = fs::metadata(path).map_err(|source| PinError::Refused {
        what: "look at this process's network namespace,",
        path: path.to_owned(),
        source,
    })?;
    Ok(format!("{SPACE}{}", metadata.ino()))
}

/// The ids of the programs of all links.
fn programs(space: &Path) -> HashSet<u32> {
    let links = entries(&space.join(LINKS)).into_iter().filter_map(|path| PinnedLink::from_pin(path).ok());
    links.filter_map(|link| FdLink::from(link).info().ok()).map(|info| info.program_id()).collect()
}

fn spaces(folder: &Path) -> Vec<PathBuf> {
    let is_space = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(SPACE))
    };
    entries(folder).into_iter().filter(is_space).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn make(folder: &Path) -> Result<(), PinError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| PinError::Refused { what: "make the folder", path: folder.to_owned(), source })
}

/// In a filesystem that everybody may write to, somebody else may have made the folder first.
fn refuse_shared(folder: &Path) -> Result<(), PinError> {
    let metadata = fs::metadata(folder).map_err(|source| PinError::Refused {
        what: "look at the folder",
        path: folder.to_owned(),
        source,
    })?;
    let others_may_write = metadata.mode() & 0o022 != 0;
    match metadata.uid() == geteuid().as_raw() && !others_may_write {
        true => Ok(()),
        false => Err(PinError::OfOthers { folder: folder.to_owned(), owner: metadata.uid() }),
    }
}

fn is_in_bpf_filesystem(folder: &Path) -> bool {
    let there = folder.ancestors().find(|ancestor| ancestor.exists());
    there.and_then(|there| statfs(there).ok()).is_some_and(|found| found.f_type == BPF_FS_MAGIC)
}

fn lock(folder: &Path) -> Result<OwnedFd, PinError> {
    let refused = |what, errno: rustix::io::Errno| PinError::Refused {
        what,
        path: folder.to_owned(),
        source: errno.into(),
    };
    let descriptor = open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, FileMode::empty())
        .map_err(|errno| refused("open", errno))?;
    match flock(&descriptor, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(descriptor),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(PinError::Held { folder: folder.to_owned(), holder: holder(&descriptor) })
        }
        Err(errno) => Err(refused("lock", errno)),
    }
}

fn holder(folder: &OwnedFd) -> Option<Process> {
    let status = fstat(folder).ok()?;
    let file = format!("{:02x}:{:02x}:{}", major(status.st_dev), minor(status.st_dev), status.st_ino);
    let pid = pid_of_lock(&fs::read_to_string("/proc/locks").ok()?, &file)?;
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    Some(Process { pid, command })
}

/// Reads lines of `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 812 00:1b:13 0 EOF`.
fn pid_of_lock(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip_while(|word| *word != "FLOCK").skip(3);
        let pid = words.next()?.parse().ok()?;
        (words.next()? == file).then_some(pid)
    })
}

fn log(result: io::Result<()>, path: &Path) {
    if let Err(error) = result {
        tracing::warn!(%error, path = %path.display(), "cannot remove what an earlier turn-bpf kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_read() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:1b:13 0 EOF\n2: FLOCK  ADVISORY  WRITE 812 00:1b:13 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 00:1b:14 0 EOF\n";
        assert_eq!(pid_of_lock(locks, "00:1b:13"), Some(812));
        assert_eq!(pid_of_lock(locks, "00:1b:14"), Some(9));
        assert_eq!(pid_of_lock(locks, "00:1b:15"), None);
    }

    #[test]
    fn a_folder_elsewhere_is_refused() {
        let folder = Path::new("/tmp/turn-bpf-is-not-kept-here");
        assert!(matches!(Pins::create(folder, String::new()), Err(PinError::NoBpfFilesystem(_))));
        assert!(!folder.exists());
        assert!(matches!(Pins::find(folder, String::new()), Ok(None)));
        assert!(matches!(detach(folder), Ok(None)));
    }
}
