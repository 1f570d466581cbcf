//! Feeds targets.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::mutate::{Random, mutated};

/// What is fuzzed. It panics where a rule is broken.
pub type Target = fn(&[u8]);

/// An input that broke a rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The input.
    pub input: Vec<u8>,
    /// What the target said.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let input = String::from_utf8_lossy(&self.input);
        write!(f, "{}\ninput: {input:?}", self.message)
    }
}

/// Feeds the corpus, then so many mutations of it; the first failure, if there is one.
///
/// # Errors
///
/// The input that broke a rule.
pub fn run(target: Target, corpus: &[Vec<u8>], cases: u64, seed: u64) -> Result<(), Failure> {
    for input in corpus {
        feed(target, input)?;
    }
    let mut random = Random::new(seed);
    for _ in 0..cases {
        feed(target, &mutated(corpus, &mut random))?;
    }
    Ok(())
}

fn feed(target: Target, input: &[u8]) -> Result<(), Failure> {
    catch_unwind(AssertUnwindSafe(|| target(input))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Failure {
            input: input.to_vec(),
            message: text.unwrap_or_else(|| "a panic without words".to_owned()),
        }
    })
}

/// The committed inputs in a directory of the repository, in order of their names.
///
/// # Errors
///
/// A directory that cannot be read, or has none.
pub fn corpus(directory: &str) -> Result<Vec<Vec<u8>>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(directory);
    let entries =
        std::fs::read_dir(&directory).with_context(|| format!("{}", directory.display()))?;
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    paths.sort();
    ensure!(!paths.is_empty(), "{} is empty", directory.display());
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("{}", path.display()));
    paths.iter().map(read).collect()
}
