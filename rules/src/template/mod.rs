//! Go's `text/template` as far as labels and annotations of rules use it, with Prometheus's functions.
//!
//! Our own, because the one crate for Go's templates is years old and knows neither Go's typed
//! constants nor its `printf`. What is held against real Go is `tests/template.tsv`.
//!
//! Not there: methods of values (`(toTime $value).Format`), complex numbers, `call`.
//!
//! **Invariant:** whatever a template says, it ends, in bounded output and depth, with text or an error.

mod builtins;
mod exec;
mod functions;
mod lex;
mod number;
mod parse;
mod printf;
#[cfg(test)]
mod tests;
mod value;

use std::rc::Rc;

use millrace_model::Labels;

pub(crate) use builtins::url_escape;
pub(crate) use value::Value;

use exec::Exec;
use functions::Functions;

/// What a query of a template answers.
pub(crate) type Vector = Vec<(Labels, f64)>;

/// What a template sees of the world.
pub(crate) trait Environment {
    /// Answers `query`.
    fn query(&self, text: &str) -> Result<Vector, String>;

    /// The URL under which the server is reached.
    fn external_url(&self) -> String;

    /// The moment of the evaluation.
    fn now_ms(&self) -> i64;
}

/// What every template of a rule begins with.
pub(crate) const DEFINITIONS: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}\
                                      {{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// A template of a rule.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    name: String,
    /// With the definitions in front.
    text: String,
    tree: parse::Tree,
}

impl Template {
    /// Reads a template; `name` stands in errors.
    ///
    /// # Errors
    ///
    /// In Prometheus's words.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let text = format!("{DEFINITIONS}{text}");
        let known =
            |name: &str| builtins::NAMES.contains(&name) || functions::NAMES.contains(&name);
        let tree = parse::parse(&text, &known).map_err(|(at, what)| {
            let line = 1 + text[..at.min(text.len())].matches('\n').count();
            format!("template: {name}:{line}: {what}")
        })?;
        Ok(Self {
            name: name.to_owned(),
            text,
            tree,
        })
    }

    /// Expands it.
    ///
    /// # Errors
    ///
    /// In Prometheus's words.
    pub(crate) fn expand(
        &self,
        data: Value,
        environment: &dyn Environment,
    ) -> Result<String, String> {
        let functions = Functions(environment);
        Exec::run(&self.tree, &self.tree.root, &functions, data).map_err(|failed| {
            let before = &self.text[..failed.at.min(self.text.len())];
            let line = 1 + before.matches('\n').count();
            let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1);
            let name = &self.name;
            let node = self.text.get(failed.at..failed.end).unwrap_or_default().trim_end();
            format!(
                "error executing template {name}: template: {name}:{line}:{column}: executing {} at <{node}>: {}",
                builtins::quoted(name),
                failed.what
            )
        })
    }
}

/// The type of that in Go, as errors name it.
const DATA_TYPE: &str = "struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value interface {} }";

/// What the templates of an alert see.
pub(crate) fn alert_data(
    labels: &Labels,
    external_labels: &[(String, String)],
    external_url: &str,
    value: f64,
) -> Value {
    let external = external_labels
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let fields = [
        ("Labels".to_owned(), Value::strings(labels)),
        ("ExternalLabels".to_owned(), Value::strings(external)),
        (
            "ExternalURL".to_owned(),
            Value::Str(external_url.to_owned()),
        ),
        ("Value".to_owned(), Value::Float(value)),
    ];
    Value::Struct(DATA_TYPE, Rc::new(fields.into_iter().collect()))
}
