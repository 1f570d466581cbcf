//! The runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_query::{Engine, EngineOptions, QueryTime};

use crate::compare::{Question, at, difference, given, is_sorted};
use crate::data;
use crate::expr::Expr;
use crate::generate::Generator;
use crate::random::Random;

/// Queries of the ordinary run.
const QUERIES: usize = 50_000;
/// Queries over the same series.
const QUERIES_PER_DATA_SET: usize = 50;
/// Differences that are printed.
const SHOWN: usize = 10;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{name}={text:?}: {error}")),
    )
}

fn fresh_seed() -> u64 {
    // The hasher's keys are random in every process.
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) >> 1
}

#[derive(Default)]
struct Tally {
    asked: usize,
    with_data: usize,
    refused: usize,
    parts: BTreeMap<String, usize>,
    differences: Vec<String>,
}

#[test]
fn the_engine_answers_as_the_definition_says() {
    let seed = setting("MILLRACE_SEED").unwrap_or_else(fresh_seed);
    let queries = setting("MILLRACE_QUERIES").map_or(QUERIES, |n| n as usize);
    println!("MILLRACE_SEED={seed} MILLRACE_QUERIES={queries}");
    let mut tally = Tally::default();
    let mut random = Random::new(seed);
    while tally.asked < queries {
        let set = data::generate(&mut random);
        let engine = Engine::new(Arc::new(set.table()), EngineOptions::default());
        for _ in 0..QUERIES_PER_DATA_SET.min(queries - tally.asked) {
            let mut generator = Generator {
                random: &mut random,
                base: set.base,
            };
            let (expr, question) = ask(&mut generator);
            tally.asked += 1;
            expr.walk(&mut |part| tally.count_part(part));
            let expected = question.expected(&expr, &set.data);
            let answer = engine.query(&question.request(&expr)).map(|outcome| {
                assert!(is_sorted(&expr, &outcome), "{expr}: {outcome:?}");
                given(outcome)
            });
            match &expected {
                Ok(expected) => tally.with_data += usize::from(!expected.is_empty()),
                Err(_) => tally.refused += 1,
            }
            if let Some(words) = difference(&expr, &expected, &answer) {
                tally.differences.push(format!(
                    "query {} of MILLRACE_SEED={seed}: {expr}\n  {question:?}\n  {words}",
                    tally.asked
                ));
            }
        }
    }
    println!(
        "{} queries: {} with an answer that is not empty, {} that are refused, {} that differ",
        tally.asked,
        tally.with_data,
        tally.refused,
        tally.differences.len()
    );
    println!("parts: {:?}", tally.parts);
    for words in tally.differences.iter().take(SHOWN) {
        println!("{words}\n");
    }
    assert!(tally.differences.is_empty(), "see above");
    // A run that asks for nothing shows nothing.
    assert!(
        tally.with_data * 3 > tally.asked,
        "too few answers with data"
    );
    assert!(tally.refused * 5 < tally.asked, "too many refusals");
}

impl Tally {
    fn count_part(&mut self, expr: &Expr) {
        let part = match expr {
            Expr::Number(_) | Expr::Text(_) | Expr::Selector(_) => return,
            Expr::Range(..) => "[range]",
            Expr::Subquery { .. } => "[sub:query]",
            Expr::Call(name, _) => name,
            Expr::Aggregate { op, .. } | Expr::Binary { op, .. } => op,
            Expr::Negate(_) => "negation",
        };
        *self.parts.entry(part.to_owned()).or_default() += 1;
    }
}

fn ask(generator: &mut Generator<'_>) -> (Expr, Question) {
    let start = generator.moment();
    let lookback_ms = *generator
        .random
        .pick(&[None, None, None, Some(30_000), Some(15_000)]);
    let (expr, time) = match generator.random.below(12) {
        0 => (generator.window(), QueryTime::Instant(at(start))),
        1..=4 => (generator.query(), QueryTime::Instant(at(start))),
        _ => {
            let step_ms = *generator
                .random
                .pick(&[1_000, 15_000, 30_000, 60_000, 77_777]);
            let steps = generator.random.between(0, 15);
            let rest = generator.random.between(0, step_ms - 1);
            let time = QueryTime::Range {
                start: at(start),
                end: at(start + steps * step_ms + rest),
                step_ms,
            };
            (generator.query(), time)
        }
    };
    let question = Question { time, lookback_ms };
    (expr, question)
}
