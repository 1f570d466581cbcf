//! Runs a target for as many cases as wanted: `millrace-fuzz <target> [cases] [seed]`.

use anyhow::{Context, Result, bail};
use millrace_fuzz::harness::{corpus, run};
use millrace_fuzz::targets::targets;

/// Mutations, if nobody says how many.
const CASES: u64 = 100_000;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let wanted = arguments.next().unwrap_or_default();
    let all = targets();
    let found = all.iter().find(|target| target.name == wanted);
    let found = found.with_context(|| {
        let names: Vec<&str> = all.iter().map(|target| target.name).collect();
        let names = names.join(", ");
        format!("millrace-fuzz <target> [cases] [seed]; the targets are {names}")
    })?;
    let name = found.name;
    let mut number = |default: u64| match arguments.next() {
        Some(text) => text.parse().with_context(|| format!("no number: {text:?}")),
        None => Ok(default),
    };
    let (cases, seed) = (number(CASES)?, number(1)?);
    let inputs = corpus(found.corpus)?;
    match run(found.target, &inputs, cases, seed) {
        Ok(()) => {
            eprintln!("{name}: {} inputs and {cases} mutations", inputs.len());
            Ok(())
        }
        Err(failure) => bail!("{name}: {failure}"),
    }
}
