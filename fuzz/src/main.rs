//! Runs a target for as many cases as wanted.

use anyhow::{Context, Result, bail};
use clap::Parser;
use millrace_fuzz::harness::{corpus, run};
use millrace_fuzz::targets::TARGETS;

/// Feeds a fuzz target with mutations of its corpus.
#[derive(Debug, Parser)]
struct Cli {
    /// query_text, request or canary
    target: String,
    /// How many mutations
    #[arg(long, default_value_t = 100_000)]
    cases: u64,
    /// What decides them
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let found = TARGETS.iter().find(|(name, _)| *name == cli.target);
    let (name, target) = found.with_context(|| format!("no target {:?}", cli.target))?;
    // The canary lives on the queries.
    let inputs = corpus(if *name == "canary" {
        "query_text"
    } else {
        name
    })?;
    match run(*target, &inputs, cli.cases, cli.seed) {
        Ok(()) => {
            eprintln!(
                "{name}: {} inputs and {} mutations",
                inputs.len(),
                cli.cases
            );
            Ok(())
        }
        Err(failure) => bail!("{name}: {failure}"),
    }
}
