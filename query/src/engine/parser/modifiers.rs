//! Binary operators with what stands behind them, and the label lists of groupings.

use super::super::ast::{BinaryOp, Cardinality, Grouping, Matching};
use super::super::lex::{Kind, SyntaxError};
use super::{Parser, Result};

impl Parser<'_> {
    /// The binary operator that comes next, if one does.
    pub(super) fn binary_op(&self) -> Option<BinaryOp> {
        Some(match self.kind() {
            Kind::Add => BinaryOp::Add,
            Kind::Sub => BinaryOp::Sub,
            Kind::Mul => BinaryOp::Mul,
            Kind::Div => BinaryOp::Div,
            Kind::Mod => BinaryOp::Mod,
            Kind::Pow => BinaryOp::Pow,
            Kind::Equal => BinaryOp::Equal,
            Kind::NotEqual => BinaryOp::NotEqual,
            Kind::Greater => BinaryOp::Greater,
            Kind::GreaterEqual => BinaryOp::GreaterEqual,
            Kind::Less => BinaryOp::Less,
            Kind::LessEqual => BinaryOp::LessEqual,
            Kind::TrimUpper => BinaryOp::TrimUpper,
            Kind::TrimLower => BinaryOp::TrimLower,
            Kind::Ident => match self.word().as_str() {
                "and" => BinaryOp::And,
                "or" => BinaryOp::Or,
                "unless" => BinaryOp::Unless,
                "atan2" => BinaryOp::Atan2,
                _ => return None,
            },
            _ => return None,
        })
    }

    /// What may stand between an operator and its right side.
    pub(super) fn binary_modifiers(&mut self) -> Result<(bool, Option<Matching>)> {
        let mut matching: Option<Matching> = None;
        let return_bool = self.word() == "bool";
        if return_bool {
            self.bump();
        }
        // A metric may be called `on`-like names too: only a parenthesis makes it a modifier.
        let word = self.word();
        if word == "on" || word == "ignoring" {
            self.bump();
            let labels = self.label_list()?;
            let on = word == "on";
            let mut found = Matching {
                on,
                labels,
                ..Matching::default()
            };
            let word = self.word();
            if word == "group_left" || word == "group_right" {
                self.bump();
                found.cardinality = match word.as_str() {
                    "group_left" => Cardinality::ManyToOne,
                    _ => Cardinality::OneToMany,
                };
                if self.kind() == Kind::LeftParen {
                    found.include = self.label_list()?;
                }
            }
            matching = Some(found);
        }
        // `fill` stands alone, the other two together at most.
        let mut allowed = vec!["fill", "fill_left", "fill_right"];
        while let word @ ("fill" | "fill_left" | "fill_right") = self.word().as_str() {
            if self.kind_after(1) != Kind::LeftParen || !allowed.contains(&word) {
                break;
            }
            allowed.retain(|other| word != "fill" && *other != "fill" && *other != word);
            self.bump();
            let value = self.fill_value()?;
            let found = matching.get_or_insert_default();
            if word != "fill_right" {
                found.fill_left = Some(value);
            }
            if word != "fill_left" {
                found.fill_right = Some(value);
            }
        }
        Ok((return_bool, matching))
    }

    fn fill_value(&mut self) -> Result<f64> {
        self.expect(Kind::LeftParen, "", "")?;
        let negative = self.kind() == Kind::Sub;
        if negative || self.kind() == Kind::Add {
            self.bump();
        }
        let Some(value) = self.number() else {
            return Err(self.unexpected("", ""));
        };
        self.expect(Kind::RightParen, "", "")?;
        Ok(if negative { -value } else { value })
    }

    /// `(a, "b", c,)`.
    fn label_list(&mut self) -> Result<Vec<String>> {
        const CONTEXT: &str = "grouping opts";
        self.expect(Kind::LeftParen, CONTEXT, "\"(\"")?;
        let mut labels = Vec::new();
        loop {
            if self.eat(Kind::RightParen) {
                return Ok(labels);
            }
            let token = self.peek();
            match token.kind {
                Kind::Ident if !self.slice(token).contains(':') => {
                    labels.push(self.slice(token).to_owned());
                }
                Kind::Str => {
                    let value = self.string_value(token)?;
                    let Some(name) = value.label_name() else {
                        let message =
                            format!("invalid label name for grouping: {}", value.quoted());
                        return Err(SyntaxError::new(token.start, message));
                    };
                    labels.push(name.to_owned());
                }
                _ => return Err(self.unexpected(CONTEXT, "label")),
            }
            self.bump();
            if !self.eat(Kind::Comma) && self.kind() != Kind::RightParen {
                return Err(self.unexpected(CONTEXT, "\",\" or \")\""));
            }
        }
    }

    /// `by (…)` or `without (…)`, if there is one.
    pub(super) fn grouping(&mut self) -> Result<Option<Grouping>> {
        let without = match self.word().as_str() {
            "by" => false,
            "without" => true,
            _ => return Ok(None),
        };
        self.bump();
        let labels = self.label_list()?;
        Ok(Some(Grouping { without, labels }))
    }
}
