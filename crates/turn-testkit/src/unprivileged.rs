//! turn-bpf as a user runs it who is not root.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::scratch::ScratchFolder;

/// A folder with turn-bpf in it, where anybody can run it and make a socket.
#[derive(Debug)]
pub struct PublicFolder(ScratchFolder);

impl PublicFolder {
    /// With a copy of this binary.
    pub fn with(binary: &str) -> io::Result<Self> {
        let folder = ScratchFolder::new("public")?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777))?;
        let public = Self(folder);
        fs::copy(binary, public.binary())?;
        Ok(public)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The copy.
    pub fn binary(&self) -> PathBuf {
        self.path().join("turn-bpf")
    }

    /// A program that runs the copy as nobody, with the capabilities that it needs and no others.
    pub fn as_nobody(&self) -> io::Result<PathBuf> {
        let wrapper = self.path().join("as-nobody");
        let script = format!(
            "#!/bin/sh\nexec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps={0} --ambient-caps={0} {1} \"$@\"\n",
            "+bpf,+net_admin,+perfmon",
            self.binary().display()
        );
        fs::write(&wrapper, script)?;
        fs::set_permissions(&wrapper, Permissions::from_mode(0o755))?;
        Ok(wrapper)
    }
}
