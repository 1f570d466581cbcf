//! `millrace check rules`: rule files, in the words of `promtool check rules`.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_log::fs::{Fs, OsFs};
use millrace_query::{Engine, LabelRequest, Select, SeriesSource, SourceError, StoredSeries};
use millrace_rules::{Files as _, GroupSpec, RuleFault, check_file};

use crate::cli::{CheckArgs, CheckCommand};
use crate::config::Config;
use crate::failure::Failure;
use crate::rules::{RuleDisk, places};
use crate::{options, print};

/// Checks files and prints what came of it.
///
/// # Errors
///
/// Files with an error.
pub fn run(args: &CheckArgs, config: &Config) -> Result<(), Failure> {
    let CheckCommand::Rules { files } = &args.what;
    let global = places(config)?.defaults;
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let disk = RuleDisk(fs);
    let engine = Engine::new(Arc::new(Nothing), options::engine(config));
    let mut failed = 0;
    for path in files {
        print(&format!("Checking {}\n", path.display()))?;
        let checked = match disk.matching(path) {
            Ok(texts) => texts
                .into_iter()
                .map(|(path, text)| check_file(&path, &text, &global, &engine))
                .try_fold(Vec::new(), |mut all: Vec<GroupSpec>, groups| {
                    all.extend(groups?);
                    Ok(all)
                }),
            Err(what) => Err(vec![RuleFault {
                path: path.clone(),
                what,
            }]),
        };
        match checked {
            Ok(groups) => print(&report(path, &groups))?,
            Err(faults) => {
                failed += 1;
                let lines: String = faults.iter().map(|fault| format!("{fault}\n")).collect();
                print(&format!("  FAILED:\n{lines}\n"))?;
            }
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(Failure::Refused(format!(
            "{failed} of {} rule files have errors",
            files.len()
        ))),
    }
}

fn report(path: &std::path::Path, groups: &[GroupSpec]) -> String {
    let rules: usize = groups.iter().map(|group| group.rules.len()).sum();
    let mut count: BTreeMap<(String, &BTreeMap<String, String>), usize> = BTreeMap::new();
    for rule in groups.iter().flat_map(|group| &group.rules) {
        *count.entry((rule.name.clone(), &rule.labels)).or_default() += 1;
    }
    let twice: Vec<_> = count.iter().filter(|(_, count)| **count > 1).collect();
    let mut text = format!("  SUCCESS: {rules} rules found\n\n");
    if !twice.is_empty() {
        let names: String = twice
            .iter()
            .map(|((name, labels), _)| format!("Metric: {name}\nLabel(s):\n{}", lines(labels)))
            .collect();
        text.insert_str(
            0,
            &format!(
                "{} duplicate rule(s) found in {}.\n{names}Might cause inconsistency while recording expressions\n",
                twice.len(),
                path.display()
            ),
        );
    }
    text
}

fn lines(labels: &BTreeMap<String, String>) -> String {
    let line = |(name, value): (&String, &String)| format!("\t{name}: {value}\n");
    labels.iter().map(line).collect()
}

/// Checking reads no data.
#[derive(Debug)]
struct Nothing;

impl SeriesSource for Nothing {
    fn select(&self, _: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        Ok(Vec::new())
    }

    fn label_names(&self, _: &LabelRequest<'_>) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }
}
