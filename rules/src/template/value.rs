//! The values that templates work on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use super::number::format_float;

/// A value of a template.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// No value at all; shown as `<no value>`.
    Missing,
    /// `nil`
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    /// `map[string]string`: what is not there is the empty string.
    Map(Rc<BTreeMap<String, Value>>),
    /// A struct: what is not there is an error.
    Struct(&'static str, Rc<BTreeMap<String, Value>>),
    /// A vector of samples.
    List(Rc<Vec<Value>>),
    /// Milliseconds since the epoch.
    Time(i64),
}

impl Value {
    /// A map of strings.
    pub(crate) fn strings<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let pairs = pairs.into_iter();
        let pairs = pairs.map(|(name, value)| (name.to_owned(), Self::Str(value.to_owned())));
        Self::Map(Rc::new(pairs.collect()))
    }

    /// One sample of a query's answer.
    pub(crate) fn sample<'a>(
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        value: f64,
    ) -> Self {
        let fields = [
            ("Labels".to_owned(), Self::strings(labels)),
            ("Value".to_owned(), Self::Float(value)),
        ];
        Self::Struct("*template.sample", Rc::new(fields.into_iter().collect()))
    }

    /// The name of Go's type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Missing | Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Str(_) => "string",
            Self::Map(_) => "map[string]string",
            Self::Struct(name, _) => name,
            Self::List(_) => "template.queryResult",
            Self::Time(_) => "*time.Time",
        }
    }

    /// Whether `if` takes it for true.
    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Missing | Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(value) => !value.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Struct(..) | Self::Time(_) => true,
        }
    }

    /// As an action shows it.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Missing | Self::Nil => "<no value>".to_owned(),
            other => other.text(),
        }
    }

    /// As Go's `%v` has it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Missing | Self::Nil => "<nil>".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => format_float(*value, 'g', None),
            Self::Str(value) => value.clone(),
            Self::Map(map) => {
                let pairs: Vec<_> = map
                    .iter()
                    .map(|(name, value)| format!("{name}:{}", value.text()))
                    .collect();
                format!("map[{}]", pairs.join(" "))
            }
            Self::Struct(_, fields) => {
                let values: Vec<_> = fields.values().map(Self::text).collect();
                format!("&{{{}}}", values.join(" "))
            }
            Self::List(list) => {
                let values: Vec<_> = list.iter().map(Self::text).collect();
                format!("[{}]", values.join(" "))
            }
            Self::Time(ms) => time_text(*ms),
        }
    }

    /// What a field of it is.
    pub(super) fn field(&self, name: &str) -> Result<Self, String> {
        match self {
            Self::Map(map) => Ok(map
                .get(name)
                .cloned()
                .unwrap_or_else(|| Self::Str(String::new()))),
            Self::Struct(of, fields) => fields
                .get(name)
                .cloned()
                .ok_or_else(|| format!("can't evaluate field {name} in type {of}")),
            Self::Missing => Err(format!("nil data; no entry for key {name:?}")),
            Self::Nil => Err(format!("nil pointer evaluating interface {{}}.{name}")),
            Self::Bool(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::Str(_)
            | Self::List(_)
            | Self::Time(_) => {
                let of = self.type_name();
                Err(format!("can't evaluate field {name} in type {of}"))
            }
        }
    }
}

/// A moment as Go's `time.Time` shows it.
fn time_text(ms: i64) -> String {
    let Some(time) = chrono::DateTime::from_timestamp_millis(ms) else {
        return format!("{ms} ms");
    };
    let mut text = time.format("%Y-%m-%d %H:%M:%S").to_string();
    let fraction = ms.rem_euclid(1000);
    if fraction != 0 {
        let digits = format!("{fraction:03}");
        // Writing to a string cannot fail.
        write!(text, ".{}", digits.trim_end_matches('0')).expect("a string takes text");
    }
    text.push_str(" +0000 UTC");
    text
}
