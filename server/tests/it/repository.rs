//! Rules of the repository that no compiler checks.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files below `dir` whose name ends so, without what is built or hidden.
fn files(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "data" {
                files(&path, ending, found);
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

/// The targets of `[text](target)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let end = rest.find(')').unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
        }
    }
    found
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut pages = Vec::new();
    files(&root(), ".md", &mut pages);
    assert!(pages.len() >= 8, "{pages:?}");
    let mut broken = Vec::new();
    for page in pages {
        for link in links(&std::fs::read_to_string(&page).unwrap()) {
            let file = link.split('#').next().unwrap();
            let outside = link.contains("://") || link.starts_with("mailto:");
            if outside || file.is_empty() {
                continue;
            }
            if !page.parent().unwrap().join(file).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_module_says_what_it_is() {
    let mut sources = Vec::new();
    files(&root(), ".rs", &mut sources);
    let silent: Vec<_> = sources
        .into_iter()
        .filter(|path| path.components().any(|part| part.as_os_str() == "src"))
        // Tests beside their code say it by their names.
        .filter(|path| !path.ends_with("tests.rs") && !path.to_string_lossy().contains("/tests/"))
        .filter(|path| !std::fs::read_to_string(path).unwrap().contains("//! "))
        .collect();
    assert!(silent.is_empty(), "no module documentation: {silent:?}");
}

#[test]
fn no_mark_of_an_unfinished_merge_is_left() {
    let mut left = Vec::new();
    for ending in [".md", ".rs", ".toml", ".yaml", ".yml"] {
        let mut found = Vec::new();
        files(&root(), ending, &mut found);
        assert!(!found.is_empty() || ending.starts_with(".y"), "{ending}");
        for path in found {
            let text = std::fs::read_to_string(&path).unwrap();
            let marks = [format!("{} ", "<".repeat(7)), format!("{} ", ">".repeat(7))];
            let marked = |line: &str| marks.iter().any(|mark| line.starts_with(mark));
            if text.lines().any(marked) {
                left.push(path);
            }
        }
    }
    assert!(left.is_empty(), "{left:?}");
}
