//! The functions that `text/template` itself has.

use std::cmp::Ordering;

use super::exec::list;
use super::printf::{quote, sprintf};
use super::value::Value;

/// Their names; `and` and `or` are evaluated where their arguments are.
pub(super) const NAMES: [&str; 18] = [
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "js",
    "urlquery", "eq", "ne", "lt", "le", "gt", "ge",
];

type Done = Result<Value, String>;

/// Calls one of them; `None` if it is none.
pub(super) fn call(name: &str, args: &[Value]) -> Option<Done> {
    Some(match name {
        "not" => one(name, args).map(|arg| Value::Bool(!arg.truth())),
        "len" => one(name, args).and_then(len),
        "index" => index(args),
        "slice" => slice(args),
        "print" => Ok(Value::Str(print(args))),
        "println" => {
            let texts: Vec<_> = args.iter().map(Value::text).collect();
            Ok(Value::Str(format!("{}\n", texts.join(" "))))
        }
        "printf" => match args.split_first() {
            Some((Value::Str(format), rest)) => Ok(Value::Str(sprintf(format, rest))),
            Some((other, _)) => Err(wrong_type("string", other)),
            None => Err("wrong number of args for printf: want at least 1 got 0".to_owned()),
        },
        "html" => Ok(Value::Str(html(&print(args)))),
        "js" => Ok(Value::Str(js(&print(args)))),
        "urlquery" => Ok(Value::Str(url_escape(&print(args)))),
        "eq" => equal(args),
        "ne" => two(name, args)
            .and_then(|(a, b)| same(name, a, b))
            .map(|equal| Value::Bool(!equal)),
        "lt" | "le" | "gt" | "ge" => two(name, args).and_then(|(a, b)| {
            let order = order(name, a, b)?;
            Ok(Value::Bool(order.is_some_and(|order| match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            })))
        }),
        _ => return None,
    })
}

pub(super) fn wrong_type(expected: &str, got: &Value) -> String {
    match got {
        Value::Missing => format!("invalid value; expected {expected}"),
        got => format!(
            "wrong type for value; expected {expected}; got {}",
            got.type_name()
        ),
    }
}

pub(super) fn one<'v>(name: &str, args: &'v [Value]) -> Result<&'v Value, String> {
    match args {
        [arg] => Ok(arg),
        _ => Err(format!(
            "wrong number of args for {name}: want 1 got {}",
            args.len()
        )),
    }
}

pub(super) fn two<'v>(name: &str, args: &'v [Value]) -> Result<(&'v Value, &'v Value), String> {
    match args {
        [a, b] => Ok((a, b)),
        _ => Err(format!(
            "wrong number of args for {name}: want 2 got {}",
            args.len()
        )),
    }
}

fn called(name: &str, what: impl std::fmt::Display) -> String {
    format!("error calling {name}: {what}")
}

fn len(value: &Value) -> Done {
    let length = match value {
        Value::Str(text) => text.len(),
        Value::Map(map) => map.len(),
        Value::List(list) => list.len(),
        other => return Err(called("len", format!("len of type {}", other.type_name()))),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(args: &[Value]) -> Done {
    let Some((item, keys)) = args.split_first() else {
        return Err("wrong number of args for index: want at least 1 got 0".to_owned());
    };
    let mut value = item.clone();
    for key in keys {
        value = match (&value, key) {
            // The zero value of a map of strings is the empty string.
            (Value::Map(map), Value::Str(key)) => map
                .get(key)
                .cloned()
                .unwrap_or_else(|| Value::Str(String::new())),
            (Value::List(list), Value::Int(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| list.get(at));
                let out = || called("index", format!("index out of range: {at}"));
                found.cloned().ok_or_else(out)?
            }
            (Value::Str(text), Value::Int(at)) => {
                let found = usize::try_from(*at)
                    .ok()
                    .and_then(|at| text.as_bytes().get(at));
                let out = || called("index", format!("index out of range: {at}"));
                Value::Int(i64::from(*found.ok_or_else(out)?))
            }
            (Value::Missing | Value::Nil, _) => {
                return Err(called("index", "index of untyped nil"));
            }
            (Value::Map(_) | Value::List(_) | Value::Str(_), key) => {
                let what = format!("cannot index slice/array with type {}", key.type_name());
                return Err(called("index", what));
            }
            (other, _) => {
                let what = format!("can't index item of type {}", other.type_name());
                return Err(called("index", what));
            }
        };
    }
    Ok(value)
}

fn slice(args: &[Value]) -> Done {
    let Some((item, bounds)) = args.split_first() else {
        return Err("wrong number of args for slice: want at least 1 got 0".to_owned());
    };
    let length = match item {
        Value::Str(text) => text.len(),
        Value::List(list) => list.len(),
        other => {
            let what = format!("can't slice item of type {}", other.type_name());
            return Err(called("slice", what));
        }
    };
    let mut ends = [0, length];
    for (end, bound) in ends.iter_mut().zip(bounds) {
        *end = match bound {
            Value::Int(at) => usize::try_from(*at)
                .ok()
                .filter(|at| *at <= length)
                .ok_or_else(|| called("slice", format!("index out of range: {at}")))?,
            other => {
                let what = format!("cannot index slice/array with type {}", other.type_name());
                return Err(called("slice", what));
            }
        };
    }
    let [from, to] = ends;
    if from > to {
        return Err(called(
            "slice",
            format!("invalid slice index: {from} > {to}"),
        ));
    }
    match item {
        Value::List(values) => Ok(list(values[from..to].to_vec())),
        Value::Str(text) => {
            let bytes = &text.as_bytes()[from..to];
            Ok(Value::Str(String::from_utf8_lossy(bytes).into_owned()))
        }
        _ => Ok(Value::Nil),
    }
}

/// `fmt.Sprint`: spaces between neighbours of which none is a string.
fn print(args: &[Value]) -> String {
    let mut out = String::new();
    let mut previous_is_string = true;
    for arg in args {
        let is_string = matches!(arg, Value::Str(_));
        if !is_string && !previous_is_string {
            out.push(' ');
        }
        out.push_str(&arg.text());
        previous_is_string = is_string;
    }
    out
}

fn equal(args: &[Value]) -> Done {
    let Some((first, others)) = args.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Err(called("eq", "missing argument for comparison"));
    };
    for other in others {
        if same("eq", first, other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn incompatible(name: &str, a: &Value, b: &Value) -> String {
    let (a, b) = (a.type_name(), b.type_name());
    called(
        name,
        format!("incompatible types for comparison: {a} and {b}"),
    )
}

fn same(name: &str, a: &Value, b: &Value) -> Result<bool, String> {
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => a == b,
        (Value::Missing | Value::Nil, Value::Missing | Value::Nil) => true,
        (Value::Missing | Value::Nil, _) | (_, Value::Missing | Value::Nil) => false,
        _ => return Err(incompatible(name, a, b)),
    })
}

fn order(name: &str, a: &Value, b: &Value) -> Result<Option<Ordering>, String> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(Some(a.cmp(b))),
        (Value::Float(a), Value::Float(b)) => Ok(a.partial_cmp(b)),
        (Value::Str(a), Value::Str(b)) => Ok(Some(a.cmp(b))),
        (Value::Bool(_), Value::Bool(_)) => Err(called(name, "invalid type for comparison")),
        _ => Err(incompatible(name, a, b)),
    }
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// `url.QueryEscape`.
pub(crate) fn url_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A name as Go quotes it in messages.
pub(super) fn quoted(text: &str) -> String {
    quote(text)
}
