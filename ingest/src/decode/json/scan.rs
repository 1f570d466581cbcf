//! Walking over JSON text in place (RFC 8259), strictly, with bounded depth.

use std::borrow::Cow;

use crate::number::{Decimal, Grammar, scan_decimal};

/// Where and why text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) at: usize,
    pub(super) what: &'static str,
}

/// The type of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonType {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

impl JsonType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// A string's content, between its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonStr<'a> {
    pub(super) raw: &'a [u8],
    pub(super) escaped: bool,
}

impl<'a> JsonStr<'a> {
    /// The text; `None` if it is not UTF-8, or names half of a surrogate pair.
    pub(super) fn decode(self) -> Option<Cow<'a, str>> {
        if !self.escaped {
            return std::str::from_utf8(self.raw).ok().map(Cow::Borrowed);
        }
        let mut quoted = Vec::with_capacity(self.raw.len() + 2);
        quoted.push(b'"');
        quoted.extend_from_slice(self.raw);
        quoted.push(b'"');
        serde_json::from_slice(&quoted).ok().map(Cow::Owned)
    }

    /// Whether it is `word`, however it is written.
    #[inline]
    pub(super) fn is(self, word: &str) -> bool {
        if self.escaped {
            return self.decode().is_some_and(|text| text == word);
        }
        self.raw == word.as_bytes()
    }
}

/// A value that is no container.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar<'a> {
    Null,
    Boolean(bool),
    Number(Decimal),
    String(JsonStr<'a>),
}

/// A position in JSON text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    pub(super) text: &'a [u8],
    pub(super) pos: usize,
}

/// Which bytes end a run of plain characters in a string.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        special[byte] = true;
        byte += 1;
    }
    special[b'"' as usize] = true;
    special[b'\\' as usize] = true;
    special
};

impl<'a> Cursor<'a> {
    /// Containers nested deeper are refused; a device's payload has three levels.
    const MAX_DEPTH: u32 = 64;

    pub(super) fn new(text: &'a [u8], pos: usize) -> Self {
        Self { text, pos }
    }

    pub(super) fn error<T>(&self, what: &'static str) -> Result<T, SyntaxError> {
        Err(SyntaxError { at: self.pos, what })
    }

    /// The next byte that is not white space, not taken.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.pos) {
            self.pos += 1;
        }
        self.text.get(self.pos).copied()
    }

    /// Takes `byte` if it comes next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.pos += usize::from(found);
        found
    }

    /// The type of the value that comes next, from its first character.
    pub(super) fn peek_type(&mut self) -> Result<JsonType, SyntaxError> {
        match self.peek() {
            Some(b'{') => Ok(JsonType::Object),
            Some(b'[') => Ok(JsonType::Array),
            Some(b'"') => Ok(JsonType::String),
            Some(b't' | b'f') => Ok(JsonType::Boolean),
            Some(b'n') => Ok(JsonType::Null),
            Some(b'-' | b'0'..=b'9') => Ok(JsonType::Number),
            Some(_) => self.error("expected a value"),
            None => self.error("expected a value, found the end"),
        }
    }

    /// Takes a key and its colon.
    #[inline]
    pub(super) fn key(&mut self) -> Result<JsonStr<'a>, SyntaxError> {
        if self.peek() != Some(b'"') {
            return self.error("expected a key in quotes");
        }
        let key = self.string()?;
        if !self.take(b':') {
            return self.error("expected ':' behind the key");
        }
        Ok(key)
    }

    /// Takes what stands behind an element: `true` for a comma, `false` for `close`.
    #[inline]
    pub(super) fn comma_or(&mut self, close: u8) -> Result<bool, SyntaxError> {
        match self.peek() {
            Some(b',') => {
                self.pos += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.pos += 1;
                Ok(false)
            }
            _ if close == b'}' => self.error("expected ',' or '}'"),
            _ => self.error("expected ',' or ']'"),
        }
    }

    /// Takes a string whose opening quote comes next.
    #[inline]
    pub(super) fn string(&mut self) -> Result<JsonStr<'a>, SyntaxError> {
        let start = self.pos + 1;
        let mut pos = start;
        let mut escaped = false;
        loop {
            let Some(&byte) = self.text.get(pos) else {
                return self.error("the string is never closed");
            };
            if !SPECIAL[usize::from(byte)] {
                pos += 1;
                continue;
            }
            match byte {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    pos = self.escape(pos)?;
                }
                _ => {
                    self.pos = pos;
                    return self.error("a control character in a string");
                }
            }
        }
        self.pos = pos + 1;
        Ok(JsonStr {
            raw: &self.text[start..pos],
            escaped,
        })
    }

    #[cold]
    fn escape(&mut self, at: usize) -> Result<usize, SyntaxError> {
        match self.text.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
            Some(b'u')
                if self
                    .text
                    .get(at + 2..at + 6)
                    .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) =>
            {
                Ok(at + 6)
            }
            _ => {
                self.pos = at;
                self.error("an unknown escape in a string")
            }
        }
    }

    /// Takes a value that is no container.
    #[inline]
    pub(super) fn scalar(&mut self) -> Result<Scalar<'a>, SyntaxError> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => Ok(Scalar::Number(self.number()?)),
            Some(b'"') => self.string().map(Scalar::String),
            Some(b't') => self.word(b"true", Scalar::Boolean(true)),
            Some(b'f') => self.word(b"false", Scalar::Boolean(false)),
            Some(b'n') => self.word(b"null", Scalar::Null),
            _ => self.error("expected a value"),
        }
    }

    #[inline]
    fn number(&mut self) -> Result<Decimal, SyntaxError> {
        let Some(number) = scan_decimal(self.text, self.pos, Grammar::Json) else {
            return self.error("not a number as JSON writes it");
        };
        self.pos = number.end;
        Ok(number)
    }

    fn word(&mut self, word: &[u8], value: Scalar<'a>) -> Result<Scalar<'a>, SyntaxError> {
        if !self.text[self.pos..].starts_with(word) {
            return self.error("expected a value");
        }
        self.pos += word.len();
        Ok(value)
    }

    /// Takes any value, checking all of it.
    pub(super) fn skip_value(&mut self) -> Result<JsonType, SyntaxError> {
        self.skip_nested(0)
    }

    fn skip_nested(&mut self, depth: u32) -> Result<JsonType, SyntaxError> {
        if depth == Self::MAX_DEPTH {
            return self.error("nested too deeply");
        }
        let found = self.peek_type()?;
        match found {
            JsonType::Object => {
                self.pos += 1;
                if self.take(b'}') {
                    return Ok(found);
                }
                loop {
                    self.key()?;
                    self.skip_nested(depth + 1)?;
                    if !self.comma_or(b'}')? {
                        return Ok(found);
                    }
                }
            }
            JsonType::Array => {
                self.pos += 1;
                if self.take(b']') {
                    return Ok(found);
                }
                loop {
                    self.skip_nested(depth + 1)?;
                    if !self.comma_or(b']')? {
                        return Ok(found);
                    }
                }
            }
            JsonType::Null | JsonType::Boolean | JsonType::Number | JsonType::String => {
                self.scalar()?;
                Ok(found)
            }
        }
    }
}

/// Line and column, both from 1, the column in bytes.
pub(super) fn line_and_column(text: &[u8], at: usize) -> (usize, usize) {
    let before = &text[..at.min(text.len())];
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    let start = memchr::memrchr(b'\n', before).map_or(0, |n| n + 1);
    (line, before.len() - start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepts(text: &[u8]) -> bool {
        let mut cursor = Cursor::new(text, 0);
        cursor.skip_value().is_ok() && cursor.peek().is_none()
    }

    #[test]
    fn agrees_with_serde_json_on_odd_texts() {
        for text in [
            "",
            " ",
            "{}",
            "[]",
            "[1,]",
            "{,}",
            "{\"a\":}",
            "{\"a\" 1}",
            "{a:1}",
            "[1 2]",
            "01",
            "1.",
            "-",
            "+1",
            ".5",
            "1e5",
            "1E+5",
            "1e",
            "nul",
            "null",
            "true",
            "truex",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u1234\"",
            "\"a\nb\"",
            "\"a",
            "[[[]]]",
            "{\"a\":{\"b\":[null]}}",
            "1 1",
            "[\"a\",{}]",
            "{\"a\":1,}",
            "-0",
            "-01",
            "[-]",
            "\t[ 1 , 2 ]\r\n",
        ] {
            let expect = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(accepts(text.as_bytes()), expect, "{text:?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(accepts(nested(64).as_bytes()));
        assert!(!accepts(nested(65).as_bytes()));
        assert!(!accepts("[".repeat(1_000_000).as_bytes()));
    }

    #[test]
    fn positions_are_lines_and_columns() {
        assert_eq!(line_and_column(b"ab\ncd", 4), (2, 2));
        assert_eq!(line_and_column(b"", 0), (1, 1));
        assert_eq!(line_and_column(b"a\n", 9), (2, 1));
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in "[\\[\\]{}\",:0-9eE.+\\-truefalsn \\\\u]{0,24}") {
            let expect = serde_json::from_str::<serde_json::Value>(&text);
            // Serde refuses two things that are right by the grammar: floats out of range, and
            // escapes of half a surrogate pair.
            let beyond_grammar = expect.as_ref().err().is_some_and(|e| {
                let e = e.to_string();
                e.contains("out of range") || e.contains("surrogate") || e.contains("hex escape")
            });
            prop_assume!(!beyond_grammar);
            prop_assert_eq!(accepts(text.as_bytes()), expect.is_ok(), "{:?}", expect);
        }
    }
}
