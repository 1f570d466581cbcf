//! Durations and the arithmetic on them.

use super::super::ast::{DurationExpr, DurationOp};
use super::super::lex::{Kind, SyntaxError};
use super::super::text::{parse_duration, parse_number};
use super::{Parser, Result};

const CONTEXT: &str = "subquery or range selector";

impl Parser<'_> {
    /// Inside brackets and parentheses: the whole arithmetic.
    pub(super) fn duration_expr(&mut self) -> Result<DurationExpr> {
        self.duration_sum(0, CONTEXT)
    }

    /// Behind `offset`: a signed duration, number, call or parenthesis. Operators that follow
    /// belong to the expression around it.
    pub(super) fn offset_duration(&mut self) -> Result<DurationExpr> {
        match self.kind() {
            Kind::Sub => {
                self.bump();
                let inner = self.duration_primary("offset")?;
                Ok(DurationExpr::Negate(Box::new(inner)))
            }
            Kind::Add => {
                self.bump();
                self.duration_primary("offset")
            }
            _ => self.duration_primary("offset"),
        }
    }

    fn duration_op(&self) -> Option<(DurationOp, u8)> {
        Some(match self.kind() {
            Kind::Add => (DurationOp::Add, 1),
            Kind::Sub => (DurationOp::Sub, 1),
            Kind::Mul => (DurationOp::Mul, 2),
            Kind::Div => (DurationOp::Div, 2),
            Kind::Mod => (DurationOp::Mod, 2),
            Kind::Pow => (DurationOp::Pow, 4),
            _ => return None,
        })
    }

    fn duration_sum(&mut self, floor: u8, context: &str) -> Result<DurationExpr> {
        self.deeper(|parser| {
            let mut left = parser.duration_unary(context)?;
            while let Some((op, precedence)) = parser.duration_op() {
                if precedence <= floor {
                    break;
                }
                parser.bump();
                let right_floor = match op {
                    DurationOp::Pow => precedence - 1,
                    _ => precedence,
                };
                let right = parser.duration_sum(right_floor, context)?;
                left = DurationExpr::Binary(op, Box::new(left), Box::new(right));
            }
            Ok(left)
        })
    }

    fn duration_unary(&mut self, context: &str) -> Result<DurationExpr> {
        match self.kind() {
            Kind::Sub => {
                self.bump();
                let inner = self.duration_sum(2, context)?;
                Ok(DurationExpr::Negate(Box::new(inner)))
            }
            Kind::Add => {
                self.bump();
                self.duration_sum(2, context)
            }
            _ => self.duration_primary(context),
        }
    }

    fn duration_primary(&mut self, context: &str) -> Result<DurationExpr> {
        let token = self.peek();
        let written = self.slice(token);
        let bad = |message: &str| SyntaxError::new(token.start, message);
        match token.kind {
            Kind::Number => {
                self.bump();
                let value = parse_number(written).ok_or_else(|| bad("bad number"))?;
                if !value.is_finite() || value.abs() > i64::MAX as f64 / 1e9 {
                    return Err(bad("duration out of range"));
                }
                Ok(DurationExpr::Number(value))
            }
            Kind::Duration => {
                self.bump();
                let ms = parse_duration(written).ok_or_else(|| bad("bad duration"))?;
                if ms > i64::MAX / 1_000_000 {
                    return Err(bad("duration out of range"));
                }
                Ok(DurationExpr::Units(ms as f64 / 1000.0))
            }
            Kind::LeftParen => {
                self.bump();
                let inner = self.duration_sum(0, context)?;
                self.expect(Kind::RightParen, context, "\")\"")?;
                Ok(DurationExpr::Paren(Box::new(inner)))
            }
            Kind::Ident => self.duration_call(context),
            _ => Err(self.unexpected(context, "number, duration, step(), or range()")),
        }
    }

    fn duration_call(&mut self, context: &str) -> Result<DurationExpr> {
        let word = self.word();
        let op = match word.as_str() {
            "step" | "range" => None,
            "min_of" => Some(DurationOp::Min),
            "max_of" => Some(DurationOp::Max),
            _ => return Err(self.unexpected(context, "number, duration, step(), or range()")),
        };
        self.bump();
        self.expect(Kind::LeftParen, context, "\"(\"")?;
        let value = match op {
            None if word == "step" => DurationExpr::Step,
            None => DurationExpr::Range,
            Some(op) => {
                let left = self.duration_sum(0, context)?;
                self.expect(Kind::Comma, context, "\",\"")?;
                let right = self.duration_sum(0, context)?;
                DurationExpr::Binary(op, Box::new(left), Box::new(right))
            }
        };
        self.expect(Kind::RightParen, context, "\")\"")?;
        Ok(value)
    }
}
