//! Prometheus's own test scripts, run against the engine.
//!
//! The scripts are not part of this repository: they are read from the directory that
//! `MILLRACE_PROMQLTEST` names, by default `../../shared/promqltest`. Without it the tests fail,
//! unless `MILLRACE_PROMQLTEST_OPTIONAL` is set.

mod bounds;
mod deltas;
mod memory;
mod prometheus;
mod run;
mod script;

use std::path::PathBuf;

/// The directory of the scripts; `None` if it is missing and may be.
fn directory() -> Option<PathBuf> {
    let named = std::env::var_os("MILLRACE_PROMQLTEST").map(PathBuf::from);
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/promqltest");
    let directory = named.unwrap_or_else(default);
    if directory.is_dir() {
        return Some(directory);
    }
    assert!(
        std::env::var_os("MILLRACE_PROMQLTEST_OPTIONAL").is_some(),
        "no PromQL scripts in {directory:?}; name their directory by MILLRACE_PROMQLTEST, \
         or set MILLRACE_PROMQLTEST_OPTIONAL to do without"
    );
    eprintln!("no PromQL scripts in {directory:?}: nothing was tested");
    None
}

fn check(name: &str) {
    let Some(directory) = directory() else {
        return;
    };
    let path = directory.join(name).with_extension("test");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let commands = script::parse(&text).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let report = run::run(&commands);
    println!(
        "{name}: {} passed, {} skipped, {} failed",
        report.passed,
        report.skipped.len(),
        report.failed.len()
    );
    for (line, reason) in &report.skipped {
        println!("  skipped {name}.test:{line}: {reason}");
    }
    for (line, query, problem) in &report.failed {
        println!("  FAILED {name}.test:{line}: {query}\n    {problem}");
    }
    assert!(
        report.failed.is_empty(),
        "{} cases failed",
        report.failed.len()
    );
    assert!(report.passed > 0 || !report.skipped.is_empty(), "no cases");
}

macro_rules! scripts {
    ($($test:ident => $name:literal),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                check($name);
            }
        )*

        const SCRIPTS: &[&str] = &[$($name),*];
    };
}

scripts! {
    aggregators => "aggregators",
    at_modifier => "at_modifier",
    collision => "collision",
    duration_expression => "duration_expression",
    extended_vectors => "extended_vectors",
    fill_modifier => "fill-modifier",
    functions => "functions",
    histograms => "histograms",
    info => "info",
    limit => "limit",
    literals => "literals",
    name_label_dropping => "name_label_dropping",
    native_histograms => "native_histograms",
    operators => "operators",
    range_queries => "range_queries",
    selectors => "selectors",
    staleness => "staleness",
    start_timestamps => "start_timestamps",
    subquery => "subquery",
    trig_functions => "trig_functions",
    type_and_unit => "type_and_unit",
}

#[test]
fn every_script_is_run() {
    let Some(directory) = directory() else {
        return;
    };
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "test") {
            let name = path.file_stem().and_then(|s| s.to_str()).expect("a name");
            assert!(SCRIPTS.contains(&name), "{name}.test has no test");
        }
    }
}
