//! A view as somebody writes it down, and what may be wrong with it.

use millrace_model::{METRIC_NAME, Matcher, TenantId, parse_duration_ms};
use serde::{Deserialize, Serialize};

use crate::aggregate::Aggregate;
use crate::definition::{
    Comparison, DAY_MS, Grouping, INCREASE_LOOKBACK_MS, Origin, ValueFilter, ViewDefinition,
};

/// Longest name.
const NAME_MAX: usize = 64;
/// Most labels of a grouping.
const LABELS_MAX: usize = 32;
/// Most quantiles.
const QUANTILES_MAX: usize = 16;
/// Widest bucket, in days.
const WIDTH_DAYS_MAX: i64 = 31;

/// A view in words: an entry of a file, or the body of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewSpec {
    /// Its name: letters, digits and `_`.
    #[serde(default)]
    pub name: String,
    /// Which series: a selector as PromQL has it.
    pub selector: String,
    /// Labels that tell a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Vec<String>>,
    /// Labels that do not, while all others do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without: Option<Vec<String>>,
    /// Width of a bucket, such as `5m`.
    pub width: String,
    /// What is told of a bucket.
    pub aggregates: Vec<String>,
    /// Which quantiles, each from 0 to 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<f64>,
    /// The label whose values are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<String>,
    /// Which samples count, such as `> 0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// How long buckets are kept, such as `400d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<String>,
}

/// What is wrong with a view.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct SpecError {
    /// Which of its fields.
    pub field: &'static str,
    /// What is wrong there.
    pub reason: String,
}

fn wrong<T>(field: &'static str, reason: impl Into<String>) -> Result<T, SpecError> {
    let reason = reason.into();
    Err(SpecError { field, reason })
}

impl ViewSpec {
    /// The view, if all fits together. `parse` makes tests of a selector.
    ///
    /// # Errors
    ///
    /// The first field that is wrong, and what is wrong with it.
    pub fn check(
        &self,
        tenant: TenantId,
        origin: Origin,
        parse: impl FnOnce(&str) -> Result<Vec<Matcher>, String>,
    ) -> Result<ViewDefinition, SpecError> {
        let name = check_name(&self.name)?;
        let matchers = parse(&self.selector).or_else(|reason| wrong("selector", reason))?;
        if matchers.iter().all(Matcher::matches_empty) {
            return wrong(
                "selector",
                "must have a matcher that does not match the empty text",
            );
        }
        let aggregates = self.aggregates()?;
        let filter = self.filter()?;
        let grows =
            aggregates.contains(&Aggregate::Increase) || aggregates.contains(&Aggregate::Rate);
        if filter.is_some() && grows {
            return wrong(
                "filter",
                "cannot be with increase or rate: a counter without some of its samples grows otherwise",
            );
        }
        Ok(ViewDefinition {
            tenant,
            name,
            selector: self.selector.trim().to_owned(),
            matchers,
            grouping: self.grouping()?,
            width_ms: self.width_ms()?,
            quantiles: self.quantiles(&aggregates)?,
            distinct: self.distinct(&aggregates)?,
            filter,
            retention_ms: self.retention_ms()?,
            aggregates,
            origin,
        })
    }

    /// The words for a view.
    #[must_use]
    pub fn of(view: &ViewDefinition) -> Self {
        let (by, without) = match &view.grouping {
            Grouping::By(names) => (Some(names.clone()), None),
            Grouping::Without(names) => (None, Some(names.clone())),
        };
        let words = view.aggregates.iter().map(|of| of.as_str().to_owned());
        Self {
            name: view.name.clone(),
            selector: view.selector.clone(),
            by,
            without,
            width: duration(view.width_ms),
            aggregates: words.collect(),
            quantiles: view.quantiles.clone(),
            distinct: view.distinct.clone(),
            filter: view
                .filter
                .map(|f| format!("{} {}", f.comparison.as_str(), f.value)),
            retention: view.retention_ms.map(duration),
        }
    }

    fn aggregates(&self) -> Result<Vec<Aggregate>, SpecError> {
        if self.aggregates.is_empty() {
            return wrong("aggregates", "are missing");
        }
        let mut found = Vec::new();
        for word in &self.aggregates {
            let Some(aggregate) = Aggregate::from_word(word) else {
                let known: Vec<_> = Aggregate::ALL.iter().map(|of| of.as_str()).collect();
                let known = known.join(", ");
                return wrong("aggregates", format!("{word:?} is none of {known}"));
            };
            found.push(aggregate);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn grouping(&self) -> Result<Grouping, SpecError> {
        match (&self.by, &self.without) {
            (Some(_), Some(_)) => wrong("without", "cannot stand beside by"),
            (None, Some(names)) => Ok(Grouping::Without(label_names("without", names)?)),
            (Some(names), None) => {
                let names = label_names("by", names)?;
                if names.iter().any(|name| name == METRIC_NAME) {
                    return wrong("by", "__name__ is the name of the view's own series");
                }
                if names.iter().any(|name| name == "quantile")
                    && self.aggregates.iter().any(|word| word == "quantile")
                {
                    return wrong("by", "quantile is the label of the view's quantiles");
                }
                Ok(Grouping::By(names))
            }
            (None, None) => Ok(Grouping::By(Vec::new())),
        }
    }

    fn width_ms(&self) -> Result<i64, SpecError> {
        let ms = milliseconds("width", &self.width)?;
        let fits = (1_000..=WIDTH_DAYS_MAX * DAY_MS).contains(&ms);
        if !fits || (DAY_MS % ms != 0 && ms % DAY_MS != 0) {
            return wrong(
                "width",
                format!(
                    "{:?} is not from 1s to {WIDTH_DAYS_MAX}d, or neither divides a day nor is a \
                     multiple of one",
                    self.width
                ),
            );
        }
        Ok(ms)
    }

    fn quantiles(&self, aggregates: &[Aggregate]) -> Result<Vec<f64>, SpecError> {
        let wanted = aggregates.contains(&Aggregate::Quantile);
        if wanted == self.quantiles.is_empty() {
            return wrong(
                "quantiles",
                "go with the aggregate quantile, and it with them",
            );
        }
        if self.quantiles.len() > QUANTILES_MAX {
            return wrong("quantiles", format!("at most {QUANTILES_MAX}"));
        }
        if let Some(strange) = self.quantiles.iter().find(|q| !(0.0..=1.0).contains(*q)) {
            return wrong("quantiles", format!("{strange} is not from 0 to 1"));
        }
        let mut quantiles = self.quantiles.clone();
        quantiles.sort_by(f64::total_cmp);
        quantiles.dedup();
        Ok(quantiles)
    }

    fn distinct(&self, aggregates: &[Aggregate]) -> Result<Option<String>, SpecError> {
        let wanted = aggregates.contains(&Aggregate::Distinct);
        match &self.distinct {
            Some(label) if wanted && !label.is_empty() => Ok(Some(label.clone())),
            None if !wanted => Ok(None),
            Some(_) | None => wrong(
                "distinct",
                "names the label that the aggregate distinct counts, and goes with it",
            ),
        }
    }

    fn filter(&self) -> Result<Option<ValueFilter>, SpecError> {
        let Some(text) = self.filter.as_deref().map(str::trim) else {
            return Ok(None);
        };
        let parsed = Comparison::ALL.into_iter().find_map(|comparison| {
            let value = text.strip_prefix(comparison.as_str())?;
            let value = value.trim().parse::<f64>().ok().filter(|v| !v.is_nan())?;
            Some(ValueFilter { comparison, value })
        });
        match parsed {
            Some(filter) => Ok(Some(filter)),
            None => wrong(
                "filter",
                format!("{text:?} is not one of == != < <= > >= and a number"),
            ),
        }
    }

    fn retention_ms(&self) -> Result<Option<i64>, SpecError> {
        let Some(text) = &self.retention else {
            return Ok(None);
        };
        let ms = milliseconds("retention", text)?;
        if ms < self.width_ms()?.saturating_add(INCREASE_LOOKBACK_MS) {
            return wrong("retention", format!("{text:?} is not longer than a bucket"));
        }
        Ok(Some(ms))
    }
}

fn check_name(name: &str) -> Result<String, SpecError> {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    let starts = name.starts_with(letter);
    if !starts || !name.chars().all(|c| letter(c) || c.is_ascii_digit()) || name.len() > NAME_MAX {
        return wrong(
            "name",
            format!(
                "{name:?} is not of letters, digits and _, from 1 to {NAME_MAX}, a digit not first"
            ),
        );
    }
    Ok(name.to_owned())
}

fn label_names(field: &'static str, names: &[String]) -> Result<Vec<String>, SpecError> {
    if names.len() > LABELS_MAX {
        return wrong(field, format!("at most {LABELS_MAX} labels"));
    }
    if names.iter().any(String::is_empty) {
        return wrong(field, "a label without a name");
    }
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn milliseconds(field: &'static str, text: &str) -> Result<i64, SpecError> {
    let ms = parse_duration_ms(text.trim()).and_then(|ms| i64::try_from(ms).ok());
    match ms.filter(|&ms| ms > 0) {
        Some(ms) => Ok(ms),
        None => wrong(
            field,
            format!("{text:?} is no duration such as 5m or 1h30m"),
        ),
    }
}

/// The largest unit that goes into it.
fn duration(ms: i64) -> String {
    let units = [
        (DAY_MS, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
        (1, "ms"),
    ];
    let unit = units.iter().find(|(unit, _)| ms % unit == 0);
    unit.map_or_else(String::new, |(unit, word)| format!("{}{word}", ms / unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode_definition, encode_definition};

    fn check(json: &str) -> Result<ViewDefinition, String> {
        let spec: ViewSpec = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let parse = |text: &str| match text {
            "{}" => Ok(vec![]),
            "bad" => Err("unexpected end".to_owned()),
            text => Ok(vec![Matcher::equal("__name__", text)]),
        };
        spec.check(TenantId::anonymous(), Origin::Api, parse)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_view_is_read_shown_and_kept_the_same() {
        let view = check(
            r#"{"name":"cpu","selector":"up","by":["job","dc"],"width":"300s",
                "aggregates":["sum","quantile","count","distinct"],"quantiles":[0.99,0.5],
                "distinct":"host","filter":">=-1.5","retention":"90d"}"#,
        )
        .unwrap();
        assert_eq!(view.grouping, Grouping::By(vec!["dc".into(), "job".into()]));
        assert_eq!(
            (view.width_ms, view.retention_ms),
            (300_000, Some(90 * DAY_MS))
        );
        let spec = ViewSpec::of(&view);
        assert_eq!(
            (spec.width.as_str(), spec.filter.as_deref()),
            ("5m", Some(">= -1.5"))
        );
        let again = serde_json::to_string(&spec).unwrap();
        assert_eq!(check(&again).unwrap(), view);
        let mut bytes = Vec::new();
        encode_definition(&mut bytes, &view);
        let mut pos = 0;
        assert_eq!(decode_definition(&bytes, &mut pos), Some(view));
        assert_eq!(pos, bytes.len());
        for cut in 0..bytes.len() {
            assert_eq!(
                decode_definition(&bytes[..cut], &mut 0),
                None,
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        let with = |name: &str, value: &str| {
            let mut fields = vec![
                ("name", r#""v""#),
                ("selector", r#""up""#),
                ("width", r#""5m""#),
                ("aggregates", r#"["sum"]"#),
            ];
            fields.retain(|field| field.0 != name);
            fields.push((name, value));
            let fields: Vec<_> = fields.iter().map(|(n, v)| format!("{n:?}:{v}")).collect();
            check(&format!("{{{}}}", fields.join(",")))
        };
        assert!(with("by", r#"["a"]"#).is_ok());
        for (name, value) in [
            ("name", r#""a-b""#),
            ("name", r#""1a""#),
            ("selector", r#""{}""#),
            ("selector", r#""bad""#),
            ("width", r#""7m""#),
            ("width", r#""100ms""#),
            ("width", r#""5 minutes""#),
            ("aggregates", "[]"),
            ("aggregates", r#"["median"]"#),
            ("by", r#"["__name__"]"#),
            ("by", r#"[""]"#),
            ("quantiles", "[0.5]"),
            ("distinct", r#""host""#),
            ("filter", r#""about 3""#),
            ("retention", r#""1m""#),
        ] {
            let error = with(name, value).unwrap_err();
            assert!(
                error.starts_with(&format!("{name}: ")),
                "{name} {value}: {error}"
            );
        }
        assert!(with("color", "1").unwrap_err().contains("color"));
    }
}
