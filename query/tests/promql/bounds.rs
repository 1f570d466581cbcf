//! What a stranger's query can cost: nothing but an error.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use millrace_model::{Labels, TenantId, TimeRange, TimestampMs};
use millrace_query::{
    CancelFlag, Engine, EngineOptions, QueryError, QueryOutcome, QueryRequest, QueryTime,
    QueryValue, SampleColumns, Select, SeriesSource, SourceError, StoredSeries,
};
use proptest::prelude::*;

use crate::memory::Memory;

/// So many series of one metric, each with a sample every 10 s.
fn memory(series: usize, samples: usize) -> Memory {
    let mut memory = Memory::default();
    for index in 0..series {
        let id = index.to_string();
        let labels = Labels::from_pairs([("__name__", "m"), ("id", &id), ("g", &id[..1])]);
        let labels = labels.expect("three labels");
        for sample in 0..samples {
            memory.insert(
                &labels,
                sample as i64 * 10_000,
                (sample * (index + 1)) as f64,
            );
        }
    }
    memory
}

fn engine(memory: Memory, options: EngineOptions) -> Engine {
    Engine::new(Arc::new(memory), options)
}

fn small(options: EngineOptions) -> Engine {
    engine(
        memory(20, 100),
        EngineOptions {
            threads: 1,
            ..options
        },
    )
}

fn request(text: &str, time: QueryTime) -> QueryRequest {
    QueryRequest {
        tenant: TenantId::anonymous(),
        text: text.to_owned(),
        time,
        lookback: None,
        timeout: None,
        cancel: CancelFlag::default(),
        partial: false,
        point: std::sync::Arc::default(),
    }
}

fn at(ms: i64) -> QueryTime {
    QueryTime::Instant(TimestampMs(ms))
}

fn range(start: i64, end: i64, step_ms: i64) -> QueryTime {
    QueryTime::Range {
        start: TimestampMs(start),
        end: TimestampMs(end),
        step_ms,
    }
}

fn instant(engine: &Engine, text: &str) -> Result<QueryOutcome, QueryError> {
    engine.query(&request(text, at(500_000)))
}

fn bad_data(result: Result<QueryOutcome, QueryError>) -> String {
    match result {
        Err(QueryError::BadData(message)) => message,
        other => panic!("no bad data: {other:?}"),
    }
}

fn execution(result: Result<QueryOutcome, QueryError>) -> String {
    match result {
        Err(QueryError::Execution(message)) => message,
        other => panic!("no execution error: {other:?}"),
    }
}

#[test]
fn text_is_bounded_in_bytes() {
    let engine = small(EngineOptions {
        max_query_bytes: 10,
        ..EngineOptions::default()
    });
    for (text, fits) in [("1 +      1", true), ("1 +       1", false)] {
        let result = instant(&engine, text);
        assert_eq!(result.is_ok(), fits, "{text:?}");
        if !fits {
            assert!(bad_data(result).contains("limit is 10 bytes"));
        }
    }
}

#[test]
fn text_is_bounded_in_tokens() {
    let engine = small(EngineOptions {
        max_tokens: 5,
        ..EngineOptions::default()
    });
    assert!(instant(&engine, "1 + 1 + 1").is_ok());
    assert!(bad_data(instant(&engine, "1 + 1 + 1 +")).contains("more than 5 tokens"));
}

#[test]
fn nesting_is_bounded_whatever_it_is_made_of() {
    let engine = small(EngineOptions::default());
    let nested = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    for (open, inner, close) in [
        ("(", "1", ")"),
        ("-", "1", ""),
        ("+", "1", ""),
        ("2^", "1", ""),
        ("abs(", "m", ")"),
        ("sum by (a) (", "m", ")"),
        ("m[5m", "", ":]"),
        ("m offset (", "1", ")"),
        ("m[-", "1", "]"),
    ] {
        let started = Instant::now();
        let text = nested(open, inner, close, 1_500);
        let message = bad_data(instant(&engine, &text));
        assert!(!message.is_empty());
        assert!(started.elapsed() < Duration::from_secs(1), "{open}");
    }
    for (open, inner, close) in [("(", "1", ")"), ("-", "1", ""), ("abs(", "m", ")")] {
        assert!(
            instant(&engine, &nested(open, inner, close, 60)).is_ok(),
            "{open}"
        );
        let message = bad_data(instant(&engine, &nested(open, inner, close, 70)));
        assert!(message.contains("nested more than 64 deep"), "{message}");
    }
}

#[test]
fn long_chains_are_answered_or_refused_but_overflow_nothing() {
    let engine = small(EngineOptions::default());
    let chain = |operator: &str, terms: usize| vec!["1"; terms].join(operator);
    match instant(&engine, &chain("+", 1_000))
        .expect("999 operators")
        .value
    {
        QueryValue::Scalar { value, .. } => assert_eq!(value, 1_000.0),
        other => panic!("{other:?}"),
    }
    let vectors = vec!["m"; 900].join(" or ");
    assert!(instant(&engine, &vectors).is_ok());
    assert!(bad_data(instant(&engine, &chain("+", 1_001))).contains("tokens"));
    assert!(bad_data(instant(&engine, &chain("^", 100))).contains("deep"));
}

#[test]
fn patterns_are_bounded() {
    let engine = small(EngineOptions::default());
    let long = format!("{{id=~\"{}\"}}", "a".repeat(1_025));
    assert!(bad_data(instant(&engine, &long)).contains("limit is 1024"));
    let huge = "{id=~\"(a{1000}){1000}\"}";
    assert!(bad_data(instant(&engine, huge)).contains("compiles to more than"));
    let replace = "label_replace(m, \"a\", \"$1\", \"id\", \"(a{1000}){1000}\")";
    assert!(execution(instant(&engine, replace)).contains("invalid regular expression"));
}

#[test]
fn points_are_bounded() {
    let engine = small(EngineOptions {
        max_points_per_series: 10,
        ..EngineOptions::default()
    });
    assert!(engine.query(&request("m", range(0, 10_000, 1_000))).is_ok());
    let message = bad_data(engine.query(&request("m", range(0, 11_000, 1_000))));
    assert!(
        message.contains("exceeded maximum resolution of 10 points"),
        "{message}"
    );
}

#[test]
fn impossible_times_are_refused() {
    let engine = small(EngineOptions::default());
    for time in [
        range(10, 9, 1),
        range(0, 10, 0),
        range(0, 10, -5),
        range(i64::MIN, i64::MAX, 1),
        at(i64::MIN),
        at(i64::MAX),
    ] {
        bad_data(engine.query(&request("m", time)));
    }
}

#[test]
fn samples_are_bounded_by_what_is_held_at_once() {
    // 20 series of 100 samples.
    let options = |max_samples| EngineOptions {
        max_samples,
        ..EngineOptions::default()
    };
    let everything = range(0, 990_000, 10_000);
    let query = |max, text: &str| small(options(max)).query(&request(text, everything));
    assert!(query(2_000, "m").is_ok());
    let message = execution(query(1_999, "m"));
    assert!(
        message.contains("too many samples into memory"),
        "{message}"
    );
    assert!(message.contains("1999"), "{message}");
    // A sum holds its group, not its input.
    assert!(query(400, "sum(m)").is_ok());
    assert!(query(400, "sum(rate(m[1m]))").is_ok());
    execution(query(99, "sum(m)"));
}

#[test]
fn memory_is_bounded() {
    let engine = small(EngineOptions {
        max_memory_bytes: 6_000,
        ..EngineOptions::default()
    });
    assert!(instant(&engine, "m").is_ok());
    let message = execution(engine.query(&request("m", range(0, 990_000, 10_000))));
    assert!(message.contains("too much memory"), "{message}");
}

/// So many series over a day, made when they are read: what a query holds of them is its own.
#[derive(Debug)]
struct Day(Vec<Labels>);

impl Day {
    const STEP_MS: i64 = 300_000;
    const SAMPLES: i64 = 288;

    fn new(series: usize) -> Self {
        let labels = |index: usize| {
            let (id, group) = (index.to_string(), (index % 10).to_string());
            let pairs = [("__name__", "m"), ("id", &id[..]), ("g", &group)];
            Labels::from_pairs(pairs).expect("three labels")
        };
        Self((0..series).map(labels).collect())
    }
}

struct OfDay(Labels, TimeRange);

impl StoredSeries for OfDay {
    fn labels(&self) -> &Labels {
        &self.0
    }

    fn read(&self, out: &mut SampleColumns) -> Result<(), SourceError> {
        for sample in 0..Day::SAMPLES {
            let time = sample * Day::STEP_MS;
            if self.1.start.0 <= time && time <= self.1.end.0 {
                out.push(time, sample as f64);
            }
        }
        Ok(())
    }
}

impl SeriesSource for Day {
    fn select(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        let of = |labels: &Labels| {
            Box::new(OfDay(labels.clone(), request.range)) as Box<dyn StoredSeries>
        };
        Ok(self.0.iter().map(of).collect())
    }
}

#[test]
fn a_sum_over_a_hundred_thousand_series_and_a_day_fits_into_256_mib() {
    let options = EngineOptions {
        max_memory_bytes: 256 << 20,
        // Its input are 28.8 million.
        max_samples: 100_000,
        timeout: Duration::from_secs(600),
        ..EngineOptions::default()
    };
    let engine = Engine::new(Arc::new(Day::new(100_000)), options);
    let day = range(0, 86_100_000, 300_000);
    for text in ["sum by (g) (m)", "avg(max_over_time(m[10m]))"] {
        let mut request = request(text, day);
        request.timeout = Some(Duration::from_secs(600));
        let outcome = engine.query(&request).expect("an answer");
        assert_eq!(outcome.stats.samples_read, 28_800_000, "{text}");
    }
    // What is held whole is refused.
    execution(engine.query(&request("m + 1", day)));
}

#[test]
fn huge_subqueries_are_refused_before_they_are_begun() {
    let engine = small(EngineOptions::default());
    let started = Instant::now();
    for text in [
        "max_over_time(m[100y:1ms])",
        "max_over_time(vector(1)[290y:1ms])",
        "sum_over_time(sum_over_time(m[1y:1s])[1y:1s])",
    ] {
        execution(instant(&engine, text));
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_deadline_ends_a_query_and_says_so() {
    let engine = engine(memory(200, 5_000), EngineOptions::default());
    // Windows as long as the data, at every step: minutes of work.
    let text = "sum(quantile_over_time(0.5, m[1d]))";
    let mut slow = request(text, range(0, 50_000_000, 10_000));
    slow.timeout = Some(Duration::from_millis(100));
    let started = Instant::now();
    match engine.query(&slow) {
        Err(QueryError::Timeout(message)) => assert!(message.contains("100ms"), "{message}"),
        other => panic!("no timeout: {other:?}"),
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_cancelled_query_ends() {
    let engine = engine(memory(200, 5_000), EngineOptions::default());
    let slow = request(
        "sum(quantile_over_time(0.5, m[1d]))",
        range(0, 50_000_000, 10_000),
    );
    let cancel = slow.cancel.clone();
    std::thread::scope(|scope| {
        let query = scope.spawn(|| engine.query(&slow));
        cancel.cancel();
        let result = query.join().expect("no panic");
        assert!(matches!(result, Err(QueryError::Canceled(_))), "{result:?}");
    });
}

#[test]
fn the_same_bits_come_out_of_any_number_of_threads() {
    let answer = |threads| {
        let options = EngineOptions {
            threads,
            ..EngineOptions::default()
        };
        let engine = engine(memory(700, 50), options);
        let text = "sum by (g) (rate(m[1m])) + avg by (g) (m / 3) + stddev by (g) (m)";
        let outcome = engine.query(&request(text, range(0, 490_000, 10_000)));
        match outcome.expect("an answer").value {
            QueryValue::Matrix(series) => series
                .into_iter()
                .map(|s| {
                    (
                        s.labels,
                        s.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
                    )
                })
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    let one = answer(1);
    assert_eq!(one.len(), 10);
    assert_eq!(one, answer(2));
    assert_eq!(one, answer(7));
}

#[test]
fn selectors_of_everything_are_refused() {
    let engine = small(EngineOptions::default());
    for text in ["{}", "{a=~\".*\"}", "{a!=\"b\"}", "rate({a=\"\"}[5m])"] {
        let message = bad_data(instant(&engine, text));
        assert!(
            message.contains("at least one non-empty matcher"),
            "{message}"
        );
    }
    assert!(instant(&engine, "{__name__!=\"\"}").is_ok());
}

#[test]
fn what_shows_expressions_has_the_same_bounds() {
    let engine = small(EngineOptions::default());
    assert!(engine.format("sum by (a) (rate(m[5m]))").is_ok());
    assert!(engine.format(&"(".repeat(50_000)).is_err());
    assert!(engine.describe(&"-".repeat(16_000)).is_err());
    assert_eq!(
        engine
            .parse_selector("m{a=\"b\"}")
            .expect("a selector")
            .len(),
        2
    );
    assert!(engine.parse_selector("m[5m]").is_err());
    assert!(engine.parse_selector("sum(m)").is_err());
}

/// Pieces that queries are made of, so that random ones come near to being right.
const PIECES: &[&str] = &[
    "m",
    "sum",
    "by",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    "1",
    "5m",
    "id",
    "=",
    "=~",
    "\"0\"",
    "+",
    "-",
    "*",
    "/",
    "^",
    "%",
    "==",
    "!=",
    ">",
    "bool",
    "on",
    "ignoring",
    "group_left",
    "and",
    "or",
    "unless",
    "offset",
    "@",
    "rate",
    "topk",
    "quantile_over_time",
    "start()",
    "end()",
    ":",
    "1h",
    "without",
    "histogram_quantile",
    "label_replace",
    "absent",
    "'a'",
    "step()",
    "smoothed",
    "anchored",
    "fill(0)",
    "0x1f",
    "Inf",
    "nan",
    "# c\n",
    "count_values",
    "limitk",
    "info",
    "\\",
    "\u{fffd}",
    "é",
    "`",
    "\"",
];

/// For queries that may be of any kind.
static SHARED: LazyLock<Engine> = LazyLock::new(|| small(EngineOptions::default()));

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered_or_refused(text in ".{0,80}") {
        let _answer_or_refusal = instant(&SHARED, &text);
    }

    #[test]
    fn any_sequence_of_tokens_is_answered_or_refused(
        pieces in prop::collection::vec(0..PIECES.len(), 0..25),
        step in 0i64..3,
    ) {
        let text: Vec<&str> = pieces.iter().map(|i| PIECES[*i]).collect();
        let text = text.join(" ");
        let time = if step == 0 { at(500_000) } else { range(0, 600_000, step * 30_000) };
        let started = Instant::now();
        let _answer_or_refusal = SHARED.query(&request(&text, time));
        prop_assert!(started.elapsed() < Duration::from_secs(5), "{text}");
    }
}
