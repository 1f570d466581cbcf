//! Queries made out of the metrics that are really there.
//!
//! Every template is filled with metrics of its kind in turn, so that all functions, aggregations,
//! operators and modifiers meet data that nobody made up.

use super::observed::{Kind, Metric};

/// How an answer is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sameness {
    /// Series by series.
    Series,
    /// Values alone, sorted: which of several equal series is chosen is nobody's business.
    Values,
    /// As `Series`, and in an instant query the order of the values counts.
    Order,
}

/// One query.
#[derive(Clone, Debug)]
pub struct Query {
    /// As millrace is asked.
    pub ours: String,
    /// As Prometheus is asked: a function may have had another name.
    pub theirs: String,
    pub sameness: Sameness,
    /// Why an older Prometheus need not know it.
    pub newer: Option<&'static str>,
}

/// `$M` is a metric, `$L` one of its labels, `$V` a value of that label, `$W` a window, `$T` a
/// moment.
const COUNTERS: &[&str] = &[
    "rate($M[$W])",
    "increase($M[$W])",
    "irate($M[$W])",
    "resets($M[$W])",
    "changes($M[$W])",
    "delta($M[$W])",
    "rate($M[$W] offset 10s)",
    "rate($M[$W] offset -4s)",
    "rate($M[$W] @ $T)",
    "increase($M[$W] @ start())",
    "rate($M[$W] @ end() offset 5s)",
    "sum by ($L) (rate($M[$W]))",
    "sum without ($L) (rate($M[$W]))",
    "avg by ($L) (rate($M[$W]))",
    "max by ($L) (irate($M[$W]))",
    "min without ($L) (increase($M[$W]))",
    "count by ($L) (rate($M[$W]) > 0)",
    "stddev by ($L) (rate($M[$W]))",
    "stdvar(rate($M[$W]))",
    "group by ($L) ($M)",
    "quantile by ($L) (0.9, rate($M[$W]))",
    "quantile(0.25, rate($M[$W]))",
    "max_over_time(rate($M[$W])[30s:5s])",
    "avg_over_time(sum by ($L) (rate($M[$W]))[20s:4s] offset 3s)",
    "min_over_time(irate($M[$W])[15s:3s] @ $T)",
    "sum_over_time(increase($M[$W])[20s:7s])",
    "deriv(rate($M[$W])[20s:2s])",
    "rate($M[$W]) / on ($L) group_left sum by ($L) (rate($M[$W]))",
    "sum by ($L) (rate($M[$W])) / ignoring ($L) group_left sum(rate($M[$W]))",
    "sum by ($L) (rate($M[$W])) * on ($L) group_right $M",
    "rate($M[$W]) > bool 0",
    "rate($M[$W]) >= 0.5",
    "rate($M[$W]) != 0",
    "$M{$L=\"$V\"} and rate($M[$W]) > 0",
    "$M unless $M{$L=\"$V\"}",
    "rate($M{$L=\"$V\"}[$W]) or rate($M{$L!=\"$V\"}[$W])",
    "sum(rate($M{$L=~\"$V|nothing\"}[$W])) by ($L)",
    "count($M{$L!~\"$V\"})",
    "absent($M{$L=\"nothing\"})",
    "absent_over_time($M{$L=\"nothing\"}[$W])",
    "-rate($M[$W])",
    "rate($M[$W]) ^ 0.5",
    "rate($M[$W]) % 0.3",
    "2 ^ 3 ^ 0.5 * sum(rate($M[$W]))",
    "scalar(sum(rate($M[$W]))) + vector(1)",
    "label_replace(rate($M[$W]), \"copy\", \"x-$1\", \"$L\", \"(.).*\")",
    "label_join(rate($M[$W]), \"joined\", \"/\", \"job\", \"$L\")",
    "sum by (joined) (label_join($M, \"joined\", \"-\", \"$L\", \"instance\"))",
];

const GAUGES: &[&str] = &[
    "$M",
    "$M{$L=\"$V\"}",
    "$M offset 20s",
    "$M @ $T",
    "$M @ end()",
    "avg_over_time($M[$W])",
    "sum_over_time($M[$W])",
    "min_over_time($M[$W])",
    "max_over_time($M[$W])",
    "count_over_time($M[$W])",
    "last_over_time($M[$W])",
    "present_over_time($M[$W])",
    "stddev_over_time($M[$W])",
    "stdvar_over_time($M[$W])",
    "quantile_over_time(0.75, $M[$W])",
    "quantile_over_time(0, $M[$W])",
    "delta($M[$W])",
    "idelta($M[$W])",
    "deriv($M[$W])",
    "predict_linear($M[$W], 60)",
    "changes($M[$W])",
    "max_over_time($M[40s:5s])",
    "quantile_over_time(0.5, $M[30s:3s])",
    "avg by (job) ($M)",
    "sum without (instance) ($M)",
    "max($M) by ($L)",
    "min($M)",
    // Of moments, far from zero and near each other, the order in which series are added decides on the last digits.
    "stddev($M % 1000)",
    "count_values by (job) (\"value\", $M)",
    "abs(delta($M[$W]))",
    "ceil($M / 7)",
    "floor($M / 7)",
    "round($M / 7, 0.5)",
    "sqrt(abs($M))",
    "ln($M + 1)",
    "log2($M + 1)",
    "log10($M + 1)",
    "exp(-abs($M) / (abs($M) + 1))",
    "sgn(deriv($M[$W]))",
    "clamp($M, 1, 1000)",
    "clamp_min($M, 3)",
    "clamp_max($M, 3)",
    "sin($M % 7)",
    "cos($M % 7)",
    "tan($M % 1)",
    "asin($M % 1)",
    "acos($M % 1)",
    "atan($M)",
    "sinh($M % 3)",
    "cosh($M % 3)",
    "tanh($M % 3)",
    "asinh($M)",
    "acosh(abs($M) + 1)",
    "atanh($M % 1 / 2)",
    "deg($M % 7)",
    "rad($M)",
    "sum by ($L) ($M atan2 7)",
    "timestamp($M)",
    "time() - timestamp($M)",
    "minute($M)",
    "hour($M)",
    "day_of_week($M)",
    "day_of_month($M)",
    "day_of_year($M)",
    "days_in_month($M)",
    "month($M)",
    "year($M)",
    "scalar(max($M))",
    "vector(scalar(min($M))) or $M",
    "absent($M)",
    "$M == $M",
    "$M == bool ($M offset 10s)",
    "$M > on ($L, instance, job) ($M offset 30s)",
    "($M + 1) / (abs($M) + 1)",
    "max($M) without () * 2",
    "histogram_quantile(0.5, $M)",
    "sum_over_time((count by (job) ($M))[20s:4s])",
];

const HISTOGRAMS: &[&str] = &[
    "histogram_quantile(0.9, rate($M_bucket[$W]))",
    "histogram_quantile(0.5, sum by (le) (rate($M_bucket[$W])))",
    "histogram_quantile(0.99, sum by (le, job) ($M_bucket))",
    "histogram_quantile(1, $M_bucket)",
    "histogram_quantile(0, $M_bucket)",
    "histogram_quantile(0.3, sum without (instance) (increase($M_bucket[$W])))",
    "rate($M_sum[$W]) / rate($M_count[$W])",
    "sum by (le) (rate($M_bucket[$W]))",
    "$M_bucket / ignoring (le) group_left $M_count",
    "max_over_time(histogram_quantile(0.9, rate($M_bucket[$W]))[20s:5s])",
    "rate($M_bucket{le=\"+Inf\"}[$W]) == ignoring (le) rate($M_count[$W])",
    "sum($M_bucket) by (le) - ignoring (le) group_left sum($M_count)",
];

// Prometheus 2 keeps the metric's name behind `atan2`, alone among all operators; a sum hides it.

/// Which of several equal series comes first is not said.
const TIED: &[(Kind, &str)] = &[
    (Kind::Counter, "topk(3, rate($M[$W]))"),
    (Kind::Counter, "bottomk(2, rate($M[$W]))"),
    (Kind::Counter, "topk by ($L) (1, $M)"),
    (Kind::Gauge, "topk(2, $M)"),
    (Kind::Gauge, "bottomk without (job) (1, $M)"),
];

const ORDERED: &[(Kind, &str)] = &[
    (Kind::Counter, "sort(sum by ($L) ($M))"),
    (Kind::Counter, "sort_desc($M)"),
    (Kind::Gauge, "sort(max by ($L) ($M))"),
    (Kind::Gauge, "sort_desc(avg_over_time($M[$W]))"),
];

const NO_METRIC: &[&str] = &[
    "time()",
    "vector(time()) % 60",
    "pi() * 2",
    "1 + 2 * 3 ^ 2 % 5",
    "1 / 0",
    "-1 / 0",
    "0 / 0",
    "minute()",
    "hour(vector(0))",
    "day_of_year(vector(1e9))",
    "count by (job) (up)",
    "up == 1 and on (job) up{job=\"node\"}",
    "sum(up) / count(up)",
    "count({job=\"node\"})",
    "count by (__name__) ({job=\"node\", __name__=~\"node_cpu.*\"})",
    "max_over_time(up[30s]) * on (instance) group_left (job) up",
    "absent(nothing_of_this_name)",
    "absent(nothing{a=\"b\", c=\"d\"})",
    "nothing_of_this_name",
    "sum(nothing_of_this_name)",
    "vector(1) == vector(1)",
    "\"a text\"",
];

/// Both must refuse these, for the same kind of reason.
pub const REFUSED: &[&str] = &[
    "up +",
    "rate(up)",
    "rate(up[5m]",
    "sum by (job (up)",
    "up[5m]",
    "{}",
    "{job=~\".*\"}",
    "up{job=~\"(\"}",
    "unknown_function(up)",
    "up offset job",
    "label_replace(up, \"\", \"x\", \"job\", \".*\")",
    "up + on (instance) group_left up * on () up",
    "{job=\"node\"} * on (job) {job=\"node\"}",
    "rate({job=\"node\"}[30s])",
    "topk(\"a\", up)",
    "1 + \"a\"",
    "up[30s:5s] + 1",
];

const NEWER: &[(&str, &str)] = &[
    ("limitk(2, $M)", "limitk is younger"),
    ("limit_ratio(0.5, $M)", "limit_ratio is younger"),
    ("mad_over_time($M[$W])", "mad_over_time is younger"),
    ("first_over_time($M[$W])", "first_over_time is younger"),
    (
        "ts_of_max_over_time($M[$W])",
        "ts_of_max_over_time is younger",
    ),
    (
        "ts_of_last_over_time($M[$W])",
        "ts_of_last_over_time is younger",
    ),
    ("sort_by_label($M, \"$L\")", "sort_by_label is younger"),
    (
        "sort_by_label_desc($M, \"$L\")",
        "sort_by_label_desc is younger",
    ),
    (
        "max_over_time($M[2 * 10s])",
        "arithmetic in durations is younger",
    ),
    ("rate($M[$W] smoothed)", "smoothed is younger"),
    ("increase($M[$W] anchored)", "anchored is younger"),
    (
        "$M + on (instance) group_left fill(0) up",
        "fill is younger",
    ),
    ("info($M)", "info is younger"),
];

/// All queries over these metrics.
pub fn corpus(metrics: &[Metric], moment: &str) -> Vec<Query> {
    let mut filler = Filler {
        metrics,
        moment,
        next: 0,
        queries: Vec::new(),
    };
    for (kind, templates, rounds) in [
        (Kind::Counter, COUNTERS, 4),
        (Kind::Gauge, GAUGES, 4),
        (Kind::Histogram, HISTOGRAMS, 4),
    ] {
        for template in templates {
            filler.add(kind, template, rounds, Sameness::Series, None);
        }
    }
    for (kind, template) in TIED {
        filler.add(*kind, template, 3, Sameness::Values, None);
    }
    for (kind, template) in ORDERED {
        filler.add(*kind, template, 3, Sameness::Order, None);
    }
    for (template, reason) in NEWER {
        filler.add(Kind::Gauge, template, 1, Sameness::Series, Some(reason));
    }
    let mut queries = filler.queries;
    for text in NO_METRIC {
        queries.push(Query::plain(text, Sameness::Series));
    }
    // A function with an older name: the same sums.
    for metric in metrics.iter().filter(|m| m.kind == Kind::Gauge).take(4) {
        let rest = format!("({}[40s], 0.3, 0.6)", metric.name);
        queries.push(Query {
            ours: format!("double_exponential_smoothing{rest}"),
            theirs: format!("holt_winters{rest}"),
            sameness: Sameness::Series,
            newer: Some("double_exponential_smoothing was holt_winters"),
        });
    }
    queries
}

impl Query {
    /// Asked of both in the same words, which both know.
    pub fn plain(text: &str, sameness: Sameness) -> Self {
        Self {
            ours: text.to_owned(),
            theirs: text.to_owned(),
            sameness,
            newer: None,
        }
    }
}

struct Filler<'m> {
    metrics: &'m [Metric],
    moment: &'m str,
    next: usize,
    queries: Vec<Query>,
}

impl Filler<'_> {
    /// Fills a template with the next metrics of the kind.
    fn add(
        &mut self,
        kind: Kind,
        template: &str,
        rounds: usize,
        sameness: Sameness,
        newer: Option<&'static str>,
    ) {
        const WINDOWS: [&str; 4] = ["20s", "7s", "45s", "11s"];
        let fitting: Vec<&Metric> = self
            .metrics
            .iter()
            .filter(|m| m.kind == kind && (!template.contains("$L") || m.label.is_some()))
            .collect();
        for _ in 0..rounds.min(fitting.len()) {
            let metric = fitting[self.next % fitting.len()];
            let (label, value) = metric.label.clone().unwrap_or_default();
            let text = template
                .replace("$M", &metric.name)
                .replace("$L", &label)
                .replace("$V", &value)
                .replace("$W", WINDOWS[self.next % WINDOWS.len()])
                .replace("$T", self.moment);
            self.next += 1;
            self.queries.push(Query {
                newer,
                ..Query::plain(&text, sameness)
            });
        }
    }
}
