//! `file_sd_configs`: groups in JSON and YAML files.
//!
//! Files are read at the start, and again when they change: that is looked for every
//! [`LOOK`], and all of them are read again in every `refresh_interval`. A file that cannot be read
//! leaves what it said before.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millrace_log::fs::Fs;

use super::{Finder, Group, ticks};
use crate::config::{FileSd, StaticGroup, check_group, parse};
use crate::files;

/// How often it is looked whether files have changed: what is behind them may be renamed into
/// place, so their bytes are what tells.
const LOOK: Duration = Duration::from_secs(2);

/// What a file said last.
#[derive(Clone, Debug, Default)]
struct Known {
    hash: u64,
    groups: Vec<Group>,
    /// Why it could not be read the last time, to be said once.
    error: Option<String>,
}

impl Known {
    /// Notes an error, which is one of `errors` if it is new.
    fn failed(&mut self, path: &Path, error: String, errors: &mut Vec<(PathBuf, String)>) {
        if self.error.as_ref() != Some(&error) {
            errors.push((path.to_owned(), error.clone()));
        }
        self.error = Some(error);
    }
}

type Files = BTreeMap<PathBuf, Known>;

/// What a look found.
struct Look {
    files: Files,
    /// Errors that are new.
    errors: Vec<(PathBuf, String)>,
}

pub(super) async fn run(finder: Finder, sd: FileSd) {
    let mut ticks = ticks(LOOK.min(sd.refresh_interval.0));
    let mut files = Files::new();
    loop {
        ticks.tick().await;
        let (fs, patterns, before) = (finder.fs.clone(), sd.files.clone(), files.clone());
        let looking = tokio::task::spawn_blocking(move || look(&fs, &patterns, before));
        match looking.await {
            Ok(look) => {
                for (path, error) in &look.errors {
                    finder.failed("file", &path.display().to_string(), error);
                }
                files = look.files;
            }
            Err(error) => finder.failed("file", "a look", &error.to_string()),
        }
        let groups = files.values().flat_map(|known| known.groups.clone());
        if !finder.tell(groups.collect()) {
            return;
        }
    }
}

fn look(fs: &Arc<dyn Fs>, patterns: &[PathBuf], mut before: Files) -> Look {
    let (mut found, mut errors) = (Files::new(), Vec::new());
    for pattern in patterns {
        let paths = match files::matching(&**fs, pattern) {
            Ok(paths) => paths,
            Err(error) => {
                // What was found there stays, and so does what went wrong, under the pattern.
                let there =
                    |path: &PathBuf, _: &mut Known| files::parent(path) == files::parent(pattern);
                found.extend(before.extract_if(.., there));
                let known = found.entry(pattern.clone()).or_default();
                known.failed(pattern, error.to_string(), &mut errors);
                continue;
            }
        };
        for path in paths {
            let known = before.remove(&path).or_else(|| found.remove(&path));
            let mut known = known.unwrap_or_default();
            match read(&**fs, &path, &mut known) {
                Ok(()) => known.error = None,
                Err(error) => known.failed(&path, error, &mut errors),
            }
            found.insert(path, known);
        }
    }
    Look {
        files: found,
        errors,
    }
}

fn read(fs: &dyn Fs, path: &Path, known: &mut Known) -> Result<(), String> {
    let text = match files::read_text(fs, path) {
        Ok(text) => text,
        Err(error) => {
            if !fs.exists(path).unwrap_or(true) {
                // It was taken away, and its targets with it.
                known.groups = Vec::new();
                known.hash = 0;
            }
            return Err(error.to_string());
        }
    };
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let hash = hasher.finish();
    if hash == known.hash {
        return match &known.error {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        };
    }
    known.hash = hash;
    known.groups = groups(path, &text)?;
    Ok(())
}

fn groups(path: &Path, text: &str) -> Result<Vec<Group>, String> {
    let json = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let groups: Vec<StaticGroup> = match json {
        true => serde_json::from_str(text).map_err(|error| error.to_string())?,
        false => parse(path, text).map_err(|error| error.to_string())?,
    };
    let shown = path.to_string_lossy();
    for group in &groups {
        check_group(group)?;
    }
    let meta = [("__meta_filepath", &*shown)];
    Ok(groups
        .iter()
        .map(|group| Group::new(group, &meta))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_log::fs::{OsFs, publish};

    fn write(path: &Path, text: &str) {
        publish(&OsFs, path, text.as_bytes()).unwrap();
    }

    fn addresses(files: &Files) -> Vec<String> {
        let groups = files.values().flat_map(|known| &known.groups);
        groups
            .flat_map(|group| {
                group
                    .labels()
                    .map(|l| l.get("__address__").to_owned())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn files_come_change_break_and_go() {
        let fs: Arc<dyn Fs> = Arc::new(OsFs);
        let dir = tempfile::tempdir().unwrap();
        let pattern = [dir.path().join("*.json"), dir.path().join("b.yml")];
        write(
            &dir.path().join("a.json"),
            r#"[{"targets": ["a:1", "a:2"], "labels": {"x": "y"}}]"#,
        );
        write(&dir.path().join("b.yml"), "- targets: ['b:1']\n");
        let first = look(&fs, &pattern, Files::new());
        assert_eq!(addresses(&first.files), ["a:1", "a:2", "b:1"]);
        assert!(first.errors.is_empty());
        let path = dir.path().join("a.json");
        let labels = first.files[&path].groups[0].labels().next().unwrap();
        assert_eq!(labels.get("__meta_filepath"), path.to_str().unwrap());
        assert_eq!(labels.get("x"), "y");

        // What breaks is told once, and leaves what was there.
        write(&path, "[{\"targets\": ");
        let broken = look(&fs, &pattern, first.files);
        assert_eq!(addresses(&broken.files), ["a:1", "a:2", "b:1"]);
        assert_eq!(broken.errors.len(), 1, "{:?}", broken.errors);
        let again = look(&fs, &pattern, broken.files);
        assert!(again.errors.is_empty());

        write(&path, r#"[{"targets": ["a:3"]}]"#);
        let fixed = look(&fs, &pattern, again.files);
        assert_eq!(addresses(&fixed.files), ["a:3", "b:1"]);
        OsFs.unlink(&path).unwrap();
        OsFs.unlink(&dir.path().join("b.yml")).unwrap();
        let gone = look(&fs, &pattern, fixed.files);
        assert!(addresses(&gone.files).is_empty());
    }

    #[test]
    fn a_file_that_is_no_list_of_groups_is_refused() {
        for (name, text) in [
            ("a.json", r#"[{"target": ["a"]}]"#),
            ("a.json", r#"[{"targets": ["a"], "labels": {"": "b"}}]"#),
            ("a.json", ""),
            ("a.yml", "- targets: a\n"),
        ] {
            assert!(groups(Path::new(name), text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_with_one_bad_address_keeps_the_others() {
        let text = r#"[{"targets": ["http://a/", "b:1"]}]"#;
        let groups = groups(Path::new("a.json"), text).unwrap();
        assert_eq!(groups[0].targets.len(), 2);
    }

    #[test]
    fn a_file_in_which_all_is_commented_out_has_no_groups() {
        for text in ["", "# - targets: ['a:1']\n", "---\n"] {
            assert_eq!(groups(Path::new("a.yml"), text).unwrap(), [], "{text}");
        }
        let groups = groups(Path::new("a.yml"), "- targets:\n  # - a:1\n").unwrap();
        assert_eq!(groups[0].targets.len(), 0);
    }

    #[test]
    fn a_directory_that_cannot_be_listed_leaves_what_was_there() {
        let fs: Arc<dyn Fs> = Arc::new(OsFs);
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("targets");
        OsFs.mkdir(&dir).unwrap();
        write(&dir.join("a.json"), r#"[{"targets": ["a:1"]}]"#);
        let pattern = [dir.join("*.json")];
        let first = look(&fs, &pattern, Files::new());
        assert_eq!(addresses(&first.files), ["a:1"]);

        let away = root.path().join("away");
        OsFs.rename(&dir, &away).unwrap();
        write(&dir, "no directory");
        let broken = look(&fs, &pattern, first.files);
        assert_eq!(addresses(&broken.files), ["a:1"]);
        assert_eq!(broken.errors.len(), 1, "{:?}", broken.errors);
        let again = look(&fs, &pattern, broken.files);
        assert_eq!(addresses(&again.files), ["a:1"]);
        assert_eq!(again.errors, [], "it is told once");

        OsFs.unlink(&dir).unwrap();
        OsFs.rename(&away, &dir).unwrap();
        OsFs.unlink(&dir.join("a.json")).unwrap();
        let gone = look(&fs, &pattern, again.files);
        assert!(gone.files.is_empty());
    }
}
