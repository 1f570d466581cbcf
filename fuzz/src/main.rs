//! Runs a target for as many cases as wanted: `millrace-fuzz <target> [cases] [seed]`.

use anyhow::{Context, Result, bail};
use millrace_fuzz::harness::{corpus, run};
use millrace_fuzz::targets::TARGETS;

/// Mutations, if nobody says how many.
const CASES: u64 = 100_000;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let wanted = arguments.next().unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    let (name, target) = found.with_context(|| {
        let names = TARGETS.map(|(name, _)| name).join(", ");
        format!("millrace-fuzz <target> [cases] [seed]; the targets are {names}")
    })?;
    let mut number = |default: u64| match arguments.next() {
        Some(text) => text.parse().with_context(|| format!("no number: {text:?}")),
        None => Ok(default),
    };
    let (cases, seed) = (number(CASES)?, number(1)?);
    // The canary lives on the queries.
    let inputs = corpus(if *name == "canary" {
        "query_text"
    } else {
        name
    })?;
    match run(*target, &inputs, cases, seed) {
        Ok(()) => {
            eprintln!("{name}: {} inputs and {cases} mutations", inputs.len());
            Ok(())
        }
        Err(failure) => bail!("{name}: {failure}"),
    }
}
