//! An expression as text again: on one line, and in the layout of `format_query`.
//!
//! The rules are Prometheus's: one line of at most 100 bytes stays one; a longer node is broken,
//! its operands two spaces further in. Names and literals are written in their usual form, durations
//! with their units, label matchers in order of their text.
//!
//! Chains of operators are as long as they are deep, and are walked in loops.

use std::fmt::Write as _;

use millrace_model::Matcher;

use super::ast::{
    Aggregate, At, Binary, Call, Cardinality, DurationExpr, DurationOp, Edges, Expr, ExprKind,
    Matching, MatrixSelector, Selector, Subquery, TimeShift, ValueType,
};
use super::text::{format_f, format_g, quote};

/// Longest line that is not broken, in bytes.
const LINE_BYTES: usize = 100;

/// The layout of `expr`, which was read from `text` and not resolved yet.
pub(super) fn layout(expr: &Expr, text: &str) -> String {
    Printer { text }.pretty(expr, 0)
}

/// `expr` on one line, however long.
pub(super) fn on_one_line(expr: &Expr, text: &str) -> String {
    Printer { text }.line(expr)
}

/// Whether a number is written as a duration in the text that it was read from.
pub(super) fn is_duration(expr: &Expr, text: &str) -> bool {
    let written = text.get(expr.pos.start..expr.pos.end).unwrap_or_default();
    let unsigned = written.trim_start_matches(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let is_hex = unsigned.len() > 1 && unsigned.as_bytes()[1].eq_ignore_ascii_case(&b'x');
    let unit = unsigned.ends_with(['y', 'w', 'd', 'h', 'm', 's']);
    unsigned.starts_with(|c: char| c.is_ascii_digit()) && !is_hex && unit
}

/// A duration of so many seconds that was written as one number, with a sign or without, and
/// whether it has units; `None` if it must be computed.
pub(super) fn literal(duration: &DurationExpr) -> Option<(f64, bool)> {
    match duration {
        DurationExpr::Number(seconds) => Some((*seconds, false)),
        DurationExpr::Units(seconds) => Some((*seconds, true)),
        DurationExpr::Paren(inner) => literal(inner),
        DurationExpr::Negate(inner) => literal(inner).map(|(seconds, units)| (-seconds, units)),
        DurationExpr::Step | DurationExpr::Range | DurationExpr::Binary(..) => None,
    }
}

/// Milliseconds of a literal, as Go makes them of seconds.
pub(super) fn literal_ms(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64 / 1_000_000
}

/// The vector matching that an operation has, once both sides are vectors.
pub(super) fn matching(binary: &Binary) -> Option<&Matching> {
    let is_vector = |side: &Expr| side.value_type() == ValueType::Vector;
    (is_vector(&binary.right) && is_vector(&binary.left)).then_some(&binary.matching)
}

/// The operations of a chain, innermost first, and its first operand.
pub(super) fn chain(expr: &Expr) -> (&Expr, Vec<&Binary>) {
    let mut nodes = Vec::new();
    let mut first = expr;
    while let ExprKind::Binary(node) = &first.kind {
        nodes.push(&**node);
        first = &node.left;
    }
    nodes.reverse();
    (first, nodes)
}

pub(super) fn op_word(op: DurationOp) -> &'static str {
    match op {
        DurationOp::Add => "+",
        DurationOp::Sub => "-",
        DurationOp::Mul => "*",
        DurationOp::Div => "/",
        DurationOp::Mod => "%",
        DurationOp::Pow => "^",
        DurationOp::Min => "min_of",
        DurationOp::Max => "max_of",
    }
}

struct Printer<'t> {
    text: &'t str,
}

impl Printer<'_> {
    fn pretty(&self, expr: &Expr, level: usize) -> String {
        let margin = "  ".repeat(level);
        if let ExprKind::Binary(_) = &expr.kind {
            return self.pretty_chain(expr, level);
        }
        let line = self.line(expr);
        let broken = line.len() > LINE_BYTES;
        match &expr.kind {
            ExprKind::Aggregate(aggregate) if broken => {
                let param = match &aggregate.param {
                    Some(param) => format!("{},\n", self.pretty(param, level + 1)),
                    None => String::new(),
                };
                let inner = self.pretty(&aggregate.expr, level + 1);
                format!("{margin}{}(\n{param}{inner}\n{margin})", head(aggregate))
            }
            ExprKind::Call(call) if broken => {
                let args: Vec<_> = call
                    .args
                    .iter()
                    .map(|arg| self.pretty(arg, level + 1))
                    .collect();
                let args = args.join(",\n");
                format!("{margin}{}(\n{args}\n{margin})", call.function.name)
            }
            ExprKind::Paren(inner) if broken => {
                format!("{margin}(\n{}\n{margin})", self.pretty(inner, level + 1))
            }
            ExprKind::Subquery(subquery) if broken => {
                format!("{}{}", self.pretty(&subquery.expr, level), suffix(subquery))
            }
            // Never indented, as in Prometheus.
            ExprKind::Subquery(_) => line,
            ExprKind::Negate(inner) => format!("{margin}-{}", self.pretty(inner, level).trim()),
            ExprKind::Plus(inner) => format!("{margin}+{}", self.pretty(inner, level).trim()),
            ExprKind::Aggregate(_)
            | ExprKind::Call(_)
            | ExprKind::Paren(_)
            | ExprKind::Number(_)
            | ExprKind::String(_)
            | ExprKind::Vector(_)
            | ExprKind::Matrix(_)
            | ExprKind::Binary(_) => margin + &line,
        }
    }

    /// Each operation that is too long puts its operator on a line of its own, and is indented
    /// less than the one that it contains.
    fn pretty_chain(&self, expr: &Expr, level: usize) -> String {
        let (first, nodes) = chain(expr);
        // An operation's text begins with that of its left side, so all are prefixes of one.
        let mut line = self.line(first);
        let mut ends = vec![line.len()];
        for node in &nodes {
            self.push_operation(&mut line, node);
            ends.push(line.len());
        }
        let short = (1..ends.len())
            .rev()
            .find(|i| ends[*i] <= LINE_BYTES)
            .unwrap_or(0);
        let inner_level = level + nodes.len() - short;
        let mut out = match short {
            0 => self.pretty(first, inner_level),
            short => "  ".repeat(inner_level) + &line[..ends[short]],
        };
        for (i, node) in nodes.iter().enumerate().skip(short) {
            let level = level + nodes.len() - 1 - i;
            let margin = "  ".repeat(level);
            let right = self.pretty(&node.right, level + 1);
            put(
                &mut out,
                format_args!("\n{margin}{}\n{right}", operator(node)),
            );
        }
        out
    }

    fn line(&self, expr: &Expr) -> String {
        let mut out = String::new();
        self.push(&mut out, expr);
        out
    }

    fn push(&self, out: &mut String, expr: &Expr) {
        match &expr.kind {
            ExprKind::Number(value) if is_duration(expr, self.text) => {
                push_duration(out, literal_ms(*value));
            }
            ExprKind::Number(value) => out.push_str(&format_f(*value)),
            ExprKind::String(value) => out.push_str(&value.quoted()),
            ExprKind::Vector(selector) => push_selector(out, selector),
            ExprKind::Matrix(matrix) => push_matrix(out, matrix),
            ExprKind::Subquery(subquery) => {
                self.push(out, &subquery.expr);
                out.push_str(&suffix(subquery));
            }
            ExprKind::Call(call) => self.push_call(out, call),
            ExprKind::Aggregate(aggregate) => {
                out.push_str(&head(aggregate));
                out.push('(');
                if let Some(param) = &aggregate.param {
                    self.push(out, param);
                    out.push_str(", ");
                }
                self.push(out, &aggregate.expr);
                out.push(')');
            }
            ExprKind::Binary(_) => {
                let (first, nodes) = chain(expr);
                self.push(out, first);
                for node in nodes {
                    self.push_operation(out, node);
                }
            }
            ExprKind::Negate(inner) => {
                out.push('-');
                self.push(out, inner);
            }
            ExprKind::Plus(inner) => {
                out.push('+');
                self.push(out, inner);
            }
            ExprKind::Paren(inner) => {
                out.push('(');
                self.push(out, inner);
                out.push(')');
            }
        }
    }

    fn push_operation(&self, out: &mut String, binary: &Binary) {
        put(out, format_args!(" {} ", operator(binary)));
        self.push(out, &binary.right);
    }

    fn push_call(&self, out: &mut String, call: &Call) {
        out.push_str(call.function.name);
        out.push('(');
        for (i, arg) in call.args.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            self.push(out, arg);
        }
        out.push(')');
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes every write");
}

/// The operator with its modifiers.
fn operator(binary: &Binary) -> String {
    let mut out = binary.op.as_str().to_owned();
    if binary.return_bool {
        out.push_str(" bool");
    }
    let Some(matching) = matching(binary) else {
        return out;
    };
    let side = match matching.cardinality {
        Cardinality::OneToOne => None,
        Cardinality::ManyToOne => Some("left"),
        Cardinality::OneToMany => Some("right"),
    };
    if !matching.labels.is_empty() || matching.on || side.is_some() {
        let word = if matching.on { "on" } else { "ignoring" };
        put(
            &mut out,
            format_args!(" {word} ({})", names(&matching.labels)),
        );
    }
    if let Some(side) = side {
        let include = names(&matching.include);
        put(&mut out, format_args!(" group_{side} ({include})"));
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left == right => {
            put(&mut out, format_args!(" fill ({})", shown(left)));
        }
        (left, right) => {
            for (word, value) in [("fill_left", left), ("fill_right", right)] {
                if let Some(value) = value {
                    put(&mut out, format_args!(" {word} ({})", shown(value)));
                }
            }
        }
    }
    out
}

/// `%v` of Go.
fn shown(value: f64) -> String {
    match value.abs() {
        size if (1e-4..1e21).contains(&size) => format_f(value),
        _ => format_g(value),
    }
}

/// The operation of an aggregation, and what it groups by.
fn head(aggregate: &Aggregate) -> String {
    let (op, grouping) = (aggregate.op.as_str(), &aggregate.grouping);
    match (grouping.without, grouping.labels.is_empty()) {
        (true, _) => format!("{op} without ({}) ", names(&grouping.labels)),
        (false, true) => op.to_owned(),
        (false, false) => format!("{op} by ({}) ", names(&grouping.labels)),
    }
}

fn names(labels: &[String]) -> String {
    let shown: Vec<_> = labels.iter().map(|name| label_name(name)).collect();
    shown.join(", ")
}

/// In quotes unless it is an identifier.
fn label_name(name: &str) -> String {
    let plain = !name.is_empty()
        && name
            .char_indices()
            .all(|(i, c)| c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit()));
    match plain {
        true => name.to_owned(),
        false => quote(name),
    }
}

fn push_series(out: &mut String, selector: &Selector) {
    let (name, others) = match (&selector.name, selector.matchers.split_last()) {
        // The last one is the name itself.
        (Some(name), Some((_, others))) => (name.as_str(), others),
        _ => ("", &selector.matchers[..]),
    };
    out.push_str(name);
    if others.is_empty() {
        return;
    }
    let mut shown: Vec<_> = others.iter().map(matcher).collect();
    shown.sort();
    put(out, format_args!("{{{}}}", shown.join(",")));
}

fn matcher(matcher: &Matcher) -> String {
    format!(
        "{}{}{}",
        label_name(matcher.name()),
        matcher.op().as_str(),
        quote(matcher.value())
    )
}

fn edges(edges: Edges) -> &'static str {
    match edges {
        Edges::Plain => "",
        Edges::Anchored => " anchored",
        Edges::Smoothed => " smoothed",
    }
}

fn push_selector(out: &mut String, selector: &Selector) {
    push_series(out, selector);
    push_at(out, &selector.time);
    out.push_str(edges(selector.edges));
    push_offset(out, &selector.time);
}

fn push_matrix(out: &mut String, matrix: &MatrixSelector) {
    push_series(out, &matrix.selector);
    put(out, format_args!("[{}]", duration(&matrix.range)));
    out.push_str(edges(matrix.selector.edges));
    push_at(out, &matrix.selector.time);
    push_offset(out, &matrix.selector.time);
}

/// What stands behind the expression of a subquery.
fn suffix(subquery: &Subquery) -> String {
    let step = subquery.step.as_ref().map(duration).unwrap_or_default();
    let mut out = format!("[{}:{step}]", duration(&subquery.range));
    push_at(&mut out, &subquery.time);
    push_offset(&mut out, &subquery.time);
    out
}

fn push_at(out: &mut String, time: &TimeShift) {
    match time.at {
        None => {}
        Some(At::Time(ms)) => put(out, format_args!(" @ {:.3}", ms as f64 / 1000.0)),
        Some(At::Start) => out.push_str(" @ start()"),
        Some(At::End) => out.push_str(" @ end()"),
    }
}

fn push_offset(out: &mut String, time: &TimeShift) {
    let Some(offset) = &time.offset else { return };
    // One of no time is none.
    if literal(offset).is_none_or(|(seconds, _)| literal_ms(seconds) != 0) {
        put(out, format_args!(" offset {}", duration(offset)));
    }
}

/// A duration where one must stand: a literal gets units even where it was written without.
fn duration(duration: &DurationExpr) -> String {
    let mut out = String::new();
    match literal(duration) {
        Some((seconds, _)) => push_duration(&mut out, literal_ms(seconds)),
        None => push_computed(&mut out, duration),
    }
    out
}

fn push_computed(out: &mut String, duration: &DurationExpr) {
    if let Some((seconds, units)) = literal(duration) {
        match units {
            true => push_duration(out, literal_ms(seconds)),
            false => out.push_str(&format_f(seconds)),
        }
        return;
    }
    match duration {
        DurationExpr::Number(_) | DurationExpr::Units(_) => {}
        DurationExpr::Step => out.push_str("step()"),
        DurationExpr::Range => out.push_str("range()"),
        DurationExpr::Negate(inner) => {
            out.push('-');
            push_computed(out, inner);
        }
        DurationExpr::Paren(inner) => {
            // Two pairs of parentheses are one.
            let mut inner = inner;
            while let DurationExpr::Paren(next) = &**inner {
                inner = next;
            }
            out.push('(');
            push_computed(out, inner);
            out.push(')');
        }
        DurationExpr::Binary(op @ (DurationOp::Min | DurationOp::Max), left, right) => {
            put(out, format_args!("{}(", op_word(*op)));
            push_computed(out, left);
            out.push_str(", ");
            push_computed(out, right);
            out.push(')');
        }
        DurationExpr::Binary(op, left, right) => {
            push_computed(out, left);
            put(out, format_args!(" {} ", op_word(*op)));
            push_computed(out, right);
        }
    }
}

/// `1h30m`. Years and weeks only where nothing is left over: `90d` reads better than `12w6d`.
fn push_duration(out: &mut String, ms: i64) {
    const UNITS: [(&str, u64, bool); 7] = [
        ("y", 365 * 86_400_000, true),
        ("w", 7 * 86_400_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1_000, false),
        ("ms", 1, false),
    ];
    if ms == 0 {
        out.push_str("0s");
    }
    if ms < 0 {
        out.push('-');
    }
    let mut left = ms.unsigned_abs();
    for (unit, length, whole) in UNITS {
        let count = left / length;
        if count > 0 && (!whole || left.is_multiple_of(length)) {
            put(out, format_args!("{count}{unit}"));
            left %= length;
        }
    }
}
