//! The test language of Prometheus: scripts to commands.

use millrace_model::{Labels, stale_nan};

/// What a script tells to do, and at which line (from one).
#[derive(Debug)]
pub struct Command {
    pub line: usize,
    pub kind: CommandKind,
}

#[derive(Debug)]
pub enum CommandKind {
    Clear,
    Load(Load),
    Eval(Eval),
}

#[derive(Debug)]
pub struct Load {
    pub interval_ms: i64,
    /// Also as native histograms with custom buckets.
    pub with_nhcb: bool,
    pub series: Vec<(Labels, Points)>,
}

/// The points of a series, or why they cannot be given.
#[derive(Clone, Debug)]
pub enum Points {
    Floats(Vec<Option<f64>>),
    /// Native histograms among them; the floats that are there too.
    Histograms(Vec<Option<f64>>),
    StartTimes,
}

#[derive(Debug)]
pub struct Eval {
    pub time: EvalTime,
    pub query: String,
    pub expect: Vec<Expect>,
    pub results: Vec<(Labels, Points)>,
    pub scalar: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
pub enum EvalTime {
    Instant(i64),
    Range { start: i64, end: i64, step: i64 },
}

#[derive(Clone, Debug)]
pub enum Expect {
    Fail(Text),
    Warn(Text),
    Info(Text),
    NoWarn,
    NoInfo,
    Ordered,
    String(String),
    RangeVector { start: i64, step: i64 },
}

/// What a message must be.
#[derive(Clone, Debug)]
pub enum Text {
    Any,
    Exactly(String),
    Matches(regex::Regex),
}

type Result<T> = std::result::Result<T, String>;

/// Splits a script into commands.
pub fn parse(script: &str) -> Result<Vec<Command>> {
    let lines: Vec<&str> = script
        .lines()
        .map(str::trim)
        .map(|line| if line.starts_with('#') { "" } else { line })
        .collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let head = lines[at];
        let line = at + 1;
        at += 1;
        if head.is_empty() {
            continue;
        }
        let mut body = Vec::new();
        if head != "clear" {
            while at < lines.len() && !lines[at].is_empty() {
                body.push(lines[at]);
                at += 1;
            }
        }
        let kind = command(head, &body).map_err(|error| format!("line {line}: {error}"))?;
        commands.push(Command { line, kind });
    }
    Ok(commands)
}

fn command(head: &str, body: &[&str]) -> Result<CommandKind> {
    let (word, rest) = head.split_once(char::is_whitespace).unwrap_or((head, ""));
    match word {
        "clear" => Ok(CommandKind::Clear),
        "load" | "load_with_nhcb" => {
            let mut series = Vec::new();
            for line in body {
                series.push(series_line(line)?);
            }
            Ok(CommandKind::Load(Load {
                interval_ms: duration(rest.trim())?,
                with_nhcb: word == "load_with_nhcb",
                series,
            }))
        }
        "eval" => eval(rest.trim(), body, Vec::new()),
        "eval_fail" => eval(rest.trim(), body, vec![Expect::Fail(Text::Any)]),
        "eval_warn" => eval(rest.trim(), body, vec![Expect::Warn(Text::Any)]),
        "eval_info" => eval(rest.trim(), body, vec![Expect::Info(Text::Any)]),
        "eval_ordered" => eval(rest.trim(), body, vec![Expect::Ordered]),
        _ => Err(format!("unknown command {word:?}")),
    }
}

fn take<'t>(rest: &mut &'t str) -> &'t str {
    let text = rest.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, tail) = text.split_at(end);
    *rest = tail.trim_start();
    word
}

fn keyword(rest: &mut &str, word: &str) -> Result<()> {
    match take(rest) {
        found if found == word => Ok(()),
        found => Err(format!("expected {word:?}, found {found:?}")),
    }
}

fn eval(mut rest: &str, body: &[&str], expect: Vec<Expect>) -> Result<CommandKind> {
    let time = match take(&mut rest) {
        "instant" => {
            keyword(&mut rest, "at")?;
            EvalTime::Instant(duration(take(&mut rest))?)
        }
        "range" => {
            let (start, end, step) = range(&mut rest)?;
            EvalTime::Range { start, end, step }
        }
        other => return Err(format!("neither instant nor range: {other:?}")),
    };
    let mut eval = Eval {
        time,
        query: rest.to_owned(),
        expect,
        results: Vec::new(),
        scalar: None,
    };
    for line in body {
        if let Some(rest) = line.strip_prefix("expect ") {
            eval.expect.push(expectation(rest.trim())?);
        } else if let Some(text) = line.strip_prefix("expected_fail_message") {
            eval.expect
                .push(Expect::Fail(Text::Exactly(text.trim().to_owned())));
        } else if let Some(text) = line.strip_prefix("expected_fail_regexp") {
            eval.expect.push(Expect::Fail(pattern(text.trim())?));
        } else if let Some(value) = number(line) {
            eval.scalar = Some(value);
        } else {
            eval.results.push(series_line(line)?);
        }
    }
    Ok(CommandKind::Eval(eval))
}

fn range(rest: &mut &str) -> Result<(i64, i64, i64)> {
    keyword(rest, "from")?;
    let start = duration(take(rest))?;
    keyword(rest, "to")?;
    let end = duration(take(rest))?;
    keyword(rest, "step")?;
    Ok((start, end, duration(take(rest))?))
}

fn pattern(text: &str) -> Result<Text> {
    let regex = regex::Regex::new(text).map_err(|error| error.to_string())?;
    Ok(Text::Matches(regex))
}

fn expectation(rest: &str) -> Result<Expect> {
    let (word, tail) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let tail = tail.trim();
    let text = || -> Result<Text> {
        if let Some(exact) = tail.strip_prefix("msg:") {
            Ok(Text::Exactly(exact.trim().to_owned()))
        } else if let Some(regex) = tail.strip_prefix("regex:") {
            pattern(regex.trim())
        } else if tail.is_empty() {
            Ok(Text::Any)
        } else {
            Err(format!("neither msg nor regex: {tail:?}"))
        }
    };
    Ok(match word {
        "fail" => Expect::Fail(text()?),
        "warn" => Expect::Warn(text()?),
        "info" => Expect::Info(text()?),
        "no_warn" => Expect::NoWarn,
        "no_info" => Expect::NoInfo,
        "ordered" => Expect::Ordered,
        "string" => Expect::String(string(&mut { tail })?),
        "range" => {
            let mut tail = tail;
            keyword(&mut tail, "vector")?;
            let (start, _, step) = range(&mut tail)?;
            Expect::RangeVector { start, step }
        }
        _ => return Err(format!("unknown expectation {word:?}")),
    })
}

/// A duration, or a number of seconds, in ms.
fn duration(text: &str) -> Result<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok((seconds * 1000.0).round() as i64);
    }
    let mut total = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (count, tail) = rest.split_at(digits);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let count: i64 = count
            .parse()
            .map_err(|_| format!("no duration: {text:?}"))?;
        let unit = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(format!("no duration: {text:?}")),
        };
        total += count * unit;
        rest = tail;
    }
    Ok(total)
}

fn number(text: &str) -> Option<f64> {
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(|v| v as f64);
    }
    text.parse().ok()
}

/// `metric{a="b"} 1 2+3x4 _ stale`.
fn series_line(line: &str) -> Result<(Labels, Points)> {
    let mut rest = line;
    let labels = series(&mut rest)?;
    if rest.starts_with("@st") {
        return Ok((labels, Points::StartTimes));
    }
    Ok((labels, points(rest.trim())?))
}

/// Labels as a series is written; `rest` is left behind them.
pub fn series(rest: &mut &str) -> Result<Labels> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let end = rest
        .find(|c: char| c == '{' || c == '@' || c.is_whitespace())
        .unwrap_or(rest.len());
    let (name, tail) = rest.split_at(end);
    if !name.is_empty() {
        pairs.push(("__name__".to_owned(), name.to_owned()));
    }
    *rest = tail;
    if let Some(tail) = rest.strip_prefix('{') {
        *rest = tail.trim_start();
        while !rest.starts_with('}') {
            let name = if rest.starts_with(['"', '\'', '`']) {
                string(rest)?
            } else {
                let end = rest.find(['=', ',', '}']).ok_or("no end of braces")?;
                let (name, tail) = rest.split_at(end);
                *rest = tail;
                name.trim().to_owned()
            };
            *rest = rest.trim_start();
            if let Some(tail) = rest.strip_prefix('=') {
                *rest = tail.trim_start();
                let value = string(rest)?;
                pairs.push((name, value));
            } else {
                pairs.push(("__name__".to_owned(), name));
            }
            *rest = rest.trim_start();
            *rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        *rest = &rest[1..];
    }
    let pairs = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    Labels::from_pairs(pairs).map_err(|error| error.to_string())
}

/// A string in quotes of any kind.
fn string(rest: &mut &str) -> Result<String> {
    let mut chars = rest.char_indices();
    let (_, quote) = chars.next().ok_or("no string")?;
    if !['"', '\'', '`'].contains(&quote) {
        return Err(format!("no string: {rest:?}"));
    }
    let mut out = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quote != '`' => match chars.next().ok_or("no end of string")?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                other => out.push(other),
            },
            c if c == quote => {
                *rest = &rest[at + 1..];
                return Ok(out);
            }
            c => out.push(c),
        }
    }
    Err("no end of string".to_owned())
}

fn points(text: &str) -> Result<Points> {
    let mut out = Vec::new();
    let mut histograms = false;
    let mut rest = text;
    while !rest.is_empty() {
        if rest.starts_with("{{") {
            histograms = true;
            let count = skip_histograms(&mut rest)?;
            out.resize(out.len() + count, None);
            continue;
        }
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        rest = tail.trim_start();
        expand(word, &mut out).ok_or_else(|| format!("no points: {word:?}"))?;
    }
    Ok(match histograms {
        true => Points::Histograms(out),
        false => Points::Floats(out),
    })
}

/// Passes over `{{…}}`, `{{…}}x3` or `{{…}}+{{…}}x3`; how many points that is.
fn skip_histograms(rest: &mut &str) -> Result<usize> {
    let close = |text: &str| {
        text.find("}}")
            .map(|at| at + 2)
            .ok_or("no end of histogram")
    };
    *rest = &rest[close(rest)?..];
    if rest.starts_with("+{{") || rest.starts_with("-{{") {
        *rest = &rest[close(rest)?..];
    }
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (times, tail) = rest.split_at(end);
    *rest = tail.trim_start();
    match times.strip_prefix('x') {
        None => Ok(1),
        Some(times) => times
            .parse::<usize>()
            .map(|n| n + 1)
            .map_err(|e| e.to_string()),
    }
}

/// `1`, `1x3`, `1+2x3`, `1-2x3`, `_`, `_x3`, `stale`.
fn expand(word: &str, out: &mut Vec<Option<f64>>) -> Option<()> {
    if word == "_" {
        out.push(None);
        return Some(());
    }
    if let Some(times) = word.strip_prefix("_x") {
        out.resize(out.len() + times.parse::<usize>().ok()?, None);
        return Some(());
    }
    if word == "stale" {
        out.push(Some(stale_nan()));
        return Some(());
    }
    let Some((formula, times)) = word.rsplit_once('x') else {
        out.push(Some(number(word)?));
        return Some(());
    };
    let times: usize = times.parse().ok()?;
    let (start, step) = match number(formula) {
        Some(start) => (start, 0.0),
        None => {
            // The sign of the step, not of the start or of an exponent.
            let bytes = formula.as_bytes();
            let at = (1..bytes.len()).find(|&i| {
                matches!(bytes[i], b'+' | b'-') && !matches!(bytes[i - 1], b'e' | b'E')
            })?;
            (number(&formula[..at])?, number(&formula[at..])?)
        }
    };
    let mut value = start;
    for _ in 0..=times {
        out.push(Some(value));
        value += step;
    }
    Some(())
}
