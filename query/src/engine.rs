//! The PromQL engine.
//!
//! Text is bounded and parsed by [`parser`] (our own, because annotations and errors name
//! positions and because durations may be expressions, which no parser crate gives), resolved
//! against the query's times, and evaluated column by column: a node's value is a table of series
//! and steps, computed for all steps at once. Labels are worked on once per series. Leaves
//! (selectors and functions of ranges) turn series into rows one by one, in parallel, and
//! aggregations of them keep only their groups.
//!
//! **Invariants**
//! - Storage is reached through [`SeriesSource`] alone.
//! - Nothing recursive sees text that is over the bounds of [`EngineOptions`].
//! - The same query over the same data gives the same bits, whatever the number of threads: work
//!   is cut into chunks of a fixed size, and their results are joined in order.
//! - Every loop over samples asks for deadline and cancellation within some ten thousand samples.

mod aggregate;
mod ast;
mod binary;
mod block;
mod budget;
mod call;
mod check;
mod date;
mod digest;
mod eval;
mod exec;
mod functions;
mod histogram;
mod info;
mod instantfn;
mod labelfn;
mod labels;
mod leaf;
mod lex;
mod limits;
mod matching;
mod math;
mod notes;
mod options;
mod outline;
mod parser;
mod print;
mod rangefn;
mod ranked;
mod rate;
mod resolve;
mod spans;
mod text;
mod tree;
mod watch;

use std::sync::Arc;
use std::time::Instant;

use millrace_model::{Matcher, TimestampMs};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{
    QueryError, QueryOutcome, QueryRequest, QueryStats, QueryTime, ReadContext, ScopedSource,
    SeriesSource, SourceError,
};

use ast::{Expr, ExprKind, ValueType};
use block::Grid;
use budget::Budget;
use eval::Evaluator;
use lex::SyntaxError;
use limits::TextLimits;
use notes::Notes;
use resolve::QueryTimes;
use watch::StepCounts;

pub use options::EngineOptions;
pub use outline::{Outline, Selection};
pub use watch::{QueryWatch, StatsLevel};

/// Evaluates PromQL over a [`SeriesSource`].
#[derive(Debug)]
pub struct Engine {
    source: Arc<dyn SeriesSource>,
    options: EngineOptions,
    pool: ThreadPool,
}

impl Engine {
    /// An engine with a thread pool of its own.
    ///
    /// # Panics
    ///
    /// If the operating system refuses to start its threads.
    #[must_use]
    pub fn new(source: Arc<dyn SeriesSource>, options: EngineOptions) -> Self {
        let nice = options.nice;
        let pool = ThreadPoolBuilder::new()
            .num_threads(options.threads.max(1))
            .thread_name(|i| format!("query-{i}"))
            .start_handler(move |_| crate::nice::be_nice(nice))
            .build()
            .expect("threads can be started");
        Self {
            source: Arc::new(ScopedSource::new(source)),
            options,
            pool,
        }
    }

    /// What the engine was made with.
    #[must_use]
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Evaluates a query. Blocks until there is an answer: the calling thread evaluates, the
    /// engine's own threads read series for it.
    ///
    /// # Errors
    ///
    /// See [`QueryError`].
    pub fn query(&self, request: &QueryRequest) -> Result<QueryOutcome, QueryError> {
        self.query_watched(request, &QueryWatch::default())
    }

    /// The same, under the eyes of `watch`: it says what is to be counted, and can be asked from
    /// other threads how far the query is.
    ///
    /// # Errors
    ///
    /// See [`QueryError`].
    pub fn query_watched(
        &self,
        request: &QueryRequest,
        watch: &QueryWatch,
    ) -> Result<QueryOutcome, QueryError> {
        let start = Instant::now();
        let (grid, times) = self.grid(request.time)?;
        let mut expr = self.tree(&request.text)?;
        let syntax = |error| syntax_error(&request.text, &error);
        resolve::resolve(&mut expr, &times).map_err(syntax)?;
        check_result_type(&expr, request.time)?;
        let timeout = request.timeout.unwrap_or(self.options.timeout);
        let budget = Budget::new(
            request.cancel.clone(),
            start,
            timeout.min(self.options.timeout),
            self.options.max_samples,
            self.options.max_memory_bytes,
            StepCounts::new(watch.level(), grid),
        );
        let prepared = start.elapsed();
        budget.check()?;
        let notes = Notes::default();
        let lookback = request.lookback.unwrap_or(self.options.lookback);
        let context = Arc::new(
            ReadContext::new(
                request.partial,
                request.cancel.clone(),
                start.checked_add(timeout.min(self.options.timeout)),
            )
            .at(request.point.clone()),
        );
        watch.begin(&budget, &context);
        let evaluator = Evaluator {
            source: &*self.source,
            context: &context,
            tenant: &request.tenant,
            options: &self.options,
            budget: &budget,
            notes: &notes,
            times,
            lookback: i64::try_from(lookback.as_millis()).unwrap_or(i64::MAX),
            pool: &self.pool,
        };
        let value = evaluator.answer(&expr, grid, request.time)?;
        let (mut warnings, infos) = notes.finish(&request.text);
        warnings.extend(context.warnings());
        let (series, samples_read) = budget.totals();
        Ok(QueryOutcome {
            value,
            warnings,
            infos,
            stats: QueryStats {
                series,
                samples_read,
                elapsed: start.elapsed(),
                prepared,
                sorted: budget.sort_time(),
                peak_samples: budget.peak(),
                counts: budget.counts.as_ref().map(StepCounts::result),
            },
        })
    }

    /// An expression in the layout of Prometheus's `format_query`.
    ///
    /// # Errors
    ///
    /// [`QueryError::BadData`], in Prometheus's words.
    pub fn format(&self, text: &str) -> Result<String, QueryError> {
        Ok(print::layout(&self.tree(text)?, text))
    }

    /// An expression as the JSON tree of Prometheus's `parse_query`.
    ///
    /// # Errors
    ///
    /// [`QueryError::BadData`], in Prometheus's words.
    pub fn describe(&self, text: &str) -> Result<serde_json::Value, QueryError> {
        Ok(tree::of(&self.tree(text)?))
    }

    /// Parses and checks an expression, within the engine's bounds, and forgets it.
    ///
    /// # Errors
    ///
    /// [`QueryError::BadData`], in Prometheus's words.
    pub fn check(&self, text: &str) -> Result<(), QueryError> {
        self.tree(text).map(drop)
    }

    /// What an expression is and reads, without evaluating it.
    ///
    /// # Errors
    ///
    /// [`QueryError::BadData`], in Prometheus's words.
    pub fn outline(&self, text: &str) -> Result<Outline, QueryError> {
        let mut expr = self.tree(text)?;
        let line = print::on_one_line(&expr, text);
        let times = QueryTimes {
            start: 0,
            end: 0,
            step: 0,
        };
        resolve::resolve(&mut expr, &times).map_err(|error| syntax_error(text, &error))?;
        let lookback = i64::try_from(self.options.lookback.as_millis()).unwrap_or(i64::MAX);
        Ok(outline::of(&expr, line, lookback))
    }

    /// Parses what `match[]` takes: one series selector, without modifiers.
    ///
    /// # Errors
    ///
    /// [`QueryError::BadData`], in Prometheus's words.
    pub fn parse_selector(&self, text: &str) -> Result<Vec<Matcher>, QueryError> {
        let expr = self.tree(text)?;
        match expr.kind {
            ExprKind::Vector(selector)
                if selector.time.offset.is_none() && selector.time.at.is_none() =>
            {
                Ok(selector.matchers)
            }
            _ => {
                let error = SyntaxError::new(expr.pos.start, "expected a series selector");
                Err(syntax_error(text, &error))
            }
        }
    }

    fn tree(&self, text: &str) -> Result<Expr, QueryError> {
        let limits = TextLimits {
            bytes: self.options.max_query_bytes,
            tokens: self.options.max_tokens,
            depth: self.options.max_depth,
            patterns: self.options.max_patterns,
        };
        parser::parse(text, &limits).map_err(|error| syntax_error(text, &error))
    }

    fn grid(&self, time: QueryTime) -> Result<(Grid, QueryTimes), QueryError> {
        let bad = |message: String| Err(QueryError::BadData(message));
        let (start, end, step) = match time {
            QueryTime::Instant(TimestampMs(at)) => (at, at, 0),
            QueryTime::Range {
                start,
                end,
                step_ms,
            } => (start.0, end.0, step_ms),
        };
        if [start, end].iter().any(|t| t.unsigned_abs() > MAX_TIME_MS) {
            return bad(format!("evaluation time out of range: {start} to {end} ms"));
        }
        if time == QueryTime::Instant(TimestampMs(start)) {
            let times = QueryTimes { start, end, step };
            return Ok((Grid::instant(start), times));
        }
        if step < 1 {
            return bad("zero or negative query resolution step widths are not accepted. Try a positive integer".to_owned());
        }
        if end < start {
            return bad("end timestamp must not be before start time".to_owned());
        }
        let points = (end - start) / step;
        let max = self.options.max_points_per_series;
        if u64::try_from(points).unwrap_or(u64::MAX) > max {
            return bad(format!(
                "exceeded maximum resolution of {max} points per timeseries. Try decreasing the query resolution (?step=XX)"
            ));
        }
        let steps = usize::try_from(points)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let grid = Grid { start, step, steps };
        Ok((grid, QueryTimes { start, end, step }))
    }
}

/// Moments further from the epoch than this (about 146 million years) are refused, so that sums of
/// a moment and a few durations stay inside an i64.
const MAX_TIME_MS: u64 = i64::MAX as u64 / 2;

fn check_result_type(expr: &Expr, time: QueryTime) -> Result<(), QueryError> {
    let QueryTime::Range { .. } = time else {
        return Ok(());
    };
    match expr.value_type() {
        ValueType::Scalar | ValueType::Vector => Ok(()),
        other => Err(QueryError::BadData(format!(
            "invalid expression type {} for range query, must be Scalar or instant Vector",
            text::quote(other.as_str())
        ))),
    }
}

fn syntax_error(text: &str, error: &SyntaxError) -> QueryError {
    let position = match error.at {
        usize::MAX => "unknown position".to_owned(),
        at => notes::position(text, at),
    };
    QueryError::BadData(format!("{position}: parse error: {}", error.message))
}

fn source_error(error: SourceError) -> QueryError {
    let message = error.to_string();
    match error {
        SourceError::DataUnavailable { .. } => QueryError::Internal(message),
        SourceError::Limit { .. } => QueryError::Execution(message),
        SourceError::Unreachable { .. } | SourceError::NotReady { .. } => {
            QueryError::Unavailable(message)
        }
    }
}
