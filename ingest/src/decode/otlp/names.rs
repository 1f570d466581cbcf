//! Names of OTLP as names of Prometheus, in every translation strategy.
//!
//! The rules are those of the OpenTelemetry specification's Prometheus compatibility page as
//! `github.com/prometheus/otlptranslator` 1.0.0 applies them; `testdata/otlp_names.txt` was made with
//! that module.

use std::borrow::Cow;

use crate::options::TranslationStrategy;

/// What a metric is, as far as its name goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameKind {
    /// Of gauges.
    Gauge,
    /// Of sums that only grow.
    Counter,
    /// Of everything else.
    Other,
}

/// The name of a metric, or why it has none.
pub(super) fn metric_name<'a>(
    name: &'a str,
    unit: &str,
    kind: NameKind,
    strategy: TranslationStrategy,
) -> Result<Cow<'a, str>, String> {
    match strategy {
        TranslationStrategy::NoTranslation => Ok(Cow::Borrowed(name)),
        TranslationStrategy::NoUtf8EscapingWithSuffixes => with_suffixes(name, unit, kind),
        TranslationStrategy::UnderscoreEscapingWithSuffixes => {
            usable(name, normalized(name, unit, kind)).map(Cow::Owned)
        }
        TranslationStrategy::UnderscoreEscapingWithoutSuffixes => {
            let tokens = name.split(|c: char| !is_metric_char(c) && c != '_');
            let tokens: Vec<&str> = tokens.filter(|token| !token.is_empty()).collect();
            usable(name, digit_escaped(tokens.join("_"), "_")).map(Cow::Owned)
        }
    }
}

fn is_metric_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

fn usable(name: &str, made: String) -> Result<String, String> {
    if made.is_empty() {
        return Err(format!("the metric's name {name:?} leaves nothing"));
    }
    if made != name && made.bytes().all(|b| b == b'_') {
        return Err(format!(
            "the metric's name {name:?} leaves underscores only"
        ));
    }
    Ok(made)
}

fn digit_escaped(name: String, prefix: &str) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("{prefix}{name}")
    } else {
        name
    }
}

fn normalized(name: &str, unit: &str, kind: NameKind) -> String {
    let mut tokens: Vec<&str> = name
        .split(|c| !is_metric_char(c))
        .filter(|token| !token.is_empty())
        .collect();
    let (main, per) = unit_suffixes(unit);
    let (main, per) = (clean_unit(&main), clean_unit(&per));
    let mut main = main.as_str();
    let mut per = per.as_str();
    if tokens.contains(&main) {
        main = "";
    }
    if per == "per_" {
        per = "";
    } else {
        per = per.strip_suffix('_').unwrap_or(per);
        if tokens.contains(&per) {
            per = "";
        }
    }
    if !per.is_empty() {
        main = main.strip_suffix('_').unwrap_or(main);
    }
    tokens.extend([main, per].iter().filter(|token| !token.is_empty()));
    let mut ends_with = |word: &'static str| {
        tokens.retain(|token| *token != word);
        tokens.push(word);
    };
    if kind == NameKind::Counter {
        ends_with("total");
    }
    if unit == "1" && kind == NameKind::Gauge {
        ends_with("ratio");
    }
    digit_escaped(tokens.join("_"), "_")
}

fn with_suffixes<'a>(name: &'a str, unit: &str, kind: NameKind) -> Result<Cow<'a, str>, String> {
    let mut stem = name;
    let mut tail = String::new();
    let mut end_with = |stem: &mut &'a str, word: &str| {
        *stem = trimmed(stem, word)?;
        // Each is appended in front of those that were taken off before it.
        tail = format!("_{word}{tail}");
        Ok::<(), String>(())
    };
    if unit == "1" && kind == NameKind::Gauge {
        end_with(&mut stem, "ratio")?;
    }
    if kind == NameKind::Counter {
        end_with(&mut stem, "total")?;
    }
    let (main, per) = unit_suffixes(unit);
    if !per.is_empty() {
        end_with(&mut stem, &per)?;
    }
    if !main.is_empty() && !stem.ends_with(main.as_str()) {
        return Ok(Cow::Owned(format!("{stem}_{main}{tail}")));
    }
    Ok(if tail.is_empty() {
        Cow::Borrowed(stem)
    } else {
        Cow::Owned(format!("{stem}{tail}"))
    })
}

/// `name` without `suffix` and the character in front of it, if it ends so and is longer.
fn trimmed<'a>(name: &'a str, suffix: &str) -> Result<&'a str, String> {
    if !name.ends_with(suffix) || name.len() <= suffix.len() + 1 {
        return Ok(name);
    }
    let end = name.len() - suffix.len() - 1;
    name.get(..end).ok_or_else(|| {
        format!("the metric's name {name:?} has no one-byte separator before {suffix:?}")
    })
}

/// What a unit adds: its main part and its `per_` part, as they are.
fn unit_suffixes(unit: &str) -> (String, String) {
    let (main, per) = match unit.split_once('/') {
        Some((main, per)) => (main, per),
        None => (unit, ""),
    };
    let usable = |part: &str| !part.is_empty() && !part.contains(['{', '}']);
    let main = main.trim();
    let main = if usable(main) { main_unit(main) } else { "" };
    let per = per.trim();
    let per = if usable(per) { per_unit(per) } else { "" };
    let per = if per.is_empty() {
        String::new()
    } else {
        format!("per_{per}")
    };
    (main.to_owned(), per)
}

fn main_unit(unit: &str) -> &str {
    match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "1" => "",
        "%" => "percent",
        other => other,
    }
}

fn per_unit(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    }
}

fn clean_unit(unit: &str) -> String {
    let mut out = String::with_capacity(unit.len());
    for c in unit.chars() {
        if is_metric_char(c) {
            out.push(c);
        } else if !out.ends_with('_') {
            out.push('_');
        }
    }
    match out.strip_prefix('_') {
        Some(rest) => rest.to_owned(),
        None => out,
    }
}

/// The name of a label, or why it has none.
pub(super) fn label_name(
    name: &str,
    strategy: TranslationStrategy,
) -> Result<Cow<'_, str>, String> {
    if name.is_empty() {
        return Err("an attribute has no name".to_owned());
    }
    let underscores_only = |made: &str| made.bytes().all(|b| b == b'_');
    let error = || {
        Err(format!(
            "the attribute's name {name:?} leaves underscores only"
        ))
    };
    if strategy.keeps_utf8() {
        return if underscores_only(name) {
            error()
        } else {
            Ok(Cow::Borrowed(name))
        };
    }
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let made = if name.chars().all(good) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.replace(|c| !good(c), "_"))
    };
    let made = if made.starts_with(|c: char| c.is_ascii_digit()) {
        Cow::Owned(format!("key_{made}"))
    } else if made.starts_with('_') && !made.starts_with("__") {
        Cow::Owned(format!("key{made}"))
    } else {
        made
    };
    if underscores_only(&made) {
        return error();
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("testdata/otlp_names.txt");

    fn strategy(word: &str) -> TranslationStrategy {
        match word {
            "UnderscoreEscapingWithSuffixes" => TranslationStrategy::UnderscoreEscapingWithSuffixes,
            "UnderscoreEscapingWithoutSuffixes" => {
                TranslationStrategy::UnderscoreEscapingWithoutSuffixes
            }
            "NoUTF8EscapingWithSuffixes" => TranslationStrategy::NoUtf8EscapingWithSuffixes,
            "NoTranslation" => TranslationStrategy::NoTranslation,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn names_are_those_of_the_reference_module() {
        let mut rows = 0;
        for row in GOLDEN.lines().filter(|row| !row.starts_with('#')) {
            let cells: Vec<String> = serde_json::from_str(row).unwrap();
            let [what, word, name, unit, kind, expect] = &cells[..] else {
                panic!("{row}");
            };
            let strategy = strategy(word);
            let made = match what.as_str() {
                "label" => label_name(name, strategy),
                _ => {
                    let kind = match kind.as_str() {
                        "gauge" => NameKind::Gauge,
                        "counter" => NameKind::Counter,
                        _ => NameKind::Other,
                    };
                    metric_name(name, unit, kind, strategy)
                }
            };
            match expect.strip_prefix('=') {
                Some(expect) => assert_eq!(made.as_deref(), Ok(expect), "{row}"),
                None => assert!(made.is_err(), "{row}: {made:?}"),
            }
            rows += 1;
        }
        assert!(rows > 1000, "{rows}");
    }

    #[test]
    fn a_separator_of_several_bytes_is_not_cut_in_half() {
        let made = metric_name(
            "requests\u{b7}total",
            "",
            NameKind::Counter,
            TranslationStrategy::NoUtf8EscapingWithSuffixes,
        );
        assert!(made.is_err(), "{made:?}");
    }
}
