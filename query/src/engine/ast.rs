//! The expression tree.
//!
//! Every node knows its bytes in the text, because Prometheus's annotations name the position.
//! Durations stay expressions until [`super::resolve`] knows the query's step and range.

use millrace_model::Matcher;

use super::functions::Function;
use super::text::Text;

/// Bytes `start..end` of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pos {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The type of an expression's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueType {
    Scalar,
    String,
    Vector,
    Matrix,
}

impl ValueType {
    /// The name in error texts.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Expr {
    pub(super) kind: ExprKind,
    pub(super) pos: Pos,
}

#[derive(Clone, Debug)]
pub(super) enum ExprKind {
    Number(f64),
    String(Text),
    Vector(Box<Selector>),
    Matrix(Box<MatrixSelector>),
    Subquery(Box<Subquery>),
    Call(Box<Call>),
    Aggregate(Box<Aggregate>),
    Binary(Box<Binary>),
    Negate(Box<Expr>),
    /// Unary plus: changes nothing, but is part of the text.
    Plus(Box<Expr>),
    Paren(Box<Expr>),
}

/// How samples at the edges of a range are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edges {
    /// Only what is inside.
    Plain,
    /// The value at the left edge is that of the last sample before it.
    Anchored,
    /// Values at both edges are interpolated.
    Smoothed,
}

#[derive(Clone, Debug)]
pub(super) struct Selector {
    /// Written before the braces, or as the only string inside.
    pub(super) name: Option<String>,
    /// All of them, the name's too.
    pub(super) matchers: Vec<Matcher>,
    pub(super) time: TimeShift,
    pub(super) edges: Edges,
}

/// `@` and `offset` of a selector or subquery.
#[derive(Clone, Debug, Default)]
pub(super) struct TimeShift {
    pub(super) offset: Option<DurationExpr>,
    pub(super) at: Option<At>,
    /// Milliseconds, known once resolved.
    pub(super) offset_ms: i64,
    /// Milliseconds since the epoch, known once resolved.
    pub(super) at_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum At {
    /// Milliseconds since the epoch.
    Time(i64),
    Start,
    End,
}

#[derive(Clone, Debug)]
pub(super) struct MatrixSelector {
    pub(super) selector: Selector,
    pub(super) range: DurationExpr,
    pub(super) range_ms: i64,
    /// Of the selector alone.
    pub(super) selector_pos: Pos,
}

#[derive(Clone, Debug)]
pub(super) struct Subquery {
    pub(super) expr: Expr,
    pub(super) range: DurationExpr,
    pub(super) step: Option<DurationExpr>,
    pub(super) time: TimeShift,
    pub(super) range_ms: i64,
    /// Zero for the default.
    pub(super) step_ms: i64,
}

/// A duration in seconds, possibly to be computed.
#[derive(Clone, Debug)]
pub(super) enum DurationExpr {
    /// Seconds, written as a bare number.
    Number(f64),
    /// Seconds, written with units.
    Units(f64),
    /// In parentheses: changes nothing, but is part of the text.
    Paren(Box<DurationExpr>),
    /// The query's step.
    Step,
    /// The query's range.
    Range,
    Negate(Box<DurationExpr>),
    Binary(DurationOp, Box<DurationExpr>, Box<DurationExpr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DurationOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Min,
    Max,
}

#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) function: &'static Function,
    pub(super) args: Vec<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Quantile,
    CountValues,
    Limitk,
    LimitRatio,
}

impl AggregateOp {
    pub(super) fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "sum" => Self::Sum,
            "avg" => Self::Avg,
            "count" => Self::Count,
            "min" => Self::Min,
            "max" => Self::Max,
            "group" => Self::Group,
            "stddev" => Self::Stddev,
            "stdvar" => Self::Stdvar,
            "topk" => Self::Topk,
            "bottomk" => Self::Bottomk,
            "quantile" => Self::Quantile,
            "count_values" => Self::CountValues,
            "limitk" => Self::Limitk,
            "limit_ratio" => Self::LimitRatio,
            _ => return None,
        })
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::Quantile => "quantile",
            Self::CountValues => "count_values",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }

    /// The type of its parameter, if it takes one.
    pub(super) fn param_type(self) -> Option<ValueType> {
        match self {
            Self::Topk | Self::Bottomk | Self::Quantile | Self::Limitk | Self::LimitRatio => {
                Some(ValueType::Scalar)
            }
            Self::CountValues => Some(ValueType::String),
            Self::Sum
            | Self::Avg
            | Self::Count
            | Self::Min
            | Self::Max
            | Self::Group
            | Self::Stddev
            | Self::Stdvar => None,
        }
    }
}

/// `by (…)` or `without (…)`.
#[derive(Clone, Debug, Default)]
pub(super) struct Grouping {
    pub(super) without: bool,
    pub(super) labels: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Aggregate {
    pub(super) op: AggregateOp,
    pub(super) grouping: Grouping,
    pub(super) param: Option<Expr>,
    pub(super) expr: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BinaryOp {
    Or,
    And,
    Unless,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// Cuts observations above off a native histogram.
    TrimUpper,
    /// Cuts observations below off a native histogram.
    TrimLower,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Atan2,
    Pow,
}

impl BinaryOp {
    pub(super) fn is_set(self) -> bool {
        matches!(self, Self::Or | Self::And | Self::Unless)
    }

    pub(super) fn is_comparison(self) -> bool {
        matches!(
            self,
            Self::Equal
                | Self::NotEqual
                | Self::Less
                | Self::LessEqual
                | Self::Greater
                | Self::GreaterEqual
        )
    }

    /// Larger binds tighter.
    pub(super) fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Equal
            | Self::NotEqual
            | Self::Less
            | Self::LessEqual
            | Self::Greater
            | Self::GreaterEqual
            | Self::TrimUpper
            | Self::TrimLower => 3,
            Self::Add | Self::Sub => 4,
            Self::Mul | Self::Div | Self::Mod | Self::Atan2 => 5,
            Self::Pow => 6,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Unless => "unless",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Atan2 => "atan2",
            Self::Pow => "^",
        }
    }
}

/// How many series of either side meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cardinality {
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
}

#[derive(Clone, Debug)]
pub(super) struct Matching {
    pub(super) cardinality: Cardinality,
    /// `on`, or else `ignoring`.
    pub(super) on: bool,
    pub(super) labels: Vec<String>,
    /// Labels that `group_left`, `group_right` bring along.
    pub(super) include: Vec<String>,
    pub(super) fill_left: Option<f64>,
    pub(super) fill_right: Option<f64>,
}

impl Default for Matching {
    fn default() -> Self {
        Self {
            cardinality: Cardinality::OneToOne,
            on: false,
            labels: Vec::new(),
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Binary {
    pub(super) op: BinaryOp,
    /// Where the operator stands.
    pub(super) op_at: usize,
    pub(super) left: Expr,
    pub(super) right: Expr,
    pub(super) return_bool: bool,
    pub(super) matching: Matching,
}

impl Expr {
    pub(super) fn new(kind: ExprKind, pos: Pos) -> Self {
        Self { kind, pos }
    }

    /// Without parentheses around it.
    pub(super) fn bare(&self) -> &Self {
        let mut expr = self;
        while let ExprKind::Paren(inner) = &expr.kind {
            expr = inner;
        }
        expr
    }

    pub(super) fn value_type(&self) -> ValueType {
        match &self.bare().kind {
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::Vector(_) | ExprKind::Aggregate(_) => ValueType::Vector,
            ExprKind::Matrix(_) | ExprKind::Subquery(_) => ValueType::Matrix,
            ExprKind::Call(call) => call.function.returns,
            ExprKind::Negate(inner) | ExprKind::Plus(inner) => inner.value_type(),
            ExprKind::Binary(binary) => {
                // Walks down the left spine, which is as long as a chain of operators.
                let mut node = binary;
                loop {
                    if node.right.value_type() != ValueType::Scalar {
                        return ValueType::Vector;
                    }
                    match &node.left.bare().kind {
                        ExprKind::Binary(next) => node = next,
                        _ => break,
                    }
                }
                match node.left.value_type() {
                    ValueType::Scalar => ValueType::Scalar,
                    _ => ValueType::Vector,
                }
            }
            ExprKind::Paren(_) => unreachable!("bare() leaves no parentheses"),
        }
    }

    /// Whether the value is the same at every moment, so that it need be computed once only.
    pub(super) fn is_step_invariant(&self) -> bool {
        match &self.kind {
            ExprKind::Number(_) | ExprKind::String(_) => true,
            ExprKind::Vector(selector) => selector.time.at_ms.is_some(),
            ExprKind::Matrix(matrix) => matrix.selector.time.at_ms.is_some(),
            ExprKind::Subquery(subquery) => subquery.time.at_ms.is_some(),
            ExprKind::Call(call) => call.is_step_invariant(),
            ExprKind::Aggregate(aggregate) => {
                aggregate.expr.is_step_invariant()
                    && aggregate.param.as_ref().is_none_or(Self::is_step_invariant)
            }
            ExprKind::Binary(binary) => {
                binary.right.is_step_invariant() && binary.left.is_step_invariant()
            }
            ExprKind::Negate(inner) | ExprKind::Plus(inner) | ExprKind::Paren(inner) => {
                inner.is_step_invariant()
            }
        }
    }
}

impl Call {
    fn is_step_invariant(&self) -> bool {
        let args = self.args.iter().all(Expr::is_step_invariant);
        match self.function.name {
            "time" | "predict_linear" => false,
            // Of a selector it is the sample's own time; of anything else, the step's.
            "timestamp" => args && matches!(self.args[0].bare().kind, ExprKind::Vector(_)),
            "days_in_month" | "day_of_month" | "day_of_week" | "day_of_year" | "hour"
            | "minute" | "month" | "year" => args && !self.args.is_empty(),
            _ => args,
        }
    }
}
