//! Runs the commands of a script against the engine.

use std::sync::Arc;
use std::time::Duration;

use millrace_model::{Labels, TenantId, TimestampMs, is_stale};
use millrace_query::{
    CancelFlag, Engine, EngineOptions, QueryError, QueryOutcome, QueryRequest, QueryTime,
    QueryValue,
};

use crate::memory::Memory;
use crate::script::{Command, CommandKind, Eval, EvalTime, Expect, Load, Points, Text};

/// How the cases of a script went.
#[derive(Debug, Default)]
pub struct Report {
    pub passed: usize,
    /// Line and reason.
    pub skipped: Vec<(usize, &'static str)>,
    /// Line, query and what is wrong.
    pub failed: Vec<(usize, String, String)>,
}

const HISTOGRAMS: &str = "native histograms are not supported yet";
const START_TIMES: &str = "start timestamps are not supported yet";

/// What the runner of Prometheus switches on.
fn options() -> EngineOptions {
    EngineOptions {
        delayed_name_removal: true,
        timeout: Duration::from_secs(100),
        threads: 1,
        ..EngineOptions::default()
    }
}

pub fn run(commands: &[Command]) -> Report {
    let mut memory = Memory::default();
    let mut report = Report::default();
    for command in commands {
        match &command.kind {
            CommandKind::Clear => memory = Memory::default(),
            CommandKind::Load(load) => fill(&mut memory, load),
            CommandKind::Eval(eval) => {
                let source = Arc::new(std::mem::take(&mut memory));
                let engine = Engine::new(source.clone(), options());
                match check(&engine, eval) {
                    Ok(()) => report.passed += 1,
                    Err(problem) => match skip_reason(eval, &source) {
                        Some(reason) => report.skipped.push((command.line, reason)),
                        None => {
                            report
                                .failed
                                .push((command.line, eval.query.clone(), problem));
                        }
                    },
                }
                drop(engine);
                source.take_touched_incomplete();
                memory = Arc::into_inner(source).expect("the engine is gone");
            }
        }
    }
    report
}

/// Why a case that does not pass need not.
fn skip_reason(eval: &Eval, memory: &Memory) -> Option<&'static str> {
    let histograms = eval
        .results
        .iter()
        .any(|(_, points)| matches!(points, Points::Histograms(_)));
    if histograms {
        return Some(HISTOGRAMS);
    }
    if eval.query.contains("start_timestamp") {
        return Some(START_TIMES);
    }
    memory.take_touched_incomplete()
}

fn fill(memory: &mut Memory, load: &Load) {
    for (labels, points) in &load.series {
        let floats = match points {
            Points::Floats(floats) => floats,
            Points::Histograms(floats) => {
                memory.mark_incomplete(labels, HISTOGRAMS);
                floats
            }
            Points::StartTimes => {
                memory.mark_incomplete(labels, START_TIMES);
                continue;
            }
        };
        for (index, value) in floats.iter().enumerate() {
            if let Some(value) = value {
                memory.insert(labels, index as i64 * load.interval_ms, *value);
            }
        }
        if load.with_nhcb
            && let Some(name) = labels.metric_name().and_then(|n| n.strip_suffix("_bucket"))
        {
            let rest = labels
                .iter()
                .filter(|(n, _)| *n != "__name__" && *n != "le");
            let native = Labels::from_pairs(rest.chain([("__name__", name)]));
            let native = native.expect("labels of a series without one");
            memory.mark_incomplete(&native, HISTOGRAMS);
        }
    }
}

fn query(engine: &Engine, text: &str, time: QueryTime) -> Result<QueryOutcome, QueryError> {
    engine.query(&QueryRequest {
        tenant: TenantId::anonymous(),
        text: text.to_owned(),
        time,
        lookback: None,
        timeout: None,
        cancel: CancelFlag::default(),
        partial: false,
        point: std::sync::Arc::default(),
    })
}

fn check(engine: &Engine, eval: &Eval) -> Result<(), String> {
    let time = match eval.time {
        EvalTime::Instant(at) => QueryTime::Instant(TimestampMs(at)),
        EvalTime::Range { start, end, step } => range(start, end, step),
    };
    let outcome = match (query(engine, &eval.query, time), fails(eval)) {
        (Ok(_), Some(_)) => return Err("should have failed".to_owned()),
        (Ok(outcome), None) => outcome,
        (Err(error), None) => return Err(format!("failed: {error}")),
        (Err(error), Some(texts)) => {
            let message = error.to_string();
            let expected = texts.iter().all(|text| text.accepts(&message));
            return if expected {
                Ok(())
            } else {
                Err(format!("failed otherwise: {message}"))
            };
        }
    };
    annotations(eval, &outcome)?;
    compare(eval, &outcome.value, eval.time)?;
    match eval.time {
        EvalTime::Instant(at) => repeat_as_range(engine, eval, at),
        EvalTime::Range { .. } => Ok(()),
    }
}

fn range(start: i64, end: i64, step_ms: i64) -> QueryTime {
    QueryTime::Range {
        start: TimestampMs(start),
        end: TimestampMs(end),
        step_ms,
    }
}

/// The middle of a range query must be what the instant query gave.
fn repeat_as_range(engine: &Engine, eval: &Eval, at: i64) -> Result<(), String> {
    let lower = eval.query.to_lowercase();
    let depends = ["step()", "range()", "start()", "end()"];
    let fixed = eval.expect.iter().any(|e| {
        matches!(
            e,
            Expect::Ordered | Expect::String(_) | Expect::RangeVector { .. }
        )
    });
    if fixed || depends.iter().any(|word| lower.contains(word)) {
        return Ok(());
    }
    let outcome = query(engine, &eval.query, range(at - 60_000, at + 60_000, 60_000))
        .map_err(|error| format!("as a range query it failed: {error}"))?;
    let QueryValue::Matrix(series) = &outcome.value else {
        return Err("a range query without a matrix".to_owned());
    };
    let middle: Vec<(Labels, f64)> = series
        .iter()
        .filter_map(|s| {
            let index = s.timestamps.iter().position(|t| *t == at)?;
            Some((s.labels.clone(), s.values[index]))
        })
        .collect();
    let compared = match eval.scalar {
        Some(expect) => match middle.first() {
            Some((_, got)) if almost_equal(*got, expect) => Ok(()),
            got => Err(format!("expected {expect}, got {got:?}")),
        },
        None => compare_vector(eval, &middle),
    };
    compared.map_err(|problem| format!("as a range query: {problem}"))
}

fn fails(eval: &Eval) -> Option<Vec<&Text>> {
    let texts: Vec<&Text> = eval
        .expect
        .iter()
        .filter_map(|e| match e {
            Expect::Fail(text) => Some(text),
            _ => None,
        })
        .collect();
    (!texts.is_empty()).then_some(texts)
}

impl Text {
    fn accepts(&self, message: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(text) => text == message,
            Self::Matches(regex) => regex.is_match(message),
        }
    }
}

fn annotations(eval: &Eval, outcome: &QueryOutcome) -> Result<(), String> {
    let mut warn = Vec::new();
    let mut info = Vec::new();
    for expect in &eval.expect {
        match expect {
            Expect::Warn(text) => warn.push(text),
            Expect::Info(text) => info.push(text),
            Expect::NoWarn if !outcome.warnings.is_empty() => {
                return Err(format!("warnings: {:?}", outcome.warnings));
            }
            Expect::NoInfo if !outcome.infos.is_empty() => {
                return Err(format!("infos: {:?}", outcome.infos));
            }
            _ => {}
        }
    }
    for (kind, expected, got) in [
        ("warning", warn, &outcome.warnings),
        ("info", info, &outcome.infos),
    ] {
        if let Some(missing) = expected
            .iter()
            .find(|text| !got.iter().any(|m| text.accepts(m)))
        {
            return Err(format!("no {kind} {missing:?} in {got:?}"));
        }
        let unexpected = |m: &&String| !expected.iter().any(|text| text.accepts(m));
        if !expected.is_empty()
            && let Some(extra) = got.iter().find(unexpected)
        {
            return Err(format!("{kind} not expected: {extra:?}"));
        }
    }
    Ok(())
}

fn compare(eval: &Eval, value: &QueryValue, time: EvalTime) -> Result<(), String> {
    match value {
        QueryValue::Scalar { value, .. } => match eval.scalar {
            Some(expect) if almost_equal(*value, expect) => Ok(()),
            expect => Err(format!("expected {expect:?}, got scalar {value}")),
        },
        QueryValue::String { value, .. } => {
            let expected = eval.expect.iter().any(|e| match e {
                Expect::String(text) => text == value,
                _ => false,
            });
            if expected {
                Ok(())
            } else {
                Err(format!("got string {value:?}"))
            }
        }
        QueryValue::Vector(samples) => {
            let got: Vec<(Labels, f64)> = samples
                .iter()
                .map(|s| (s.labels.clone(), s.value))
                .collect();
            compare_vector(eval, &got)
        }
        QueryValue::Matrix(series) => {
            let (start, step) = match (time, &eval.expect[..]) {
                (EvalTime::Range { start, step, .. }, _) => (start, step),
                (EvalTime::Instant(_), expect) => expect
                    .iter()
                    .find_map(|e| match e {
                        Expect::RangeVector { start, step } => Some((*start, *step)),
                        _ => None,
                    })
                    .ok_or("a range vector, not expected")?,
            };
            if series.len() != eval.results.len() {
                let got: Vec<_> = series.iter().map(|s| (&s.labels, &s.values)).collect();
                return Err(format!(
                    "{} series expected, got {got:?}",
                    eval.results.len()
                ));
            }
            for series in series {
                let points = expected_points(eval, &series.labels)?;
                let expected: Vec<(i64, f64)> = points
                    .iter()
                    .enumerate()
                    .filter_map(|(i, v)| v.map(|v| (start + i as i64 * step, v)))
                    .filter(|(_, v)| !is_stale(*v))
                    .collect();
                let got: Vec<(i64, f64)> = series
                    .timestamps
                    .iter()
                    .copied()
                    .zip(series.values.iter().copied())
                    .collect();
                let same = expected.len() == got.len()
                    && expected
                        .iter()
                        .zip(&got)
                        .all(|(e, g)| e.0 == g.0 && almost_equal(e.1, g.1));
                if !same {
                    return Err(format!(
                        "{}: expected {expected:?}, got {got:?}",
                        series.labels
                    ));
                }
            }
            Ok(())
        }
    }
}

fn expected_points<'e>(eval: &'e Eval, labels: &Labels) -> Result<&'e [Option<f64>], String> {
    let found = eval.results.iter().find(|(l, _)| l == labels);
    match found {
        Some((_, Points::Floats(points))) => Ok(points),
        Some((_, points)) => Err(format!("{labels}: expected {points:?}")),
        None => Err(format!("{labels} not expected")),
    }
}

fn compare_vector(eval: &Eval, got: &[(Labels, f64)]) -> Result<(), String> {
    if eval.scalar.is_some() {
        return Err("a vector instead of a scalar".to_owned());
    }
    if got.len() != eval.results.len() {
        return Err(format!(
            "{} series expected, got {got:?}",
            eval.results.len()
        ));
    }
    for (index, (labels, value)) in got.iter().enumerate() {
        let expect = match expected_points(eval, labels)? {
            [Some(expect)] => *expect,
            points => return Err(format!("{labels}: expected {points:?}")),
        };
        if !almost_equal(*value, expect) {
            return Err(format!("{labels}: expected {expect}, got {value}"));
        }
        let ordered = eval.expect.iter().any(|e| matches!(e, Expect::Ordered));
        if ordered && eval.results[index].0 != *labels {
            return Err(format!("{labels} at place {index} of {got:?}"));
        }
    }
    Ok(())
}

/// Within 1e-6 of each other, relative to both; NaN equals NaN.
fn almost_equal(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    if a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < 1e-6 * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < 1e-6
}
