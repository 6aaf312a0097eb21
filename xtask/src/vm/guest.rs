//! What host and guest say to each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the plan is in the guest.
pub const PLAN: &str = "/plan.json";

/// What the guest is to do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Kernel modules, in the order in which they are loaded.
    pub modules: Vec<PathBuf>,
    /// Programs, one after the other.
    pub steps: Vec<Step>,
}

/// A program to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub folder: PathBuf,
    pub variables: Vec<(String, String)>,
    /// After this long it is killed.
    pub limit_seconds: u64,
}

/// What the guest tells, one line of JSON each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "told")]
pub enum Message {
    /// The modules are loaded.
    Booted { release: String },
    /// A step has written a line.
    Line { step: usize, line: String },
    /// A step has ended; without a code, by a signal.
    Ended { step: usize, code: Option<i32>, milliseconds: u64 },
    /// Something went wrong that is no step's fault.
    Failed { why: String },
    /// All is told.
    Done,
}
