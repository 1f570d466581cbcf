//! Tokens to an expression tree: a recursive-descent parser with operator precedence.
//!
//! Recursion is bounded by [`TextLimits::depth`]; chains of left-associative operators are built
//! in a loop, so their length is bounded by the number of tokens alone.

mod duration;
mod modifiers;
mod selector;

use super::ast::{Aggregate, AggregateOp, Binary, BinaryOp, Call, Expr, ExprKind, Pos};
use super::check;
use super::functions;
use super::lex::{Kind, SyntaxError, Token, lex};
use super::limits::TextLimits;
use super::text::{self, parse_duration, parse_number, quote};

type Result<T> = std::result::Result<T, SyntaxError>;

/// Parses and type-checks an expression.
pub(super) fn parse(text: &str, limits: &TextLimits) -> Result<Expr> {
    let (tokens, error) = lex(text, limits)?;
    let mut parser = Parser {
        text,
        tokens,
        error,
        next: 0,
        depth: 0,
        max_depth: limits.depth,
        aggregations: 0,
        patterns: 0,
        max_patterns: limits.patterns,
    };
    if parser.kind() == Kind::Eof {
        let message = "no expression found in input";
        return Err(match text {
            "" => SyntaxError::nowhere(message),
            _ => SyntaxError::new(0, message),
        });
    }
    let expr = parser.expr(0)?;
    if parser.kind() != Kind::Eof {
        return Err(parser.unexpected("", ""));
    }
    check::tree(&expr)?;
    Ok(expr)
}

struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    /// What ended the tokens, where that was not the end of the text.
    error: Option<SyntaxError>,
    next: usize,
    depth: usize,
    max_depth: usize,
    /// Aggregations that are still open.
    aggregations: usize,
    /// Regular expressions so far.
    patterns: usize,
    max_patterns: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Token {
        self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn kind(&self) -> Kind {
        self.peek().kind
    }

    fn kind_after(&self, ahead: usize) -> Kind {
        self.tokens[(self.next + ahead).min(self.tokens.len() - 1)].kind
    }

    fn bump(&mut self) -> Token {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn slice(&self, token: Token) -> &'t str {
        &self.text[token.start..token.end]
    }

    /// The word that comes next, in lower case; empty if it is no word.
    fn word(&self) -> String {
        let token = self.peek();
        match token.kind {
            Kind::Ident => self.slice(token).to_ascii_lowercase(),
            _ => String::new(),
        }
    }

    fn eat(&mut self, kind: Kind) -> bool {
        let found = self.kind() == kind;
        if found {
            self.bump();
        }
        found
    }

    fn expect(&mut self, kind: Kind, context: &str, expected: &str) -> Result<Token> {
        if self.kind() == kind {
            Ok(self.bump())
        } else {
            Err(self.unexpected(context, expected))
        }
    }

    /// Prometheus's words for a token that may not stand where it stands.
    fn unexpected(&self, context: &str, expected: &str) -> SyntaxError {
        let token = self.peek();
        if let (Kind::Error, Some(error)) = (token.kind, &self.error) {
            return error.clone();
        }
        let mut message = format!("unexpected {}", self.describe(token));
        let context = match context {
            "" if self.aggregations > 0 => "aggregation",
            context => context,
        };
        if !context.is_empty() {
            message = format!("{message} in {context}");
        }
        if !expected.is_empty() {
            message = format!("{message}, expected {expected}");
        }
        SyntaxError::new(token.start, message)
    }

    fn describe(&self, token: Token) -> String {
        let written = self.slice(token);
        match token.kind {
            Kind::Eof => "end of input".to_owned(),
            Kind::Error => "error".to_owned(),
            Kind::Ident => self.describe_word(written),
            Kind::Label => format!("identifier {}", quote(written)),
            Kind::Number => format!("number {}", shortened(written)),
            Kind::Duration => format!("duration {}", shortened(written)),
            Kind::Str => format!("string {}", shortened(written)),
            Kind::LeftParen
            | Kind::RightParen
            | Kind::LeftBrace
            | Kind::RightBrace
            | Kind::LeftBracket
            | Kind::RightBracket
            | Kind::Comma
            | Kind::Colon
            | Kind::Assign => quote(written),
            Kind::At
            | Kind::Equal
            | Kind::NotEqual
            | Kind::EqualRegex
            | Kind::NotRegex
            | Kind::Greater
            | Kind::GreaterEqual
            | Kind::Less
            | Kind::LessEqual
            | Kind::TrimUpper
            | Kind::TrimLower
            | Kind::Add
            | Kind::Sub
            | Kind::Mul
            | Kind::Div
            | Kind::Mod
            | Kind::Pow => format!("<op:{written}>"),
        }
    }

    fn describe_word(&self, written: &str) -> String {
        let word = written.to_ascii_lowercase();
        if AggregateOp::from_word(&word).is_some() {
            return format!("<aggr:{written}>");
        }
        match word.as_str() {
            "and" | "or" | "unless" | "atan2" => format!("<op:{written}>"),
            "offset" | "smoothed" | "anchored" | "by" | "without" | "on" | "ignoring"
            | "group_left" | "group_right" | "bool" | "fill" | "fill_left" | "fill_right" => {
                format!("<{written}>")
            }
            _ if is_number_word(written) => format!("number {}", quote(written)),
            _ if written.contains(':') => format!("metric identifier {}", quote(written)),
            _ => format!("identifier {}", quote(written)),
        }
    }

    /// Calls `inner` one level deeper.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= self.max_depth {
            let message = format!("query nested more than {} deep", self.max_depth);
            return Err(SyntaxError::new(self.peek().start, message));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// An expression whose operators all bind tighter than `floor`.
    fn expr(&mut self, floor: u8) -> Result<Expr> {
        self.deeper(|parser| {
            let mut left = parser.unary()?;
            while let Some(op) = parser.binary_op() {
                if op.precedence() <= floor {
                    break;
                }
                let op_at = parser.bump().start;
                let (return_bool, matching) = parser.binary_modifiers()?;
                // `^` binds to the right, everything else to the left.
                let right_floor = match op {
                    BinaryOp::Pow => op.precedence() - 1,
                    _ => op.precedence(),
                };
                let right = parser.expr(right_floor)?;
                let pos = Pos {
                    start: left.pos.start,
                    end: right.pos.end,
                };
                let binary = Binary {
                    op,
                    op_at,
                    left,
                    right,
                    return_bool,
                    matching: matching.unwrap_or_default(),
                };
                left = Expr::new(ExprKind::Binary(Box::new(binary)), pos);
            }
            Ok(left)
        })
    }

    fn string_value(&self, token: Token) -> Result<text::Text> {
        text::unquote(self.slice(token)).map_err(|reason| SyntaxError::new(token.start, reason))
    }

    fn unary(&mut self) -> Result<Expr> {
        let start = self.peek().start;
        let negative = self.kind() == Kind::Sub;
        if !negative && self.kind() != Kind::Add {
            return self.postfix();
        }
        self.bump();
        // Signs bind looser than `^` and tighter than `*`.
        let inner = self.expr(BinaryOp::Mul.precedence())?;
        let pos = Pos {
            start,
            end: inner.pos.end,
        };
        let kind = match (negative, inner.kind) {
            (true, ExprKind::Number(value)) => ExprKind::Number(-value),
            (false, ExprKind::Number(value)) => ExprKind::Number(value),
            (true, kind) => ExprKind::Negate(Box::new(Expr::new(kind, inner.pos))),
            (false, kind) => ExprKind::Plus(Box::new(Expr::new(kind, inner.pos))),
        };
        Ok(Expr::new(kind, pos))
    }

    fn postfix(&mut self) -> Result<Expr> {
        let mut expr = self.primary()?;
        loop {
            expr = match self.kind() {
                Kind::LeftBracket => self.brackets(expr)?,
                Kind::At => self.at(expr)?,
                Kind::Ident => match self.word().as_str() {
                    "offset" => self.offset(expr)?,
                    "anchored" | "smoothed" => self.edges(expr)?,
                    _ => return Ok(expr),
                },
                _ => return Ok(expr),
            };
        }
    }

    fn number(&mut self) -> Option<f64> {
        let token = self.peek();
        let written = self.slice(token);
        let value = match token.kind {
            Kind::Number => parse_number(written)?,
            Kind::Duration => parse_duration(written)? as f64 / 1000.0,
            Kind::Ident if is_number_word(written) => parse_number(written)?,
            _ => return None,
        };
        self.bump();
        Some(value)
    }

    fn primary(&mut self) -> Result<Expr> {
        let token = self.peek();
        let pos = Pos {
            start: token.start,
            end: token.end,
        };
        match token.kind {
            Kind::LeftParen => {
                self.bump();
                let inner = self.expr(0)?;
                let close = self.expect(Kind::RightParen, "", "")?;
                let pos = Pos {
                    start: token.start,
                    end: close.end,
                };
                Ok(Expr::new(ExprKind::Paren(Box::new(inner)), pos))
            }
            Kind::Str => {
                let value = self.string_value(token)?;
                self.bump();
                Ok(Expr::new(ExprKind::String(value), pos))
            }
            Kind::LeftBrace => self.selector(None),
            Kind::Ident => self.named(token),
            _ => match self.number() {
                Some(value) => Ok(Expr::new(ExprKind::Number(value), pos)),
                None => Err(self.unexpected("", "")),
            },
        }
    }

    /// What begins with a word: a number, an aggregation, a call or a selector.
    fn named(&mut self, token: Token) -> Result<Expr> {
        let pos = Pos {
            start: token.start,
            end: token.end,
        };
        let word = self.word();
        if let Some(op) = AggregateOp::from_word(&word) {
            let after = self.kind_after(1);
            let by = self.tokens.get(self.next + 1).is_some_and(|t| {
                let w = self.slice(*t).to_ascii_lowercase();
                t.kind == Kind::Ident && (w == "by" || w == "without")
            });
            if after == Kind::LeftParen || by {
                return self.aggregate(op);
            }
        } else if self.kind_after(1) == Kind::LeftParen && !is_keyword(&word) && !word.contains(':')
        {
            return self.call();
        }
        if is_number_word(self.slice(token))
            && let Some(value) = self.number()
        {
            return Ok(Expr::new(ExprKind::Number(value), pos));
        }
        if matches!(
            word.as_str(),
            "bool" | "on" | "ignoring" | "group_left" | "group_right" | "atan2"
        ) {
            return Err(self.unexpected("", ""));
        }
        self.bump();
        self.selector(Some(token))
    }

    fn args(&mut self) -> Result<(Vec<Expr>, usize)> {
        self.expect(Kind::LeftParen, "", "")?;
        let mut args = Vec::new();
        if self.kind() == Kind::RightParen {
            return Ok((args, self.bump().end));
        }
        loop {
            args.push(self.expr(0)?);
            let comma = self.peek().start;
            if self.eat(Kind::Comma) {
                let begins = matches!(
                    self.kind(),
                    Kind::Number
                        | Kind::Duration
                        | Kind::Str
                        | Kind::Ident
                        | Kind::LeftParen
                        | Kind::LeftBrace
                        | Kind::Add
                        | Kind::Sub
                        | Kind::Error
                );
                if !begins {
                    let message = "trailing commas not allowed in function call args";
                    return Err(SyntaxError::new(comma, message));
                }
                continue;
            }
            let close = self.expect(Kind::RightParen, "", "")?;
            return Ok((args, close.end));
        }
    }

    fn call(&mut self) -> Result<Expr> {
        let token = self.bump();
        let name = self.slice(token);
        // `START()` and the like are keywords, which know no case.
        let lower = name.to_ascii_lowercase();
        let known = match lower.as_str() {
            "start" | "end" | "step" | "range" | "min_of" | "max_of" => functions::find(&lower),
            _ => functions::find(name),
        };
        let (args, end) = self.args()?;
        let Some(function) = known else {
            let message = format!("unknown function with name {}", quote(name));
            return Err(SyntaxError::new(token.start, message));
        };
        let pos = Pos {
            start: token.start,
            end,
        };
        let call = Call { function, args };
        Ok(Expr::new(ExprKind::Call(Box::new(call)), pos))
    }

    fn aggregate(&mut self, op: AggregateOp) -> Result<Expr> {
        let token = self.bump();
        self.aggregations += 1;
        let mut grouping = self.grouping()?;
        let (mut args, mut end) = self.args()?;
        if grouping.is_none() {
            grouping = self.grouping()?;
            end = end.max(self.tokens[self.next - 1].end);
        }
        self.aggregations -= 1;
        let pos = Pos {
            start: token.start,
            end,
        };
        if self.kind() == Kind::Error {
            return Err(self.unexpected("", ""));
        }
        if args.is_empty() {
            let message = "no arguments for aggregate expression provided";
            return Err(SyntaxError::new(token.start, message));
        }
        let wanted = 1 + usize::from(op.param_type().is_some());
        if args.len() != wanted {
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {}",
                args.len()
            );
            return Err(SyntaxError::new(token.start, message));
        }
        let expr = args.pop().expect("one argument at least");
        let aggregate = Aggregate {
            op,
            grouping: grouping.unwrap_or_default(),
            param: args.pop(),
            expr,
        };
        Ok(Expr::new(ExprKind::Aggregate(Box::new(aggregate)), pos))
    }
}

/// Quoted, and cut where it is long.
fn shortened(written: &str) -> String {
    if written.len() <= 10 {
        return quote(written);
    }
    let head: String = written.chars().take(10).collect();
    format!("{}...", quote(&head))
}

fn is_number_word(word: &str) -> bool {
    word.eq_ignore_ascii_case("inf") || word.eq_ignore_ascii_case("nan")
}

fn is_keyword(word: &str) -> bool {
    AggregateOp::from_word(word).is_some()
        || matches!(
            word,
            "and"
                | "or"
                | "unless"
                | "atan2"
                | "offset"
                | "by"
                | "without"
                | "on"
                | "ignoring"
                | "group_left"
                | "group_right"
                | "bool"
        )
}
