//! The functions that Prometheus adds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use millrace_model::parse_duration_ms;
use regex::{Regex, RegexBuilder};

use super::builtins::{one, two, url_escape, wrong_type};
use super::exec::list;
use super::number::format_float;
use super::value::Value;
use super::{Environment, Vector};

/// Their names.
pub(super) const NAMES: [&str; 27] = [
    "query",
    "first",
    "label",
    "value",
    "strvalue",
    "args",
    "reReplaceAll",
    "safeHtml",
    "match",
    "title",
    "toUpper",
    "toLower",
    "graphLink",
    "tableLink",
    "sortByLabel",
    "stripPort",
    "stripDomain",
    "humanize",
    "humanize1024",
    "humanizeDuration",
    "humanizePercentage",
    "humanizeTimestamp",
    "toTime",
    "pathPrefix",
    "externalURL",
    "parseDuration",
    "now",
];

/// A pattern compiles to this many bytes at most.
const MAX_PATTERN_BYTES: usize = 1 << 20;

type Done = Result<Value, String>;

/// Prometheus's functions in one environment.
pub(super) struct Functions<'a>(pub(super) &'a dyn Environment);

impl Functions<'_> {
    /// Calls one of them.
    pub(super) fn call(&self, name: &str, args: &[Value]) -> Done {
        let failed = |what: String| format!("error calling {name}: {what}");
        let string = |f: &dyn Fn(&str) -> Done| match one(name, args)? {
            Value::Str(text) => f(text),
            other => Err(wrong_type("string", other)),
        };
        let text = |f: &dyn Fn(&str) -> String| string(&|arg| Ok(Value::Str(f(arg))));
        let number = |f: &dyn Fn(f64) -> Result<String, String>| {
            let value = to_float(one(name, args)?).map_err(failed)?;
            f(value).map(Value::Str).map_err(failed)
        };
        let url = || self.0.external_url();
        match name {
            "query" => string(&|query| {
                let vector = self.0.query(query).map_err(failed)?;
                Ok(samples(&vector))
            }),
            "first" => match one(name, args)? {
                Value::List(samples) => samples
                    .first()
                    .cloned()
                    .ok_or_else(|| failed("first() called on vector with no elements".to_owned())),
                other => Err(wrong_type("template.queryResult", other)),
            },
            "label" => match two(name, args)? {
                (Value::Str(label), sample @ Value::Struct(..)) => {
                    sample.field("Labels")?.field(label).map(string_or_empty)
                }
                (Value::Str(_), other) => Err(wrong_type("*template.sample", other)),
                (other, _) => Err(wrong_type("string", other)),
            },
            "value" => sample(name, args)?.field("Value"),
            "strvalue" => {
                let labels = sample(name, args)?.field("Labels")?;
                labels.field("__value__").map(string_or_empty)
            }
            "args" => {
                let names = (0..).map(|i| format!("arg{i}"));
                let map: BTreeMap<_, _> = names.zip(args.iter().cloned()).collect();
                Ok(Value::Map(Rc::new(map)))
            }
            "reReplaceAll" => match args {
                [
                    Value::Str(pattern),
                    Value::Str(replacement),
                    Value::Str(text),
                ] => {
                    let pattern = compile(pattern).map_err(failed)?;
                    Ok(Value::Str(
                        pattern.replace_all(text, replacement).into_owned(),
                    ))
                }
                [_, _, _] => {
                    let other = args.iter().find(|arg| !matches!(arg, Value::Str(_)));
                    Err(other.map_or(String::new(), |other| wrong_type("string", other)))
                }
                _ => Err(format!(
                    "wrong number of args for {name}: want 3 got {}",
                    args.len()
                )),
            },
            "match" => match two(name, args)? {
                (Value::Str(pattern), Value::Str(text)) => Ok(Value::Bool(
                    compile(pattern).map_err(failed)?.is_match(text),
                )),
                (Value::Str(_), other) | (other, _) => Err(wrong_type("string", other)),
            },
            "safeHtml" => text(&str::to_owned),
            "title" => text(&title),
            "toUpper" => text(&|text| text.chars().map(upper).collect()),
            "toLower" => text(&str::to_lowercase),
            "graphLink" => text(&|expr| link(expr, 0)),
            "tableLink" => text(&|expr| link(expr, 1)),
            "sortByLabel" => match two(name, args)? {
                (Value::Str(label), Value::List(samples)) => {
                    let mut sorted = samples.to_vec();
                    sorted.sort_by_key(|sample| {
                        let value = sample
                            .field("Labels")
                            .and_then(|labels| labels.field(label));
                        value.map_or(String::new(), |value| match value {
                            Value::Str(text) => text,
                            _ => String::new(),
                        })
                    });
                    Ok(list(sorted))
                }
                (Value::Str(_), other) => Err(wrong_type("template.queryResult", other)),
                (other, _) => Err(wrong_type("string", other)),
            },
            "stripPort" => text(&|host| split_host_port(host).map_or(host, |(h, _)| h).to_owned()),
            "stripDomain" => text(&strip_domain),
            "humanize" => number(&|value| Ok(humanize(value))),
            "humanize1024" => number(&|value| Ok(humanize_1024(value))),
            "humanizeDuration" => number(&|value| Ok(humanize_duration(value))),
            "humanizePercentage" => number(&|value| Ok(format!("{}%", four(value * 100.0)))),
            "humanizeTimestamp" => number(&|value| match value.is_finite() {
                true => Ok(Value::Time(milliseconds(value)?).text()),
                false => Ok(four(value)),
            }),
            "toTime" => {
                let value = to_float(one(name, args)?).map_err(failed)?;
                milliseconds(value).map(Value::Time).map_err(failed)
            }
            "pathPrefix" => Ok(Value::Str(path_of(&url()))),
            "externalURL" => Ok(Value::Str(url())),
            "parseDuration" => string(&|text| {
                let ms = match text {
                    "0" => Some(0),
                    text => parse_duration_ms(text),
                };
                let ms = ms.ok_or_else(|| {
                    failed(match text {
                        "" => "empty duration string".to_owned(),
                        text => format!("not a valid duration string: {text:?}"),
                    })
                })?;
                Ok(Value::Float(ms as f64 / 1000.0))
            }),
            "now" => Ok(Value::Float(self.0.now_ms() as f64 / 1000.0)),
            name => Err(format!("{name:?} is not a defined function")),
        }
    }
}

fn samples(vector: &Vector) -> Value {
    let samples = vector.iter();
    list(
        samples
            .map(|(labels, value)| Value::sample(labels, *value))
            .collect(),
    )
}

fn string_or_empty(value: Value) -> Value {
    match value {
        Value::Missing => Value::Str(String::new()),
        value => value,
    }
}

fn sample<'v>(name: &str, args: &'v [Value]) -> Result<&'v Value, String> {
    match one(name, args)? {
        sample @ Value::Struct(..) => Ok(sample),
        other => Err(wrong_type("*template.sample", other)),
    }
}

fn compile(pattern: &str) -> Result<Regex, String> {
    let compiled = RegexBuilder::new(pattern)
        .size_limit(MAX_PATTERN_BYTES)
        .build();
    compiled.map_err(|error| error.to_string())
}

fn to_float(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(value) => Ok(*value),
        Value::Int(value) => Ok(*value as f64),
        Value::Str(text) => parse_float(text)
            .ok_or_else(|| format!("strconv.ParseFloat: parsing {text:?}: invalid syntax")),
        other => Err(format!("can't convert {} to float", other.type_name())),
    }
}

/// Go takes `Inf`, `infinity` and `nan` in any case too.
fn parse_float(text: &str) -> Option<f64> {
    (!text.is_empty() && !text.contains(char::is_whitespace)).then(|| text.parse().ok())?
}

fn milliseconds(seconds: f64) -> Result<i64, String> {
    if !seconds.is_finite() {
        return Err("value is NaN or Inf".to_owned());
    }
    let nanos = seconds * 1e9;
    if nanos >= i64::MAX as f64 || nanos <= i64::MIN as f64 {
        return Err(format!(
            "{} cannot be represented as a nanoseconds timestamp since it overflows int64",
            format_float(seconds, 'g', None)
        ));
    }
    // Both cuts as Go makes them.
    Ok(nanos as i64 / 1_000_000)
}

fn four(value: f64) -> String {
    format_float(value, 'g', Some(4))
}

const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];

fn small(mut value: f64) -> (f64, &'static str) {
    let mut prefix = "";
    for smaller in SMALL {
        if value.abs() >= 1.0 {
            break;
        }
        prefix = smaller;
        value *= 1000.0;
    }
    (value, prefix)
}

fn large(mut value: f64, base: f64, prefixes: [&'static str; 8]) -> String {
    let mut prefix = "";
    for larger in prefixes {
        if value.abs() < base {
            break;
        }
        prefix = larger;
        value /= base;
    }
    format!("{}{prefix}", four(value))
}

fn humanize(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return four(value);
    }
    if value.abs() >= 1.0 {
        return large(value, 1000.0, ["k", "M", "G", "T", "P", "E", "Z", "Y"]);
    }
    let (value, prefix) = small(value);
    format!("{}{prefix}", four(value))
}

fn humanize_1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return four(value);
    }
    large(
        value,
        1024.0,
        ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"],
    )
}

fn humanize_duration(value: f64) -> String {
    if !value.is_finite() {
        return four(value);
    }
    if value == 0.0 {
        return format!("{}s", four(value));
    }
    if value.abs() < 1.0 {
        let (value, prefix) = small(value);
        return format!("{}{prefix}s", four(value));
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let whole = value.abs() as i64;
    let (days, hours) = (whole / 86_400, whole / 3600 % 24);
    let (minutes, seconds) = (whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", four(value.abs())),
        (0, 0, _) => format!("{sign}{minutes}m {seconds}s"),
        (0, ..) => format!("{sign}{hours}h {minutes}m {seconds}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {seconds}s"),
    }
}

/// A letter in upper case, where that is one letter.
fn upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// Go's `strings.Title`: letters behind what separates words are in upper case.
fn title(text: &str) -> String {
    let separates = |c: char| match c.is_ascii() {
        true => !(c.is_ascii_alphanumeric() || c == '_'),
        false => c.is_whitespace(),
    };
    let mut previous = ' ';
    let letters = text.chars().map(|c| {
        let letter = if separates(previous) { upper(c) } else { c };
        previous = c;
        letter
    });
    letters.collect()
}

fn link(expr: &str, tab: u8) -> String {
    format!("/graph?g0.expr={}&g0.tab={tab}", url_escape(expr))
}

/// `net.SplitHostPort`.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        return (!inner.contains(['[', ']'])).then_some((inner, port));
    }
    (!host.contains([':', '[', ']']) && !port.contains(['[', ']'])).then_some((host, port))
}

fn strip_domain(text: &str) -> String {
    let (host, port) = split_host_port(text).unwrap_or((text, ""));
    if host.parse::<IpAddr>().is_ok() {
        return text.to_owned();
    }
    let host = host.split('.').next().unwrap_or_default();
    match port {
        "" => host.to_owned(),
        port if host.contains(':') => format!("[{host}]:{port}"),
        port => format!("{host}:{port}"),
    }
}

fn path_of(url: &str) -> String {
    url::Url::parse(url).map_or(String::new(), |parsed| match parsed.path() {
        // A URL that ends with its host has no path in Go.
        "/" if !url.ends_with('/') => String::new(),
        path => path.to_owned(),
    })
}
