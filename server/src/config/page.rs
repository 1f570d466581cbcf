//! What is made out of the table: the effective configuration and the reference page.

use std::fmt::Write as _;

use super::load::Config;
use super::settings::{Parsed, SECTIONS, SETTINGS};

/// The effective configuration as TOML, each value with where it came from. Itself a config file.
#[must_use]
pub fn effective(config: &Config) -> String {
    let shown: Vec<_> = SETTINGS
        .iter()
        .map(|setting| {
            let (section, name) = setting.split();
            let value = (setting.show)(config.parsed());
            (
                section,
                format!("{name} = {value}"),
                config.origin(setting.key),
            )
        })
        .collect();
    let width = shown
        .iter()
        .map(|(_, line, _)| line.chars().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    let mut current = "";
    for (section, line, origin) in shown {
        if section != current {
            push(&mut text, format_args!("\n[{section}]\n"));
            current = section;
        }
        push(&mut text, format_args!("{line:width$}  # {origin}\n"));
    }
    text
}

/// The effective configuration as YAML, as `status/config` shows it. What TOML says of numbers, texts
/// and lists, YAML says in the same words.
#[must_use]
pub fn yaml(config: &Config) -> String {
    let mut text = String::new();
    let mut current = String::new();
    for setting in SETTINGS {
        let (section, name) = setting.split();
        let value = if setting.secret {
            "\"<secret>\"".to_owned()
        } else {
            (setting.show)(config.parsed())
        };
        let path: Vec<_> = section.split('.').filter(|part| !part.is_empty()).collect();
        if current != section {
            let open: Vec<_> = current.split('.').collect();
            let same = path.iter().zip(&open).take_while(|(a, b)| a == b).count();
            for (depth, part) in path.iter().enumerate().skip(same) {
                let margin = "  ".repeat(depth);
                push(&mut text, format_args!("{margin}{part}:\n"));
            }
            section.clone_into(&mut current);
        }
        let margin = "  ".repeat(path.len());
        push(&mut text, format_args!("{margin}{name}: {value}\n"));
    }
    text
}

/// `docs/configuration.md`.
#[must_use]
pub fn reference() -> String {
    let defaults = Parsed::default();
    let mut text = INTRODUCTION.to_owned();
    let mut current = None;
    for setting in SETTINGS {
        let (section, name) = setting.split();
        if current != Some(section) {
            let title = if section.is_empty() {
                "top level"
            } else {
                section
            };
            let doc = SECTIONS
                .iter()
                .find(|(prefix, _)| prefix.trim_end_matches('.') == section)
                .map_or("", |(_, doc)| *doc);
            push(
                &mut text,
                format_args!(
                    "\n## {title}\n\n{}\n\n| key | type | default | what it does |\n|---|---|---|---|\n",
                    doc.trim()
                ),
            );
            current = Some(section);
        }
        let default = (setting.show)(&defaults);
        let kind = setting.kind.replace('|', "\\|");
        let doc = setting.doc.trim();
        push(
            &mut text,
            format_args!("| `{name}` | {kind} | `{default}` | {doc} |\n"),
        );
    }
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line)
        .expect("writing to a string cannot fail");
}

const INTRODUCTION: &str = "# Configuration

<!-- Made by `millrace config --reference`; a test compares. -->

Every setting has a default: `millrace` alone starts everything. A value comes from, the later
winning,

1. the default below,
2. a TOML file: `millrace --config millrace.toml` (or `MILLRACE_CONFIG`),
3. the environment: `ingest.max_age` is `MILLRACE_INGEST_MAX_AGE`,
4. flags: `--listen`, `--data-dir`, `--role`, and `--set key=value` for any setting.

`millrace config` prints the effective configuration, each value with where it came from; its
output is a config file. A key that does not exist and a value that does not fit stop the start
with exit code 78 and one line that names file, line and column.

```toml
listen = \"127.0.0.1:9009\"

[ingest]
max_age = \"none\"      # take data of any age, for a backfill

[queue]
partitions = 8
```

Durations have a unit: `500ms`, `30s`, `10m`, `1h30m`, `30d`. Sizes too: `64KiB`, `64MiB`,
`1GiB`, `500kB`; a bare number is bytes. `none`, where it is allowed, switches a bound off.

Secrets are never printed, neither by `millrace config` nor in logs, errors or metrics. They come from
a file (the setting beside, `..._file`), the environment or the config file, and not from a flag, which
every user of the machine can see.
";
