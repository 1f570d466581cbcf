//! The file of views (`views.file`): TOML, or YAML if its name ends in `.yml` or `.yaml`.

use std::path::PathBuf;
use std::sync::Arc;

use millrace_log::fs::{Fs, read_all};
use millrace_model::{Matcher, TenantId};
use millrace_query::Engine;
use millrace_store::Store;
use millrace_views::{Origin, ViewDefinition, ViewSpec};
use serde::Deserialize;

/// A file of views is read whole; beyond this it is not one.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Puts the views of a file in force.
pub struct ViewFile {
    /// Where it is.
    pub path: PathBuf,
    /// The way to it.
    pub fs: Arc<dyn Fs>,
    /// Who derives them.
    pub store: Arc<Store>,
    /// Reads selectors.
    pub engine: Arc<Engine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    view: Vec<Entry>,
}

/// One view: whose it is, beside what it is.
#[derive(Deserialize)]
struct Entry {
    tenant: Option<String>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

impl ViewFile {
    /// Reads the file, and makes its views those that are in force beside the API's.
    ///
    /// # Errors
    ///
    /// In words. What was in force stays.
    pub fn read(&self) -> Result<(), String> {
        let named = |error: String| format!("{}: {error}", self.path.display());
        let bytes = read_all(&*self.fs, &self.path, MAX_FILE_BYTES);
        let bytes = bytes.map_err(|error| named(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|error| named(error.to_string()))?;
        let extension = self.path.extension().and_then(|text| text.to_str());
        let yaml = matches!(extension, Some("yml" | "yaml"));
        let views = parse(&text, yaml, &self.engine).map_err(named)?;
        self.store
            .views()
            .replace_files(views)
            .map_err(|error| named(error.to_string()))
    }
}

fn parse(text: &str, yaml: bool, engine: &Engine) -> Result<Vec<ViewDefinition>, String> {
    let file: File = if yaml {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())?
    } else {
        toml::from_str(text).map_err(|error| error.to_string())?
    };
    let numbered = file.view.into_iter().zip(1..);
    numbered
        .map(|(entry, number)| {
            view(entry, engine).map_err(|error| format!("view {number}: {error}"))
        })
        .collect()
}

fn view(entry: Entry, engine: &Engine) -> Result<ViewDefinition, String> {
    let tenant = match entry.tenant {
        Some(name) => name
            .parse::<TenantId>()
            .map_err(|error| error.to_string())?,
        None => TenantId::anonymous(),
    };
    let spec: ViewSpec =
        serde_json::from_value(entry.rest.into()).map_err(|error| error.to_string())?;
    spec.check(tenant, Origin::File, |text| selector(engine, text))
        .map_err(|error| error.to_string())
}

/// The tests of a selector in PromQL.
pub(super) fn selector(engine: &Engine, text: &str) -> Result<Vec<Matcher>, String> {
    engine
        .parse_selector(text)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use millrace_query::{EngineOptions, Select, SeriesSource, SourceError, StoredSeries};

    use super::*;

    #[derive(Debug)]
    struct Nothing;

    impl SeriesSource for Nothing {
        fn select(&self, _: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
            Ok(Vec::new())
        }
    }

    fn parsed(text: &str, yaml: bool) -> Result<Vec<ViewDefinition>, String> {
        let engine = Engine::new(Arc::new(Nothing), EngineOptions::default());
        parse(text, yaml, &engine)
    }

    #[test]
    fn a_file_of_views_is_read_in_both_languages() {
        let toml = "[[view]]\nname = 'a'\nselector = 'up{job=~\"x.*\"}'\nby = ['job']\nwidth = '1m'\n\
                    aggregates = ['sum']\n[[view]]\ntenant = 't'\nname = 'b'\nselector = 'up'\n\
                    width = '1h'\naggregates = ['quantile']\nquantiles = [0.5]\n";
        let yaml = "view:\n- name: a\n  selector: 'up{job=~\"x.*\"}'\n  by: [job]\n  width: 1m\n  \
                    aggregates: [sum]\n- tenant: t\n  name: b\n  selector: up\n  width: 1h\n  \
                    aggregates: [quantile]\n  quantiles: [0.5]\n";
        let views = parsed(toml, false).unwrap();
        assert_eq!(parsed(yaml, true).unwrap(), views);
        assert_eq!((views.len(), views[1].tenant.as_str()), (2, "t"));
        assert_eq!(views[0].matchers.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_number() {
        let rest = "selector = 'up'\nwidth = '1m'\naggregates = ['sum']\n";
        for (text, says) in [
            (
                format!("[[view]]\nname = 'a-b'\n{rest}"),
                "view 1: name: \"a-b\"",
            ),
            (
                format!("[[view]]\nname = 'a'\ncolor = 1\n{rest}"),
                "view 1: unknown field `color`",
            ),
            ("[[view]]\nname = 'a'\n".to_owned(), "view 1: missing field"),
            (
                format!("[[view]]\nname = 'a'\n{}", rest.replace("up", "up{")),
                "view 1: selector: ",
            ),
            ("[[views]]\n".to_owned(), "views"),
        ] {
            let error = parsed(&text, false).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
