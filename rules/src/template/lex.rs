//! From text to tokens, by the rules of Go's `text/template`.

/// What a template is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Outside of actions.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// A function's name, a keyword, `true`, `false`, `nil`.
    Word(String),
    /// `.name`
    Field(String),
    /// `.`
    Dot,
    /// `$` or `$name`
    Variable(String),
    Str(String),
    Int(i64),
    Float(f64),
    Pipe,
    Left,
    Right,
    Declare,
    Assign,
    Comma,
    End,
}

#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) token: Token,
    /// The byte where it begins.
    pub(super) at: usize,
    /// Whether there is white space before it: `$x .a` is not `$x.a`.
    pub(super) spaced: bool,
}

/// What is wrong, and at which byte.
pub(super) type Wrong = (usize, String);

/// Takes a text apart. The last token is [`Token::End`].
pub(super) fn lex(text: &str) -> Result<Vec<Item>, Wrong> {
    let mut lexer = Lexer {
        text,
        at: 0,
        items: Vec::new(),
    };
    let mut trim = false;
    loop {
        let rest = &text[lexer.at..];
        let open = rest.find("{{");
        let plain = &rest[..open.unwrap_or(rest.len())];
        let begin = lexer.at;
        let after = lexer.at + plain.len();
        let trim_right = trimmed_left(text, after);
        let mut shown = plain;
        if trim {
            shown = shown.trim_start_matches(is_space);
        }
        if open.is_some() && trim_right {
            shown = shown.trim_end_matches(is_space);
        }
        if !shown.is_empty() {
            lexer.push(Token::Text(shown.to_owned()), begin, false);
        }
        lexer.at = after;
        if open.is_none() {
            lexer.push(Token::End, after, false);
            return Ok(lexer.items);
        }
        lexer.at += 2 + usize::from(trim_right);
        trim = lexer.action(after, trim_right)?;
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Whether the action at `at` begins with `{{- `.
fn trimmed_left(text: &str, at: usize) -> bool {
    let mut rest = text[at..].chars().skip(2);
    rest.next() == Some('-') && rest.next().is_some_and(is_space)
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    items: Vec<Item>,
}

impl<'t> Lexer<'t> {
    fn push(&mut self, token: Token, at: usize, spaced: bool) {
        self.items.push(Item { token, at, spaced });
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// The tokens of an action that begins at `open`. Whether it ends with `-}}`.
    fn action(&mut self, open: usize, trimmed: bool) -> Result<bool, Wrong> {
        let comment = match trimmed {
            true => self.rest().trim_start_matches(is_space),
            false => self.rest(),
        };
        if comment.starts_with("/*") {
            self.at = self.text.len() - comment.len();
            return self.comment(open);
        }
        self.push(Token::Open, open, false);
        loop {
            let before = self.at;
            self.at += self.rest().len() - self.rest().trim_start_matches(is_space).len();
            let spaced = self.at > before;
            let (at, rest) = (self.at, self.rest());
            if spaced && rest.starts_with("-}}") {
                self.at += 3;
                self.push(Token::Close, at, false);
                return Ok(true);
            }
            if rest.starts_with("}}") {
                self.at += 2;
                self.push(Token::Close, at, false);
                return Ok(false);
            }
            if rest.is_empty() {
                return Err((open, "unclosed action".to_owned()));
            }
            let token = self.token()?;
            self.push(token, at, spaced);
        }
    }

    fn comment(&mut self, open: usize) -> Result<bool, Wrong> {
        let end = self.rest().find("*/");
        let end = end.ok_or_else(|| (open, "unclosed comment".to_owned()))?;
        self.at += end + 2;
        let rest = self.rest();
        if rest.starts_with("}}") {
            self.at += 2;
            return Ok(false);
        }
        let tail = rest.trim_start_matches(is_space);
        if tail.len() < rest.len() && tail.starts_with("-}}") {
            self.at = self.text.len() - tail.len() + 3;
            return Ok(true);
        }
        Err((open, "comment ends before closing delimiter".to_owned()))
    }

    fn token(&mut self) -> Result<Token, Wrong> {
        let at = self.at;
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or_default();
        let simple = [
            (":=", Token::Declare),
            ("=", Token::Assign),
            ("|", Token::Pipe),
            ("(", Token::Left),
            (")", Token::Right),
            (",", Token::Comma),
        ];
        for (text, token) in simple {
            if rest.starts_with(text) {
                self.at += text.len();
                return Ok(token);
            }
        }
        let second = rest[first.len_utf8()..].chars().next();
        match first {
            '"' => self.quoted(at),
            '`' => {
                let end = rest[1..].find('`');
                let end = end.ok_or_else(|| (at, "unterminated raw quoted string".to_owned()))?;
                let text = rest[1..=end].replace('\r', "");
                self.at += end + 2;
                Ok(Token::Str(text))
            }
            '\'' => self.character(at),
            '$' => {
                let name = self.name_after(1);
                Ok(Token::Variable(format!("${name}")))
            }
            '.' if !second.is_some_and(|c| c.is_ascii_digit()) => {
                let name = self.name_after(1);
                Ok(match name.is_empty() {
                    true => Token::Dot,
                    false => Token::Field(name),
                })
            }
            '0'..='9' | '.' | '+' | '-' => self.number(at),
            c if c.is_alphanumeric() || c == '_' => Ok(Token::Word(self.name_after(0))),
            c => Err((at, format!("unexpected {c:?} in command"))),
        }
    }

    fn name_after(&mut self, skip: usize) -> String {
        let rest = &self.text[self.at + skip..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        let name = &rest[..end.unwrap_or(rest.len())];
        self.at += skip + name.len();
        name.to_owned()
    }

    fn number(&mut self, at: usize) -> Result<Token, Wrong> {
        let rest = &self.text[self.at..];
        let hex = rest.trim_start_matches(['+', '-']);
        let hex = hex.starts_with("0x") || hex.starts_with("0X");
        let mut previous = ' ';
        let end = rest.char_indices().find(|(i, c)| {
            let sign =
                matches!(c, '+' | '-') && (*i == 0 || (!hex && matches!(previous, 'e' | 'E')));
            previous = *c;
            !(c.is_alphanumeric() || *c == '_' || *c == '.' || sign)
        });
        let text = &rest[..end.map_or(rest.len(), |(i, _)| i)];
        self.at += text.len();
        let plain = text.replace('_', "");
        let bad = || (at, format!("bad number syntax: {text:?}"));
        let (negative, digits) = match plain.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
        };
        let signed = |n: i64| if negative { -n } else { n };
        let radix = |prefix: [&str; 2], radix: u32| {
            let digits = prefix.iter().find_map(|p| digits.strip_prefix(*p))?;
            i64::from_str_radix(digits, radix).ok().map(signed)
        };
        if hex {
            return radix(["0x", "0X"], 16).map(Token::Int).ok_or_else(bad);
        }
        let other = radix(["0b", "0B"], 2).or_else(|| radix(["0o", "0O"], 8));
        if let Some(number) = other {
            return Ok(Token::Int(number));
        }
        if digits.contains(['.', 'e', 'E']) {
            return plain.parse().map(Token::Float).map_err(|_| bad());
        }
        if digits.len() > 1 && digits.starts_with('0') {
            let octal = i64::from_str_radix(digits, 8).map_err(|_| bad())?;
            return Ok(Token::Int(signed(octal)));
        }
        plain.parse().map(Token::Int).map_err(|_| bad())
    }

    fn quoted(&mut self, at: usize) -> Result<Token, Wrong> {
        let (text, length) = unquote(self.rest(), '"')
            .ok_or_else(|| (at, "unterminated quoted string".to_owned()))?;
        self.at += length;
        Ok(Token::Str(text))
    }

    fn character(&mut self, at: usize) -> Result<Token, Wrong> {
        let wrong = || (at, "malformed character constant".to_owned());
        let (text, length) = unquote(self.rest(), '\'').ok_or_else(wrong)?;
        self.at += length;
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) => Ok(Token::Int(i64::from(u32::from(c)))),
            _ => Err(wrong()),
        }
    }
}

/// The text of a Go literal that begins with `quote`, and its length with both quotes.
fn unquote(text: &str, quote: char) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some((out, at + 1)),
            '\n' => return None,
            '\\' => {
                let (_, escape) = chars.next()?;
                let mut digits = |first: Option<char>, count: usize, radix: u32| {
                    let mut value = first.map_or(Some(0), |c| c.to_digit(radix))?;
                    for _ in 0..count {
                        value = value * radix + chars.next()?.1.to_digit(radix)?;
                    }
                    char::from_u32(value)
                };
                out.push(match escape {
                    'a' => '\x07',
                    'b' => '\x08',
                    'f' => '\x0c',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'v' => '\x0b',
                    '\\' => '\\',
                    'x' => digits(None, 2, 16)?,
                    'u' => digits(None, 4, 16)?,
                    'U' => digits(None, 8, 16)?,
                    c @ '0'..='7' => digits(Some(c), 2, 8)?,
                    c if c == quote => quote,
                    _ => return None,
                });
            }
            c => out.push(c),
        }
    }
    None
}
