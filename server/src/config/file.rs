//! The TOML file, taken apart into dotted keys with their places.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::kind::Raw;
use super::settings::SETTINGS;

/// One assignment of the file.
pub struct Assignment {
    /// The dotted key.
    pub key: String,
    /// The value.
    pub raw: Raw,
    /// Where the key stands.
    pub origin: Origin,
}

/// The assignments of a file in its order.
///
/// # Errors
///
/// No TOML, or a value that no setting can have.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Assignment>, ConfigError> {
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        origin: place(path, text, error.span().map_or(0, |span| span.start)),
        message: error.message().replace('\n', ", "),
    })?;
    let mut found = Vec::new();
    walk(path, text, "", table.get_ref(), &mut found)?;
    Ok(found)
}

fn walk(
    path: &Path,
    text: &str,
    prefix: &str,
    table: &DeTable<'_>,
    found: &mut Vec<Assignment>,
) -> Result<(), ConfigError> {
    // The table is sorted by name; errors are better told in the order of the file.
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let dotted = format!("{prefix}{}", key.get_ref());
        let origin = place(path, text, key.span().start);
        let below = format!("{dotted}.");
        match value.get_ref() {
            DeValue::Table(table) if SETTINGS.iter().any(|s| s.key.starts_with(&below)) => {
                walk(path, text, &below, table, found)?;
            }
            _ => {
                let raw = raw(value).ok_or_else(|| ConfigError::Value {
                    origin: origin.clone(),
                    key: dotted.clone(),
                    value: text[value.span()].lines().next().unwrap_or("").to_owned(),
                    reason: "no setting has a value of this type".to_owned(),
                });
                let raw = match raw {
                    Ok(raw) => raw,
                    // A misspelt section is better told as such.
                    Err(_) if super::settings::find(&dotted).is_none() => Raw::Text(String::new()),
                    Err(error) => return Err(error),
                };
                found.push(Assignment {
                    key: dotted,
                    raw,
                    origin,
                });
            }
        }
    }
    Ok(())
}

fn raw(value: &Spanned<DeValue<'_>>) -> Option<Raw> {
    match value.get_ref() {
        DeValue::String(text) => Some(Raw::Text(text.clone().into_owned())),
        DeValue::Integer(int) => i64::from_str_radix(int.as_str(), int.radix())
            .ok()
            .map(Raw::Int),
        DeValue::Float(float) => float.as_str().parse().ok().map(Raw::Float),
        DeValue::Boolean(bool) => Some(Raw::Bool(*bool)),
        DeValue::Array(items) => items.iter().map(raw).collect::<Option<_>>().map(Raw::List),
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

fn place(path: &Path, text: &str, at: usize) -> Origin {
    let before = &text[..text.floor_char_boundary(at)];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Origin::File {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[start..].chars().count() + 1,
    }
}
