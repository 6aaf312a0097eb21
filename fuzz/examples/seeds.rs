//! Writes the inputs that the fuzz targets start from into `fuzz/corpus`, or with `--check` says where those differ.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

fn main() -> io::Result<ExitCode> {
    let only_check = env::args().any(|argument| argument == "--check");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let seeds = turn_bpf_fuzz::seeds::all();
    let mut differ = Vec::new();
    let mut names = BTreeSet::new();
    for seed in &seeds {
        let path = corpus.join(seed.target).join(&seed.name);
        assert!(names.insert(path.clone()), "two seeds are called {}", path.display());
        if fs::read(&path).is_ok_and(|bytes| bytes == seed.bytes) {
            continue;
        }
        if !only_check {
            fs::create_dir_all(path.parent().expect("the folder of the target"))?;
            fs::write(&path, &seed.bytes)?;
        }
        differ.push(path);
    }
    for path in &differ {
        println!("{}: {}", path.display(), if only_check { "is not as it should be" } else { "written" });
    }
    println!("{} seeds, {} {}", seeds.len(), differ.len(), if only_check { "differ" } else { "written" });
    Ok(if only_check && !differ.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
