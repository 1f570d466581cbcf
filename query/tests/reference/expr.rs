//! Expressions, and how they are written.

use std::fmt;

/// An expression of PromQL, as far as it is generated.
#[derive(Clone, Debug)]
pub enum Expr {
    Number(f64),
    Text(String),
    Selector(Selector),
    /// A selector with a range in ms.
    Range(Selector, i64),
    Subquery {
        inner: Box<Expr>,
        range_ms: i64,
        /// `None` for the default.
        step_ms: Option<i64>,
        shift: Shift,
    },
    Call(&'static str, Vec<Expr>),
    Aggregate {
        op: &'static str,
        /// (`without` rather than `by`, labels)
        grouping: Option<(bool, Vec<&'static str>)>,
        param: Option<Box<Expr>>,
        inner: Box<Expr>,
    },
    Binary {
        op: &'static str,
        returns_bool: bool,
        matching: Option<Matching>,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    Negate(Box<Expr>),
}

#[derive(Clone, Debug)]
pub struct Selector {
    pub name: Option<&'static str>,
    /// (label, operator, value)
    pub tests: Vec<(&'static str, &'static str, &'static str)>,
    pub shift: Shift,
}

/// `offset` and `@`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shift {
    pub offset_ms: i64,
    pub at: Option<At>,
}

#[derive(Clone, Copy, Debug)]
pub enum At {
    Ms(i64),
    Start,
    End,
}

/// `on (…)` or `ignoring (…)`, and which side may have many.
#[derive(Clone, Debug)]
pub struct Matching {
    pub on: bool,
    pub labels: Vec<&'static str>,
    pub group: Option<Group>,
}

#[derive(Clone, Debug)]
pub struct Group {
    pub left: bool,
    pub include: Vec<&'static str>,
}

pub const COMPARISONS: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];
pub const ARITHMETIC: [&str; 7] = ["+", "-", "*", "/", "%", "^", "atan2"];
pub const SETS: [&str; 3] = ["and", "or", "unless"];

impl Expr {
    /// Whether it is one number rather than a vector.
    pub fn is_scalar(&self) -> bool {
        match self {
            Self::Number(_) => true,
            Self::Call(name, _) => matches!(*name, "scalar" | "time" | "pi"),
            Self::Binary { left, right, .. } => left.is_scalar() && right.is_scalar(),
            Self::Negate(inner) => inner.is_scalar(),
            Self::Text(_)
            | Self::Selector(_)
            | Self::Range(..)
            | Self::Subquery { .. }
            | Self::Aggregate { .. } => false,
        }
    }

    /// Calls `see` with this expression and all in it.
    pub fn walk(&self, see: &mut impl FnMut(&Self)) {
        see(self);
        match self {
            Self::Number(_) | Self::Text(_) | Self::Selector(_) | Self::Range(..) => {}
            Self::Subquery { inner, .. } | Self::Negate(inner) => inner.walk(see),
            Self::Call(_, args) => args.iter().for_each(|arg| arg.walk(see)),
            Self::Aggregate { param, inner, .. } => {
                param.iter().for_each(|param| param.walk(see));
                inner.walk(see);
            }
            Self::Binary { left, right, .. } => {
                left.walk(see);
                right.walk(see);
            }
        }
    }
}

fn duration(ms: i64) -> String {
    assert!(ms > 0, "{ms}");
    match ms {
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            None => {}
            Some(At::Ms(ms)) => {
                let sign = if ms < 0 { "-" } else { "" };
                let ms = ms.abs();
                write!(f, " @ {sign}{}.{:03}", ms / 1_000, ms % 1_000)?;
            }
            Some(At::Start) => f.write_str(" @ start()")?,
            Some(At::End) => f.write_str(" @ end()")?,
        }
        match self.offset_ms {
            0 => Ok(()),
            ms if ms < 0 => write!(f, " offset -{}", duration(-ms)),
            ms => write!(f, " offset {}", duration(ms)),
        }
    }
}

impl Selector {
    fn write(&self, f: &mut fmt::Formatter<'_>, range_ms: Option<i64>) -> fmt::Result {
        f.write_str(self.name.unwrap_or_default())?;
        if !self.tests.is_empty() || self.name.is_none() {
            f.write_str("{")?;
            for (i, (label, op, value)) in self.tests.iter().enumerate() {
                let comma = if i > 0 { "," } else { "" };
                write!(f, "{comma}{label}{op}\"{value}\"")?;
            }
            f.write_str("}")?;
        }
        if let Some(ms) = range_ms {
            write!(f, "[{}]", duration(ms))?;
        }
        write!(f, "{}", self.shift)
    }
}

/// In parentheses where they are needed before brackets.
struct Primary<'a>(&'a Expr);

impl fmt::Display for Primary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expr::Binary { .. } | Expr::Negate(_) | Expr::Subquery { .. } => {
                write!(f, "({})", self.0)
            }
            other => other.fmt(f),
        }
    }
}

/// A side of a binary operator, in parentheses only where the language's precedence asks for them,
/// so that the precedence is tested too.
struct Side<'a> {
    expr: &'a Expr,
    of: &'static str,
    right: bool,
}

/// Larger binds tighter.
fn precedence(op: &str) -> u8 {
    match op {
        "or" => 1,
        "and" | "unless" => 2,
        "+" | "-" => 4,
        "*" | "/" | "%" | "atan2" => 5,
        "^" => 6,
        op if COMPARISONS.contains(&op) => 3,
        other => panic!("operator {other}"),
    }
}

impl fmt::Display for Side<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = match self.expr {
            Expr::Binary { op, .. } => {
                let (inner, outer) = (precedence(op), precedence(self.of));
                // All are left-associative but the power.
                inner > outer || inner == outer && self.right == (self.of == "^")
            }
            // `-a ^ b` is `-(a ^ b)`.
            Expr::Negate(_) => !self.right && self.of != "^",
            Expr::Number(value) => !value.is_sign_negative(),
            _ => true,
        };
        if bare {
            self.expr.fmt(f)
        } else {
            write!(f, "({})", self.expr)
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(value) if value.is_infinite() => {
                f.write_str(if *value > 0.0 { "Inf" } else { "-Inf" })
            }
            Self::Number(value) if value.is_nan() => f.write_str("NaN"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Selector(selector) => selector.write(f, None),
            Self::Range(selector, range_ms) => selector.write(f, Some(*range_ms)),
            Self::Subquery {
                inner,
                range_ms,
                step_ms,
                shift,
            } => {
                let step = step_ms.map(duration).unwrap_or_default();
                write!(
                    f,
                    "{}[{}:{step}]{shift}",
                    Primary(inner),
                    duration(*range_ms)
                )
            }
            Self::Call(name, args) => {
                write!(f, "{name}(")?;
                for (i, arg) in args.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}{arg}")?;
                }
                f.write_str(")")
            }
            Self::Aggregate {
                op,
                grouping,
                param,
                inner,
            } => {
                f.write_str(op)?;
                if let Some((without, labels)) = grouping {
                    let word = if *without { "without" } else { "by" };
                    write!(f, " {word} ({}) ", labels.join(", "))?;
                }
                f.write_str("(")?;
                if let Some(param) = param {
                    write!(f, "{param}, ")?;
                }
                write!(f, "{inner})")
            }
            Self::Binary {
                op,
                returns_bool,
                matching,
                left,
                right,
            } => {
                let side = |expr, right| Side {
                    expr,
                    of: op,
                    right,
                };
                write!(f, "{} {op} ", side(left, false))?;
                if *returns_bool {
                    f.write_str("bool ")?;
                }
                if let Some(matching) = matching {
                    let word = if matching.on { "on" } else { "ignoring" };
                    write!(f, "{word} ({}) ", matching.labels.join(", "))?;
                    if let Some(group) = &matching.group {
                        let word = if group.left {
                            "group_left"
                        } else {
                            "group_right"
                        };
                        write!(f, "{word} ({}) ", group.include.join(", "))?;
                    }
                }
                write!(f, "{}", side(right, true))
            }
            Self::Negate(inner) => match &**inner {
                Self::Binary { op: "^", .. } => write!(f, "-{inner}"),
                inner => write!(f, "-{}", Primary(inner)),
            },
        }
    }
}
