//! `info`: labels of info series, joined to series of the same instance and job.

use hashbrown::{HashMap, HashSet};
use millrace_model::{Labels, METRIC_NAME, Matcher};

use crate::QueryError;

use super::ast::{Edges, Expr, ExprKind, TimeShift};
use super::block::{Block, Grid, Meta, is_absent, same_labelset};
use super::eval::Evaluator;
use super::labels::Scratch;
use super::leaf::{Input, Kernel, Leaf, View};

type Result<T> = std::result::Result<T, QueryError>;

/// The metric that is joined where none is named.
const TARGET_INFO: &str = "target_info";

/// The labels that say which info series belongs to a series.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// Values of [`IDENTIFYING`]; empty where there is none.
type Identity = [String; 2];

fn identity(labels: &Labels) -> Identity {
    IDENTIFYING.map(|name| labels.get(name).unwrap_or_default().to_owned())
}

fn execution<T>(message: impl Into<String>) -> Result<T> {
    Err(QueryError::Execution(message.into()))
}

impl Evaluator<'_> {
    pub(super) fn info(&self, args: &[Expr], grid: Grid) -> Result<Block> {
        let base = self.vector(&args[0], grid)?;
        let mut matchers: &[Matcher] = &[];
        if let Some(Expr {
            kind: ExprKind::Vector(selector),
            ..
        }) = args.get(1)
        {
            matchers = &selector.matchers;
        }
        let (names, data): (Vec<Matcher>, Vec<Matcher>) = matchers
            .iter()
            .cloned()
            .partition(|m| m.name() == METRIC_NAME);
        let names = match names.is_empty() {
            true => vec![Matcher::equal(METRIC_NAME, TARGET_INFO)],
            false => names,
        };
        let shift = first_shift(&args[0]).cloned().unwrap_or_default();
        // Info series themselves are passed on as they are.
        let plain: Vec<bool> = base
            .series
            .iter()
            .map(|meta| {
                let name = meta.labels.metric_name().unwrap_or_default();
                names.iter().all(|m| m.matches(name))
            })
            .collect();
        let info = self.info_series(&base, &plain, &names, &data, &shift, grid)?;
        let mut join = Join {
            data: &data,
            base: &base,
            info,
            out: Block::new(grid.steps, self.budget),
            rows: HashMap::new(),
            scratch: Scratch::default(),
        };
        for (index, plain) in plain.iter().enumerate() {
            self.budget.check()?;
            join.series(index, *plain)?;
        }
        join.out.compact();
        Ok(join.out)
    }

    /// The info series that may match, each with the times of its samples.
    fn info_series(
        &self,
        base: &Block,
        plain: &[bool],
        names: &[Matcher],
        data: &[Matcher],
        shift: &TimeShift,
        grid: Grid,
    ) -> Result<Vec<Info>> {
        let wanted: HashSet<Identity> = base
            .series
            .iter()
            .zip(plain)
            .filter(|(_, plain)| !**plain)
            .map(|(meta, _)| identity(&meta.labels))
            .filter(|identity| identity.iter().any(|v| !v.is_empty()))
            .collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut matchers: Vec<Matcher> = names.iter().chain(data).cloned().collect();
        for (at, name) in IDENTIFYING.iter().enumerate() {
            // With one value, the index can find it; with many, a pattern would grow too long.
            let mut values = wanted.iter().map(|identity| &identity[at]);
            let first = values.next().cloned().unwrap_or_default();
            if !first.is_empty() && values.all(|v| *v == first) {
                matchers.push(Matcher::equal(*name, first));
            }
        }
        let view = View {
            grid,
            at: shift.at_ms,
            offset: shift.offset_ms,
            lookback: self.lookback,
            range: 0,
            edges: Edges::Plain,
        };
        let Input::Stored(series, lease) = self.select(&matchers, &view)? else {
            return Ok(Vec::new());
        };
        let mut series: Vec<_> = series
            .into_iter()
            .filter(|series| wanted.contains(&identity(series.labels())))
            .collect();
        series.sort_by(|a, b| a.labels().cmp(b.labels()));
        let leaf = Leaf {
            input: Input::Stored(series, lease),
            view,
            kernel: Kernel::Instant { timestamps: true },
            drops_name: false,
            counter: None,
            digested: None,
        };
        let block = self.collect(&leaf)?;
        Ok(block
            .rows()
            .map(|(meta, row)| Info {
                labels: meta.labels.clone(),
                metric: meta.labels.metric_name().unwrap_or_default().to_owned(),
                identity: identity(&meta.labels),
                times: row.to_vec(),
            })
            .collect())
    }
}

/// `@` and `offset` of the first selector inside: info series are looked up there.
fn first_shift(expr: &Expr) -> Option<&TimeShift> {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => None,
        ExprKind::Vector(selector) => Some(&selector.time),
        ExprKind::Matrix(matrix) => Some(&matrix.selector.time),
        ExprKind::Subquery(subquery) => first_shift(&subquery.expr),
        ExprKind::Call(call) => call.args.iter().find_map(first_shift),
        ExprKind::Aggregate(aggregate) => {
            first_shift(&aggregate.expr).or_else(|| aggregate.param.as_ref().and_then(first_shift))
        }
        ExprKind::Binary(binary) => {
            first_shift(&binary.left).or_else(|| first_shift(&binary.right))
        }
        ExprKind::Negate(inner) | ExprKind::Plus(inner) | ExprKind::Paren(inner) => {
            first_shift(inner)
        }
    }
}

struct Info {
    labels: Labels,
    metric: String,
    identity: Identity,
    /// When its newest sample was taken, in seconds, per step.
    times: Vec<f64>,
}

struct Join<'j> {
    data: &'j [Matcher],
    base: &'j Block,
    info: Vec<Info>,
    out: Block,
    rows: HashMap<Labels, usize>,
    scratch: Scratch,
}

impl Join<'_> {
    fn series(&mut self, index: usize, plain: bool) -> Result<()> {
        let meta = &self.base.series[index];
        let row = self.base.row(index);
        if plain {
            for (step, value) in row.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                self.emit(meta.clone(), step, *value)?;
            }
            return Ok(());
        }
        let ours = identity(&meta.labels);
        let candidates: Vec<usize> = (0..self.info.len())
            .filter(|i| self.info[*i].identity == ours)
            .collect();
        let optional = self.data.iter().all(Matcher::matches_empty);
        // Which info series apply changes seldom: labels are made again only when they do.
        let mut last: Option<(Vec<usize>, Meta)> = None;
        for (step, value) in row.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
            let chosen = self.newest(&candidates, step)?;
            if chosen.is_empty() && !optional {
                continue;
            }
            let enriched = match &last {
                Some((before, enriched)) if *before == chosen => enriched.clone(),
                _ => {
                    let labels = self.enriched(&meta.labels, &chosen)?;
                    let enriched = Meta {
                        labels,
                        drop_name: meta.drop_name,
                    };
                    last = Some((chosen, enriched.clone()));
                    enriched
                }
            };
            self.emit(enriched, step, *value)?;
        }
        Ok(())
    }

    /// The newest info series of each metric at a step.
    fn newest(&self, candidates: &[usize], step: usize) -> Result<Vec<usize>> {
        let mut chosen: Vec<usize> = Vec::new();
        for &index in candidates {
            let info = &self.info[index];
            let time = info.times[step];
            if is_absent(time) {
                continue;
            }
            let same = chosen
                .iter_mut()
                .find(|other| self.info[**other].metric == info.metric);
            let Some(other) = same else {
                chosen.push(index);
                continue;
            };
            let existing = self.info[*other].times[step];
            if existing == time {
                return execution(format!(
                    "found duplicate series for info metric: existing {} @ {}, new {} @ {}",
                    self.info[*other].labels,
                    existing * 1000.0,
                    info.labels,
                    time * 1000.0,
                ));
            }
            if existing < time {
                *other = index;
            }
        }
        Ok(chosen)
    }

    fn enriched(&mut self, base: &Labels, chosen: &[usize]) -> Result<Labels> {
        let mut added: Vec<(&str, &str)> = Vec::new();
        for &index in chosen {
            for (name, value) in &self.info[index].labels {
                let wanted = self.data.is_empty() || self.data.iter().any(|m| m.name() == name);
                if name == METRIC_NAME || !wanted {
                    continue;
                }
                if let Some((_, other)) = added.iter().find(|(n, _)| *n == name)
                    && *other != value
                {
                    return execution(format!("conflicting label: {name}"));
                }
                if base.get(name).is_none() && !added.iter().any(|(n, _)| *n == name) {
                    added.push((name, value));
                }
            }
        }
        Ok(self.scratch.with_all(base, added))
    }

    fn emit(&mut self, meta: Meta, step: usize, value: f64) -> Result<()> {
        let row = match self.rows.get(&meta.labels) {
            Some(row) => *row,
            None => {
                self.out.reserve(1)?;
                let labels = meta.labels.clone();
                let row = self.out.push_absent(meta);
                self.rows.insert(labels, row);
                row
            }
        };
        let cell = &mut self.out.row_mut(row)[step];
        if !is_absent(*cell) {
            return Err(same_labelset());
        }
        *cell = value;
        Ok(())
    }
}
