//! Selectors and what may stand behind them.

use millrace_model::{METRIC_NAME, MatchOp, Matcher};

use super::super::ast::{
    At, DurationExpr, Edges, Expr, ExprKind, MatrixSelector, Pos, Selector, Subquery, TimeShift,
};
use super::super::lex::{Kind, SyntaxError, Token};
use super::super::resolve;
use super::super::text::format_g;
use super::{Parser, Result};

const MATCHING: &str = "label matching";

impl Parser<'_> {
    /// A selector; its name, if it has one, is read already.
    pub(super) fn selector(&mut self, name: Option<Token>) -> Result<Expr> {
        let start = name.map_or(self.peek().start, |t| t.start);
        let mut end = name.map_or(start, |t| t.end);
        let mut selector = Selector {
            name: name.map(|t| self.slice(t).to_owned()),
            matchers: Vec::new(),
            time: TimeShift::default(),
            edges: Edges::Plain,
        };
        if self.kind() == Kind::LeftBrace {
            end = self.braces(&mut selector)?;
        }
        let pos = Pos { start, end };
        if let Some(name) = &selector.name {
            let matcher = Matcher::equal(METRIC_NAME, name.as_str());
            selector.matchers.push(matcher);
        }
        Ok(Expr::new(ExprKind::Vector(Box::new(selector)), pos))
    }

    fn braces(&mut self, selector: &mut Selector) -> Result<usize> {
        self.bump();
        loop {
            if self.kind() == Kind::RightBrace {
                return Ok(self.bump().end);
            }
            let token = self.peek();
            let name = match token.kind {
                Kind::Label => self.slice(token).to_owned(),
                Kind::Str => {
                    let value = self.string_value(token)?;
                    let Some(name) = value.label_name() else {
                        let message = format!("invalid label name: {}", value.quoted());
                        return Err(SyntaxError::new(token.start, message));
                    };
                    name.to_owned()
                }
                _ => return Err(self.unexpected(MATCHING, "identifier or \"}\"")),
            };
            self.bump();
            let compared = matches!(
                self.kind(),
                Kind::Assign | Kind::NotEqual | Kind::EqualRegex | Kind::NotRegex
            );
            let quoted_alone = token.kind == Kind::Str && !compared;
            let matcher = match quoted_alone {
                true => Matcher::equal(METRIC_NAME, name),
                false => self.matcher(token, name)?,
            };
            selector.matchers.push(matcher);
            if !self.eat(Kind::Comma) && self.kind() != Kind::RightBrace {
                return Err(self.unexpected(MATCHING, "\",\" or \"}\""));
            }
        }
    }

    fn matcher(&mut self, label: Token, name: String) -> Result<Matcher> {
        let op = match self.kind() {
            Kind::Assign => MatchOp::Equal,
            Kind::NotEqual => MatchOp::NotEqual,
            Kind::EqualRegex => MatchOp::Regex,
            Kind::NotRegex => MatchOp::NotRegex,
            _ => return Err(self.unexpected(MATCHING, "label matching operator")),
        };
        self.bump();
        let token = self.expect(Kind::Str, MATCHING, "string")?;
        let value = self.string_value(token)?;
        if let MatchOp::Regex | MatchOp::NotRegex = op {
            self.patterns += 1;
            if self.patterns > self.max_patterns {
                let max = self.max_patterns;
                let message = format!("query of more than {max} regular expressions");
                return Err(SyntaxError::new(label.start, message));
            }
        }
        // Labels are UTF-8: bytes that are not can equal none of them, replaced or not.
        Matcher::new(name, op, value.lossy())
            .map_err(|error| SyntaxError::new(label.start, error.to_string()))
    }

    /// `[5m]` or `[5m:1m]` behind an expression.
    pub(super) fn brackets(&mut self, expr: Expr) -> Result<Expr> {
        let open = self.bump();
        if self.kind() == Kind::RightBracket {
            return Err(self.unexpected(
                "subquery or range selector",
                "number, duration, step(), or range()",
            ));
        }
        let range = self.duration_expr()?;
        positive(&range, open.end)?;
        if self.eat(Kind::Colon) {
            let step = match self.kind() {
                Kind::RightBracket => None,
                Kind::Number
                | Kind::Duration
                | Kind::Ident
                | Kind::LeftParen
                | Kind::Add
                | Kind::Sub => Some(self.duration_expr()?),
                _ => {
                    let expected = "number, duration, step(), range(), or \"]\"";
                    return Err(self.unexpected("subquery selector", expected));
                }
            };
            if let Some(step) = &step {
                positive(step, open.end)?;
            }
            let close = self.expect(Kind::RightBracket, "subquery selector", "\"]\"")?;
            let pos = Pos {
                start: expr.pos.start,
                end: close.end,
            };
            let subquery = Subquery {
                expr,
                range,
                step,
                time: TimeShift::default(),
                range_ms: 0,
                step_ms: 0,
            };
            return Ok(Expr::new(ExprKind::Subquery(Box::new(subquery)), pos));
        }
        let close = self.expect(Kind::RightBracket, "subquery or range", "\":\" or \"]\"")?;
        let pos = Pos {
            start: expr.pos.start,
            end: close.end,
        };
        let ExprKind::Vector(selector) = expr.kind else {
            let message = "ranges only allowed for vector selectors";
            return Err(SyntaxError::new(open.start, message));
        };
        let problem = if selector.time.offset.is_some() {
            Some("no offset modifiers allowed before range")
        } else if selector.time.at.is_some() {
            Some("no @ modifiers allowed before range")
        } else {
            None
        };
        if let Some(message) = problem {
            return Err(SyntaxError::new(open.start, message));
        }
        let matrix = MatrixSelector {
            selector: *selector,
            range,
            range_ms: 0,
            selector_pos: expr.pos,
        };
        Ok(Expr::new(ExprKind::Matrix(Box::new(matrix)), pos))
    }

    fn shift<'e>(&self, expr: &'e mut Expr, modifier: &str) -> Result<&'e mut TimeShift> {
        let start = expr.pos.start;
        match &mut expr.kind {
            ExprKind::Vector(selector) => Ok(&mut selector.time),
            ExprKind::Matrix(matrix) => Ok(&mut matrix.selector.time),
            ExprKind::Subquery(subquery) => Ok(&mut subquery.time),
            _ => {
                let message = format!(
                    "{modifier} modifier must be preceded by an instant vector selector or range vector selector or a subquery"
                );
                Err(SyntaxError::new(start, message))
            }
        }
    }

    pub(super) fn offset(&mut self, mut expr: Expr) -> Result<Expr> {
        self.bump();
        let start = expr.pos.start;
        let offset = self.offset_duration()?;
        let end = self.tokens[self.next - 1].end;
        let time = self.shift(&mut expr, "offset")?;
        if time.offset.is_some() {
            let message = "offset may not be set multiple times";
            return Err(SyntaxError::new(start, message));
        }
        time.offset = Some(offset);
        expr.pos.end = end;
        Ok(expr)
    }

    pub(super) fn at(&mut self, mut expr: Expr) -> Result<Expr> {
        self.bump();
        let start = expr.pos.start;
        let at = match self.word().as_str() {
            word @ ("start" | "end") => {
                let at = if word == "start" { At::Start } else { At::End };
                self.bump();
                self.expect(Kind::LeftParen, "@", "timestamp")?;
                self.expect(Kind::RightParen, "@", "timestamp")?;
                at
            }
            _ => {
                let negative = self.kind() == Kind::Sub;
                if negative || self.kind() == Kind::Add {
                    self.bump();
                }
                let Some(value) = self.number() else {
                    return Err(self.unexpected("@", "timestamp"));
                };
                let seconds = if negative { -value } else { value };
                let ms = (seconds * 1000.0).round();
                // Exactly the whole numbers of ms that an i64 holds.
                if !ms.is_finite() || ms.abs() >= i64::MAX as f64 {
                    let message = format!(
                        "timestamp out of bounds for @ modifier: {}",
                        format_g(seconds)
                    );
                    return Err(SyntaxError::new(start, message));
                }
                At::Time(ms as i64)
            }
        };
        let end = self.tokens[self.next - 1].end;
        let time = self.shift(&mut expr, "@")?;
        if time.at.is_some() {
            let message = "@ <timestamp> may not be set multiple times";
            return Err(SyntaxError::new(start, message));
        }
        time.at = Some(at);
        expr.pos.end = end;
        Ok(expr)
    }

    /// `anchored` and `smoothed`.
    pub(super) fn edges(&mut self, mut expr: Expr) -> Result<Expr> {
        let word = self.word();
        let token = self.bump();
        let start = expr.pos.start;
        let edges = match word.as_str() {
            "anchored" => Edges::Anchored,
            _ => Edges::Smoothed,
        };
        let selector = match &mut expr.kind {
            ExprKind::Matrix(matrix) => &mut matrix.selector,
            ExprKind::Vector(selector) => selector,
            ExprKind::Subquery(_) => {
                let message = format!("{word} modifier is not supported for subqueries");
                return Err(SyntaxError::new(start, message));
            }
            _ => {
                let message = format!("{word} modifier not implemented");
                return Err(SyntaxError::new(start, message));
            }
        };
        if selector.edges != Edges::Plain && selector.edges != edges {
            let message = "anchored and smoothed modifiers cannot be used together";
            return Err(SyntaxError::new(start, message));
        }
        selector.edges = edges;
        expr.pos.end = token.end;
        Ok(expr)
    }
}

/// Refuses a range or step that is not positive, where that is known already.
fn positive(duration: &DurationExpr, at: usize) -> Result<()> {
    match resolve::constant(duration) {
        Some(seconds) if seconds <= 0.0 => {
            Err(SyntaxError::new(at, "duration must be greater than 0"))
        }
        _ => Ok(()),
    }
}
