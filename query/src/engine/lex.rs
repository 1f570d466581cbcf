//! Expression text to tokens, bounded before anything recursive sees it.

use super::limits::TextLimits;
use super::text::{parse_duration, parse_number, quote};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A word; keywords are words too, the parser decides.
    Ident,
    /// A word inside braces: never a keyword.
    Label,
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
    /// `usize::MAX` for an error of the text as a whole.
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

    /// An error of the text as a whole.
    pub(super) fn nowhere(message: impl Into<String>) -> Self {
        Self::new(usize::MAX, message)
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
        state: State::Plain,
        parens: 0,
        bracket: false,
        colon: false,
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
        if lexer.parens > limits.depth {
            let message = format!("query nested more than {} deep", limits.depth);
            return Err(SyntaxError::new(token.start, message));
        }
    }
}

/// Where the lexer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Plain,
    Braces,
    /// Behind an opening bracket, before the first number.
    Duration,
}

struct Lexer<'t> {
    text: &'t str,
    pos: usize,
    state: State,
    parens: usize,
    bracket: bool,
    /// The bracket has had its colon.
    colon: bool,
}

impl Lexer<'_> {
    fn next(&mut self) -> Result<Token, SyntaxError> {
        self.skip_blank();
        match self.state {
            State::Plain => self.plain(),
            State::Braces => self.braces(),
            State::Duration => self.duration(),
        }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.pos + ahead).copied()
    }

    /// The character `ahead` bytes on, as Go quotes it.
    fn rune(&self, ahead: usize) -> String {
        match self
            .text
            .get(self.pos + ahead..)
            .and_then(|t| t.chars().next())
        {
            None => "'\u{fffd}'".to_owned(),
            Some('\'') => "'\\''".to_owned(),
            Some('\n') => "'\\n'".to_owned(),
            Some('\t') => "'\\t'".to_owned(),
            Some(c) => format!("'{c}'"),
        }
    }

    fn fail(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError::new(self.pos, message)
    }

    fn emit(&mut self, kind: Kind, len: usize) -> Token {
        let start = self.pos;
        self.pos += len;
        Token {
            kind,
            start,
            end: self.pos,
        }
    }

    fn plain(&mut self) -> Result<Token, SyntaxError> {
        let Some(first) = self.byte(0) else {
            if self.parens > 0 {
                return Err(self.fail("unclosed left parenthesis"));
            }
            if self.bracket {
                return Err(self.fail("unclosed left bracket"));
            }
            return Ok(self.emit(Kind::Eof, 0));
        };
        let (kind, len) = match (first, self.byte(1)) {
            (b',', _) => (Kind::Comma, 1),
            (b'@', _) => (Kind::At, 1),
            (b'=', Some(b'=')) => (Kind::Equal, 2),
            (b'=', Some(b'~')) => {
                return Err(self.fail("unexpected character after '=': '~'"));
            }
            (b'=', _) => (Kind::Assign, 1),
            (b'!', Some(b'=')) => (Kind::NotEqual, 2),
            (b'!', _) => {
                let message = format!("unexpected character after '!': {}", self.rune(1));
                return Err(self.fail(message));
            }
            (b'>', Some(b'=')) => (Kind::GreaterEqual, 2),
            (b'>', Some(b'/')) => (Kind::TrimLower, 2),
            (b'>', _) => (Kind::Greater, 1),
            (b'<', Some(b'=')) => (Kind::LessEqual, 2),
            (b'<', Some(b'/')) => (Kind::TrimUpper, 2),
            (b'<', _) => (Kind::Less, 1),
            (b'{', _) => {
                self.state = State::Braces;
                (Kind::LeftBrace, 1)
            }
            (b'[', _) if self.bracket => {
                return Err(self.fail("unexpected left bracket '['"));
            }
            (b'[', _) => {
                (self.bracket, self.colon) = (true, false);
                self.state = State::Duration;
                (Kind::LeftBracket, 1)
            }
            (b']', _) if !self.bracket => {
                return Err(self.fail("unexpected right bracket ']'"));
            }
            (b']', _) => {
                self.bracket = false;
                (Kind::RightBracket, 1)
            }
            (b':', _) if self.bracket => return self.bracket_colon("unexpected colon ':'"),
            (b'"' | b'\'' | b'`', _) => return self.string(),
            (b'.', Some(b'0'..=b'9')) | (b'0'..=b'9', _) => return self.number(),
            (b'a'..=b'z' | b'A'..=b'Z' | b'_', _) if self.bracket => {
                return self
                    .duration_word(|rune| format!("unexpected character: {rune}, expected ':'"));
            }
            (b'a'..=b'z' | b'A'..=b'Z' | b'_' | b':', _) => return Ok(self.word(Kind::Ident)),
            _ => match self.arithmetic(first)? {
                Some(found) => found,
                None => {
                    let message = format!("unexpected character: {}", self.rune(0));
                    return Err(self.fail(message));
                }
            },
        };
        Ok(self.emit(kind, len))
    }

    /// Operators and parentheses: what is the same inside brackets and out.
    fn arithmetic(&mut self, first: u8) -> Result<Option<(Kind, usize)>, SyntaxError> {
        let kind = match first {
            b'+' => Kind::Add,
            b'-' => Kind::Sub,
            b'*' => Kind::Mul,
            b'/' => Kind::Div,
            b'%' => Kind::Mod,
            b'^' => Kind::Pow,
            b'(' => {
                self.parens += 1;
                Kind::LeftParen
            }
            b')' if self.parens == 0 => {
                let message = "unexpected right parenthesis ')'";
                return Err(SyntaxError::new(self.pos + 1, message));
            }
            b')' => {
                self.parens -= 1;
                Kind::RightParen
            }
            _ => return Ok(None),
        };
        Ok(Some((kind, 1)))
    }

    fn braces(&mut self) -> Result<Token, SyntaxError> {
        let Some(first) = self.byte(0) else {
            return Err(self.fail("unexpected end of input inside braces"));
        };
        let (kind, len) = match (first, self.byte(1)) {
            (b',', _) => (Kind::Comma, 1),
            (b'=', Some(b'~')) => (Kind::EqualRegex, 2),
            (b'=', _) => (Kind::Assign, 1),
            (b'!', Some(b'=')) => (Kind::NotEqual, 2),
            (b'!', Some(b'~')) => (Kind::NotRegex, 2),
            (b'!', _) => {
                let rune = self.rune(1);
                let message = format!("unexpected character after '!' inside braces: {rune}");
                return Err(self.fail(message));
            }
            (b'{', _) => return Err(self.fail("unexpected left brace '{'")),
            (b'}', _) => {
                self.state = State::Plain;
                (Kind::RightBrace, 1)
            }
            (b'"' | b'\'' | b'`', _) => return self.string(),
            (b'a'..=b'z' | b'A'..=b'Z' | b'_', _) => return Ok(self.word(Kind::Label)),
            _ => {
                let message = format!("unexpected character inside braces: {}", self.rune(0));
                return Err(self.fail(message));
            }
        };
        Ok(self.emit(kind, len))
    }

    fn duration(&mut self) -> Result<Token, SyntaxError> {
        let Some(first) = self.byte(0) else {
            return Err(self.fail("unexpected end of input in duration expression"));
        };
        let wrong = |rune: String| format!("unexpected character in duration expression: {rune}");
        match (first, self.byte(1)) {
            (b']', _) => {
                self.bracket = false;
                self.state = State::Plain;
                Ok(self.emit(Kind::RightBracket, 1))
            }
            (b':', _) => self.bracket_colon("unexpected repeated colon in duration expression"),
            (b',', _) => Ok(self.emit(Kind::Comma, 1)),
            (b'.', Some(b'0'..=b'9')) | (b'0'..=b'9', _) => {
                self.state = State::Plain;
                self.number()
            }
            (b'a'..=b'z' | b'A'..=b'Z' | b'_', _) => self.duration_word(wrong),
            _ => match self.arithmetic(first)? {
                Some((kind, len)) => Ok(self.emit(kind, len)),
                None => Err(self.fail(wrong(self.rune(0)))),
            },
        }
    }

    fn bracket_colon(&mut self, again: &str) -> Result<Token, SyntaxError> {
        if self.colon {
            return Err(self.fail(again));
        }
        self.colon = true;
        Ok(self.emit(Kind::Colon, 1))
    }

    /// A word inside brackets: only the functions of durations are words there.
    fn duration_word(&mut self, wrong: impl Fn(String) -> String) -> Result<Token, SyntaxError> {
        let rune = self.rune(0);
        let token = self.word(Kind::Ident);
        let word = self.text[token.start..token.end].to_ascii_lowercase();
        if matches!(word.as_str(), "step" | "range" | "min_of" | "max_of") {
            return Ok(token);
        }
        Err(SyntaxError::new(token.start, wrong(rune)))
    }

    fn skip_blank(&mut self) {
        while let Some(byte) = self.byte(0) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.pos += 1,
                b'#' if self.state != State::Duration => {
                    let rest = &self.text[self.pos..];
                    self.pos += rest.find('\n').unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    fn word(&mut self, kind: Kind) -> Token {
        let colons = kind == Kind::Ident && !self.bracket;
        let part = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (colons && b == b':');
        let rest = &self.text.as_bytes()[self.pos..];
        let len = rest.iter().position(|b| !part(*b)).unwrap_or(rest.len());
        self.emit(kind, len)
    }

    fn string(&mut self) -> Result<Token, SyntaxError> {
        let bytes = &self.text.as_bytes()[self.pos..];
        let quote = bytes[0];
        let mut at = 1;
        loop {
            match bytes.get(at) {
                None if quote == b'`' => return Err(self.fail("unterminated raw string")),
                None => return Err(self.fail("unterminated quoted string")),
                Some(b'\n') if quote != b'`' => {
                    return Err(self.fail("unterminated quoted string"));
                }
                Some(b'\\') if quote != b'`' => at += 2,
                Some(&byte) if byte == quote => return Ok(self.emit(Kind::Str, at + 1)),
                Some(_) => at += 1,
            }
        }
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let bytes = &self.text.as_bytes()[self.pos..];
        let hex = matches!(bytes, [b'0', b'x' | b'X', ..]);
        let mut len = 0;
        while let Some(&byte) = bytes.get(len) {
            let exponent_sign = !hex
                && matches!(byte, b'+' | b'-')
                && matches!(bytes[len - 1], b'e' | b'E')
                && bytes.get(len + 1).is_some_and(u8::is_ascii_digit);
            if !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || exponent_sign) {
                break;
            }
            len += 1;
        }
        let word = &self.text[self.pos..self.pos + len];
        if parse_duration(word).is_some() {
            return Ok(self.emit(Kind::Duration, len));
        }
        let separated = !word.contains("__") && !word.ends_with('_');
        if separated && let Some(value) = parse_number(word) {
            if value.is_infinite() {
                return Err(self.fail(format!(
                    "error parsing number: strconv.ParseFloat: parsing {}: value out of range",
                    quote(word)
                )));
            }
            return Ok(self.emit(Kind::Number, len));
        }
        let unfinished = word.eq_ignore_ascii_case("0x")
            || word
                .strip_suffix(['e', 'E'])
                .is_some_and(|mantissa| mantissa.parse::<f64>().is_ok());
        if unfinished && (hex || len < bytes.len()) {
            return Err(self.fail(format!(
                "error parsing number: strconv.ParseFloat: parsing {}: invalid syntax",
                quote(word)
            )));
        }
        Err(self.fail(match bad_duration(word) {
            Some(reason) => reason,
            None => format!("bad number or duration syntax: {}", quote(word)),
        }))
    }
}

/// What is wrong with a word that is made like a duration but is none.
fn bad_duration(word: &str) -> Option<String> {
    let mut rest = word;
    let mut units: Vec<&str> = Vec::new();
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .filter(|at| *at > 0)?;
        let tail = &rest[digits..];
        let end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let unit = &tail[..end];
        if !["y", "w", "d", "h", "m", "s", "ms"].contains(&unit) || units.contains(&unit) {
            return None;
        }
        units.push(unit);
        rest = &tail[end..];
    }
    let order = |unit: &&str| {
        ["y", "w", "d", "h", "m", "s", "ms"]
            .iter()
            .position(|u| u == unit)
    };
    Some(match units.is_sorted_by_key(order) {
        true => "duration out of range".to_owned(),
        false => format!("not a valid duration string: {}", quote(word)),
    })
}
