//! Which crate may know which: the arrows of the design, held against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Each crate with the crates of the workspace that it may use.
const EDGES: &[(&str, &[&str])] = &[
    ("millrace-model", &[]),
    ("millrace-log", &["millrace-model"]),
    ("millrace-queue", &["millrace-log", "millrace-model"]),
    ("millrace-relabel", &[]),
    ("millrace-views", &["millrace-model"]),
    (
        "millrace-ingest",
        &["millrace-model", "millrace-queue", "millrace-relabel"],
    ),
    (
        "millrace-scrape",
        &[
            "millrace-ingest",
            "millrace-log",
            "millrace-model",
            "millrace-relabel",
        ],
    ),
    (
        "millrace-store",
        &[
            "millrace-log",
            "millrace-model",
            "millrace-queue",
            "millrace-views",
        ],
    ),
    ("millrace-query", &["millrace-model"]),
    (
        "millrace-rules",
        &["millrace-model", "millrace-query", "millrace-relabel"],
    ),
    ("millrace-auth", &["millrace-log", "millrace-model"]),
    (
        "millrace-fleet",
        &["millrace-model", "millrace-query", "millrace-queue"],
    ),
    (
        "millrace-live",
        &["millrace-model", "millrace-query", "millrace-queue"],
    ),
    (
        "millrace",
        &[
            "millrace-auth",
            "millrace-fleet",
            "millrace-ingest",
            "millrace-live",
            "millrace-log",
            "millrace-model",
            "millrace-query",
            "millrace-queue",
            "millrace-rules",
            "millrace-scrape",
            "millrace-store",
            "millrace-views",
        ],
    ),
];

/// Synchronous to the core: no runtime, no HTTP.
const SYNCHRONOUS: &[&str] = &[
    "millrace-model",
    "millrace-log",
    "millrace-relabel",
    "millrace-store",
    "millrace-views",
    "millrace-auth",
];
const ASYNCHRONOUS: &[&str] = &["tokio", "futures", "hyper", "axum", "tower", "reqwest"];

/// Only the binary reads the command line and installs a logger.
const EDGE_OF_THE_PROCESS: &[&str] = &["clap", "tracing-subscriber", "toml", "anyhow"];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo metadata");
    metadata
        .packages
        .iter()
        .map(|package| {
            let normal = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind == DependencyKind::Normal)
                .map(|dependency| dependency.name.clone())
                .collect();
            (package.name.to_string(), normal)
        })
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let found = dependencies();
    for (name, uses) in &found {
        let workspace: BTreeSet<&str> = uses
            .iter()
            .filter(|name| found.contains_key(*name))
            .map(String::as_str)
            .collect();
        // What is beside the product (benchmarks) may use anything, and nobody uses it.
        let Some((_, allowed)) = EDGES.iter().find(|(crate_name, _)| crate_name == name) else {
            let users: Vec<_> = found
                .iter()
                .filter(|(_, uses)| uses.contains(name))
                .collect();
            assert!(
                users.is_empty(),
                "{name} has no place in the design, yet: {users:?}"
            );
            continue;
        };
        let extra: Vec<_> = workspace
            .iter()
            .filter(|name| !allowed.contains(name))
            .collect();
        assert!(extra.is_empty(), "{name} must not use {extra:?}");
    }
    for (name, _) in EDGES {
        assert!(found.contains_key(*name), "{name} is gone: adapt the table");
    }
}

#[test]
fn the_core_knows_no_runtime_and_only_the_binary_the_process() {
    let found = dependencies();
    for name in SYNCHRONOUS {
        for runtime in ASYNCHRONOUS {
            assert!(
                !found[*name].contains(*runtime),
                "{name} must not know {runtime}"
            );
        }
    }
    for (name, _) in EDGES.iter().filter(|(name, _)| *name != "millrace") {
        for edge in EDGE_OF_THE_PROCESS {
            assert!(!found[*name].contains(*edge), "{name} must not use {edge}");
        }
    }
}
