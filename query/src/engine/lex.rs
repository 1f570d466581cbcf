//! Expression text to tokens, bounded before anything recursive sees it.

use super::limits::TextLimits;
use super::text::parse_duration;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A word; keywords are words too, the parser decides.
    Ident,
    Number,
    Duration,
    Str,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `=`
    Assign,
    /// `==`
    Equal,
    NotEqual,
    /// `=~`
    EqualRegex,
    /// `!~`
    NotRegex,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    /// `</`
    TrimUpper,
    /// `>/`
    TrimLower,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    At,
    Eof,
    /// What comes here is no token.
    Error,
}

/// A token; `start..end` are bytes of the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What is wrong, and at which byte.
#[derive(Clone, Debug)]
pub(super) struct SyntaxError {
    pub(super) at: usize,
    pub(super) message: String,
}

impl SyntaxError {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }
}

/// Splits `text` into tokens. The last one is [`Kind::Eof`], or [`Kind::Error`] with the error
/// beside: whether it is the first thing wrong with the text, the parser has to say.
///
/// # Errors
///
/// The text is over a bound.
pub(super) fn lex(
    text: &str,
    limits: &TextLimits,
) -> Result<(Vec<Token>, Option<SyntaxError>), SyntaxError> {
    if text.len() > limits.bytes {
        let message = format!(
            "query of {} bytes, the limit is {} bytes",
            text.len(),
            limits.bytes
        );
        return Err(SyntaxError::new(0, message));
    }
    let mut lexer = Lexer {
        text,
        pos: 0,
        open: Vec::new(),
    };
    let mut tokens = Vec::new();
    loop {
        let token = match lexer.next() {
            Ok(token) => token,
            Err(error) => {
                tokens.push(Token {
                    kind: Kind::Error,
                    start: error.at,
                    end: error.at,
                });
                return Ok((tokens, Some(error)));
            }
        };
        tokens.push(token);
        if token.kind == Kind::Eof {
            return Ok((tokens, None));
        }
        if tokens.len() > limits.tokens {
            let message = format!("query of more than {} tokens", limits.tokens);
            return Err(SyntaxError::new(token.start, message));
        }
        if lexer.open.len() > limits.depth {
            let message = format!("query nested more than {} deep", limits.depth);
            return Err(SyntaxError::new(token.start, message));
        }
    }
}

struct Lexer<'t> {
    text: &'t str,
    pos: usize,
    /// The opening brackets of all kinds that are still open.
    open: Vec<Kind>,
}

impl Lexer<'_> {
    fn next(&mut self) -> Result<Token, SyntaxError> {
        self.skip_blank();
        let start = self.pos;
        let bytes = self.text.as_bytes();
        let Some(&first) = bytes.get(start) else {
            return self.end();
        };
        let second = bytes.get(start + 1).copied();
        let (kind, len) = match (first, second) {
            (b'(', _) => (Kind::LeftParen, 1),
            (b')', _) => (Kind::RightParen, 1),
            (b'{', _) => (Kind::LeftBrace, 1),
            (b'}', _) => (Kind::RightBrace, 1),
            (b'[', _) => (Kind::LeftBracket, 1),
            (b']', _) => (Kind::RightBracket, 1),
            (b',', _) => (Kind::Comma, 1),
            (b'@', _) => (Kind::At, 1),
            (b'+', _) => (Kind::Add, 1),
            (b'-', _) => (Kind::Sub, 1),
            (b'*', _) => (Kind::Mul, 1),
            (b'/', _) => (Kind::Div, 1),
            (b'%', _) => (Kind::Mod, 1),
            (b'^', _) => (Kind::Pow, 1),
            (b'=', Some(b'=')) => (Kind::Equal, 2),
            (b'=', Some(b'~')) => (Kind::EqualRegex, 2),
            (b'=', _) => (Kind::Assign, 1),
            (b'!', Some(b'=')) => (Kind::NotEqual, 2),
            (b'!', Some(b'~')) => (Kind::NotRegex, 2),
            (b'>', Some(b'=')) => (Kind::GreaterEqual, 2),
            (b'>', Some(b'/')) => (Kind::TrimLower, 2),
            (b'>', _) => (Kind::Greater, 1),
            (b'<', Some(b'=')) => (Kind::LessEqual, 2),
            (b'<', Some(b'/')) => (Kind::TrimUpper, 2),
            (b'<', _) => (Kind::Less, 1),
            (b':', _) if self.in_brackets() => (Kind::Colon, 1),
            (b'"' | b'\'' | b'`', _) => return self.string(start),
            (b'0'..=b'9', _) => return self.number(start),
            (b'.', Some(b'0'..=b'9')) => return self.number(start),
            (b'a'..=b'z' | b'A'..=b'Z' | b'_' | b':', _) => return Ok(self.word(start)),
            _ => {
                let c = self.text[start..].chars().next().unwrap_or(' ');
                let message = match first {
                    b'!' => {
                        let after = self.text[start + 1..].chars().next();
                        format!("unexpected character after '!': {}", rune(after))
                    }
                    _ => format!("unexpected character: {}", rune(Some(c))),
                };
                return Err(SyntaxError::new(start, message));
            }
        };
        self.pos += len;
        self.track(kind, start)?;
        Ok(self.token(kind, start))
    }

    fn token(&self, kind: Kind, start: usize) -> Token {
        Token {
            kind,
            start,
            end: self.pos,
        }
    }

    fn end(&self) -> Result<Token, SyntaxError> {
        let message = match self.open.last() {
            None => return Ok(self.token(Kind::Eof, self.pos)),
            Some(Kind::LeftBrace) => "unexpected end of input inside braces",
            Some(Kind::LeftBracket) => "unexpected end of input inside brackets",
            Some(_) => "unclosed left parenthesis",
        };
        Err(SyntaxError::new(self.pos, message))
    }

    fn track(&mut self, kind: Kind, at: usize) -> Result<(), SyntaxError> {
        let (opens, name) = match kind {
            Kind::LeftParen | Kind::LeftBrace | Kind::LeftBracket => {
                self.open.push(kind);
                return Ok(());
            }
            Kind::RightParen => (Kind::LeftParen, "right parenthesis ')'"),
            Kind::RightBrace => (Kind::LeftBrace, "right brace '}'"),
            Kind::RightBracket => (Kind::LeftBracket, "right bracket ']'"),
            _ => return Ok(()),
        };
        if self.open.pop() == Some(opens) {
            Ok(())
        } else {
            Err(SyntaxError::new(at, format!("unexpected {name}")))
        }
    }

    fn in_brackets(&self) -> bool {
        self.open.contains(&Kind::LeftBracket)
    }

    fn skip_blank(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.pos) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.pos += 1,
                b'#' => {
                    let rest = &self.text[self.pos..];
                    self.pos += rest.find('\n').unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    fn word(&mut self, start: usize) -> Token {
        let colons = !self.in_brackets() && self.open.last() != Some(&Kind::LeftBrace);
        let part = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (colons && b == b':');
        let bytes = self.text.as_bytes();
        self.pos += 1;
        while bytes.get(self.pos).copied().is_some_and(part) {
            self.pos += 1;
        }
        self.token(Kind::Ident, start)
    }

    fn string(&mut self, start: usize) -> Result<Token, SyntaxError> {
        let bytes = self.text.as_bytes();
        let quote = bytes[start];
        self.pos += 1;
        loop {
            match bytes.get(self.pos) {
                None => {
                    let kind = if quote == b'`' {
                        "raw string"
                    } else {
                        "quoted string"
                    };
                    return Err(SyntaxError::new(start, format!("unterminated {kind}")));
                }
                Some(b'\n') if quote != b'`' => {
                    return Err(SyntaxError::new(start, "unterminated quoted string"));
                }
                Some(b'\\') if quote != b'`' => self.pos = (self.pos + 2).min(bytes.len()),
                Some(&byte) => {
                    self.pos += 1;
                    if byte == quote {
                        return Ok(self.token(Kind::Str, start));
                    }
                }
            }
        }
    }

    fn number(&mut self, start: usize) -> Result<Token, SyntaxError> {
        let bytes = self.text.as_bytes();
        let hex = matches!(bytes[start..], [b'0', b'x' | b'X', ..]);
        let mut pos = start;
        while let Some(&byte) = bytes.get(pos) {
            let exponent_sign = !hex
                && matches!(byte, b'+' | b'-')
                && matches!(bytes[pos - 1], b'e' | b'E')
                && bytes.get(pos + 1).is_some_and(u8::is_ascii_digit);
            if !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || exponent_sign) {
                break;
            }
            pos += 1;
        }
        self.pos = pos;
        let word = &self.text[start..pos];
        if parse_duration(word).is_some() {
            return Ok(self.token(Kind::Duration, start));
        }
        let separated = !word.contains("__") && !word.ends_with('_');
        if separated && super::text::parse_number(word).is_some() {
            return Ok(self.token(Kind::Number, start));
        }
        Err(SyntaxError::new(
            start,
            format!(
                "bad number or duration syntax: {}",
                super::text::quote(word)
            ),
        ))
    }
}

fn rune(c: Option<char>) -> String {
    match c {
        None => "end of input".to_owned(),
        Some('\'') => "'\\''".to_owned(),
        Some(c) => format!("'{c}'"),
    }
}
