//! Kernels from a mirror of Debian, through an apt of our own: it checks signatures and sums, and leaves the machine's apt alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};

use super::kernels::Kernel;
use crate::command::{output, run};

/// Debian's keys; the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How old the lists may be.
const FRESH: Duration = Duration::from_secs(12 * 3600);
/// How often a mirror is asked, and how long each time.
const ATTEMPTS: u32 = 2;
const LIMIT: Duration = Duration::from_secs(60);

/// What was taken out of the packages.
#[derive(Clone, Debug)]
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its modules, not compressed, in one folder.
    pub modules: PathBuf,
}

/// The kernels that were fetched, and the lists that say which there are.
#[derive(Debug)]
pub struct Mirror<'a> {
    url: &'a str,
    cache: &'a Path,
    /// Nothing is waited for after this.
    deadline: Instant,
}

impl<'a> Mirror<'a> {
    pub fn new(url: &'a str, cache: &'a Path, deadline: Instant) -> Self {
        Self { url: url.trim_end_matches('/'), cache, deadline }
    }

    /// The present kernel of that series with these modules, from the cache or from the mirror. `say` is told what is fetched.
    pub fn fetch(&self, kernel: &Kernel, modules: &[&str], say: impl Fn(&str)) -> Result<Image> {
        match self.fetch_present(kernel, modules, &say) {
            Err(error) => match self.cached(kernel) {
                Some(image) => {
                    say(&format!("{}: {error:#}; using what was fetched before", kernel.name));
                    Ok(image)
                }
                None => Err(error).with_context(|| {
                    format!("kernel {}: {} has not brought it; --mirror names another", kernel.name, self.url)
                }),
            },
            fetched => fetched,
        }
    }

    fn fetch_present(&self, kernel: &Kernel, modules: &[&str], say: &impl Fn(&str)) -> Result<Image> {
        let apt = self.cache.join("apt").join(kernel.suite);
        self.update(kernel, &apt, say)?;
        let packages = packages(&apt, kernel.package)?;
        let newest = packages.first().with_context(|| format!("{} names no kernel", kernel.package))?;
        let folder = self.cache.join(kernel.name);
        let image = Image { kernel: folder.join("vmlinuz"), modules: folder.join("modules") };
        // Written last.
        let mark = folder.join("packages");
        let wanted = format!("{newest} with {}\n", modules.join(" "));
        if fs::read_to_string(&mark).is_ok_and(|there| there == wanted) {
            return Ok(image);
        }
        let fresh = self.cache.join(format!("{}.new", kernel.name));
        remove(&fresh)?;
        fs::create_dir_all(fresh.join("modules"))?;
        say(&format!("{}: fetching {}", kernel.name, packages.join(", ")));
        persistently(say, || {
            let mut download = self.limited("apt-get", &apt)?;
            run(download.arg("--quiet").arg("download").args(&packages).current_dir(&fresh))
        })?;
        take_out(&fresh, modules)?;
        fs::write(fresh.join("packages"), wanted)?;
        remove(&folder)?;
        fs::rename(&fresh, &folder)?;
        Ok(image)
    }

    fn cached(&self, kernel: &Kernel) -> Option<Image> {
        let folder = self.cache.join(kernel.name);
        let there = folder.join("packages").exists();
        there.then(|| Image { kernel: folder.join("vmlinuz"), modules: folder.join("modules") })
    }

    /// Fetches the lists of a suite, unless they are fresh.
    fn update(&self, kernel: &Kernel, apt: &Path, say: &impl Fn(&str)) -> Result<()> {
        let sources = format!(
            "deb [arch=amd64 signed-by={KEYRING}] {}/{} {} main\n",
            self.url, kernel.archive, kernel.suite
        );
        let file = apt.join("sources.list");
        let is_fresh = |file: &Path| {
            let age = file
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|time| SystemTime::now().duration_since(time).ok());
            age.is_some_and(|age| age < FRESH)
        };
        if is_fresh(&file) && fs::read_to_string(&file).is_ok_and(|there| there == sources) {
            return Ok(());
        }
        for folder in ["state/lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(apt.join(folder))?;
        }
        fs::write(apt.join("status"), "")?;
        fs::write(apt.join("sources.new"), &sources)?;
        say(&format!("{}: asking {} for {}", kernel.name, self.url, kernel.suite));
        persistently(say, || {
            let mut update = self.limited("apt-get", apt)?;
            update.arg("-o").arg(option("Dir::Etc::SourceList", &apt.join("sources.new")));
            // Failing to fetch a list is otherwise a warning.
            run(update.args(["-o", "APT::Update::Error-Mode=any", "--quiet", "update"]))
        })?;
        fs::rename(apt.join("sources.new"), file)?;
        Ok(())
    }

    /// apt, ended when it takes too long.
    fn limited(&self, program: &str, apt: &Path) -> Result<Command> {
        let seconds = self.deadline.saturating_duration_since(Instant::now()).min(LIMIT).as_secs();
        if seconds == 0 {
            bail!("no time is left to ask {}", self.url);
        }
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", &seconds.to_string(), program]);
        configure(&mut command, apt);
        Ok(command)
    }
}

/// Tries again after a while.
fn persistently(say: &impl Fn(&str), mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    for again in (0..ATTEMPTS).rev() {
        match attempt() {
            Err(error) if again > 0 => {
                say(&format!("{error:#}; trying again"));
                std::thread::sleep(Duration::from_secs(3));
            }
            ended => return ended,
        }
    }
    Ok(())
}

/// The packages that bring the kernel: those of Debian's kernel that the package depends on, and theirs. The last of such a chain
/// has the files; the first names the version.
fn packages(apt: &Path, package: &str) -> Result<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    let mut open = vec![package.to_owned()];
    while let Some(package) = open.pop() {
        let shown = output(apt_command("apt-cache", apt).args(["show", "--no-all-versions", &package]))?;
        for dependency in kernel_packages(&shown) {
            if !found.contains(&dependency) {
                found.push(dependency.clone());
                open.push(dependency);
            }
        }
    }
    Ok(found)
}

/// What a package depends on that is part of a kernel.
fn kernel_packages(shown: &str) -> Vec<String> {
    let dependencies = shown.lines().filter_map(|line| line.strip_prefix("Depends: "));
    let names = dependencies.flat_map(|line| line.split(", ")).filter_map(|one| one.split(' ').next());
    let parts = ["linux-image-", "linux-binary-", "linux-modules-"];
    names.filter(|name| parts.iter().any(|part| name.starts_with(part))).map(str::to_owned).collect()
}

/// apt with lists and settings of its own.
fn apt_command(program: &str, apt: &Path) -> Command {
    let mut command = Command::new(program);
    configure(&mut command, apt);
    command
}

fn configure(command: &mut Command, apt: &Path) {
    let folders = [
        option("Dir::State", &apt.join("state")),
        option("Dir::State::Status", &apt.join("status")),
        option("Dir::Cache", &apt.join("cache")),
        option("Dir::Etc::SourceList", &apt.join("sources.list")),
        option("Dir::Etc::SourceParts", &apt.join("parts")),
    ];
    let settings = [
        "APT::Architecture=amd64",
        "APT::Architectures=amd64",
        "APT::Sandbox::User=root",
        "Acquire::Languages=none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        "Acquire::http::Timeout=20",
        "Acquire::Retries=2",
    ];
    for setting in folders.iter().map(String::as_str).chain(settings) {
        command.args(["-o", setting]);
    }
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

/// Takes the kernel and the modules out of the packages in the folder.
fn take_out(folder: &Path, modules: &[&str]) -> Result<()> {
    let tree = folder.join("tree");
    for package in files(folder)?.iter().filter(|file| file.extension().is_some_and(|kind| kind == "deb")) {
        run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&tree))?;
        fs::remove_file(package)?;
    }
    let files = files(&tree)?;
    let named = |file: &Path, wanted: &dyn Fn(&str) -> bool| {
        file.file_name().and_then(|name| name.to_str()).is_some_and(wanted)
    };
    let kernel = files.iter().find(|file| named(file, &|name| name.starts_with("vmlinuz")));
    let kernel = kernel.context("the packages have no vmlinuz")?;
    fs::rename(kernel, folder.join("vmlinuz"))?;
    for module in modules {
        let plain = format!("{module}.ko");
        let compressed = format!("{plain}.xz");
        // What is not there is built in.
        if let Some(file) = files.iter().find(|file| named(file, &|name| name == plain || name == compressed))
        {
            let content = match named(file, &|name| name == compressed) {
                true => {
                    let ended = Command::new("xz").arg("-dc").arg(file).output().context("xz")?;
                    if !ended.status.success() {
                        bail!("xz -dc {}: {}", file.display(), ended.status);
                    }
                    ended.stdout
                }
                false => fs::read(file)?,
            };
            fs::write(folder.join("modules").join(plain), content)?;
        }
    }
    Ok(fs::remove_dir_all(tree)?)
}

/// All files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let list = if entry.file_type()?.is_dir() { &mut open } else { &mut files };
            list.push(entry.path());
        }
    }
    Ok(files)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| folder.display().to_string())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_kernel_are_told_from_its_other_dependencies() {
        let whole = "Package: linux-image-6.1.0-56-cloud-amd64\nDepends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool\n";
        assert_eq!(kernel_packages(whole), [""; 0]);
        let parts = "Pre-Depends: linux-base (>= 4.17~)\nDepends: dracut | linux-initramfs-tool, linux-base-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1), linux-binary-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1), linux-modules-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1)\n";
        assert_eq!(
            kernel_packages(parts),
            ["linux-binary-7.3.4+deb13-cloud-amd64", "linux-modules-7.3.4+deb13-cloud-amd64"]
        );
    }
}
