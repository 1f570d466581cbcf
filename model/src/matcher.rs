//! Label tests.

use std::fmt;

use regex::{Regex, RegexBuilder};

use crate::Labels;

/// How a [`Matcher`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// Its number in formats on disk and wire.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Equal => 0,
            Self::NotEqual => 1,
            Self::Regex => 2,
            Self::NotRegex => 3,
        }
    }

    /// The operator of that number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Equal, Self::NotEqual, Self::Regex, Self::NotRegex]
            .into_iter()
            .find(|op| op.code() == code)
    }

    /// The operator as PromQL writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// One label test (`=`, `!=`, `=~`, `!~`). A label that a series lacks counts as one with an empty
/// value; regular expressions are anchored at both ends and `.` matches line feeds, as in
/// Prometheus.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    op: MatchOp,
    value: String,
    /// Of the operators that take a pattern.
    pattern: Option<Pattern>,
}

/// A pattern, ready to be matched. Most that dashboards write need no automaton, and to build one
/// takes longer than a small query does.
#[derive(Clone, Debug)]
enum Pattern {
    /// `a|b.*|.*c`: nothing but alternatives that are text, with anything before or behind it.
    Pieces(Box<[Piece]>),
    Regex(Regex),
}

/// An alternative.
#[derive(Clone, Debug, Default)]
struct Piece {
    text: String,
    /// Anything may stand before it.
    open: bool,
    /// So many bytes or more may stand behind it; nothing, if there is no number.
    behind: Option<usize>,
}

impl Pattern {
    fn new(text: &str) -> Result<Self, MatcherError> {
        if text.len() > Matcher::MAX_PATTERN_BYTES {
            return Err(MatcherError::PatternTooLong { bytes: text.len() });
        }
        match pieces(text) {
            Some(pieces) => Ok(Self::Pieces(pieces.into())),
            None => compile(text).map(Self::Regex),
        }
    }

    /// Whether `value` matches from end to end.
    fn is_match(&self, value: &str) -> bool {
        match self {
            Self::Pieces(pieces) => pieces.iter().any(|piece| piece.is_match(value)),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

impl Piece {
    fn is_match(&self, value: &str) -> bool {
        let text = self.text.as_str();
        let rest = match (self.open, self.behind) {
            (false, None) => return value == text,
            (true, None) => return value.ends_with(text),
            (false, Some(_)) => value.strip_prefix(text).map(str::len),
            // The first place leaves the most behind it.
            (true, Some(_)) => value.find(text).map(|at| value.len() - at - text.len()),
        };
        rest.is_some_and(|rest| self.behind.is_some_and(|least| rest >= least))
    }
}

/// The pattern's alternatives, if there is nothing else in it.
fn pieces(pattern: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut piece = Piece::default();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '|' => pieces.push(std::mem::take(&mut piece)),
            _ if piece.behind.is_some() => return None,
            '.' => match chars.next() {
                Some('*') if piece.text.is_empty() && !piece.open => piece.open = true,
                Some('*') => piece.behind = Some(0),
                Some('+') => piece.behind = Some(1),
                Some(_) | None => return None,
            },
            '\\' => piece
                .text
                .push(chars.next().filter(|c| Matcher::is_escaped(*c))?),
            '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            c => piece.text.push(c),
        }
    }
    pieces.push(piece);
    Some(pieces)
}

impl Matcher {
    /// Longest pattern taken, in bytes.
    pub const MAX_PATTERN_BYTES: usize = 1024;
    /// Most memory that a compiled pattern may take, in bytes.
    pub const MAX_PROGRAM_BYTES: usize = 1 << 20;

    /// A test of the label `name`.
    ///
    /// # Errors
    ///
    /// A regular expression that does not parse, or is over one of the two bounds.
    pub fn new(
        name: impl Into<String>,
        op: MatchOp,
        value: impl Into<String>,
    ) -> Result<Self, MatcherError> {
        let value = value.into();
        let pattern = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(Pattern::new(&value)?),
        };
        Ok(Self {
            name: name.into(),
            op,
            value,
            pattern,
        })
    }

    /// The test `name="value"`.
    #[must_use]
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            op: MatchOp::Equal,
            value: value.into(),
            pattern: None,
        }
    }

    /// Whether a character that stands behind `\` in a pattern is meant as it is.
    #[must_use]
    pub fn is_escaped(c: char) -> bool {
        // `\<` and `\>` are edges of words.
        c.is_ascii_punctuation() && !matches!(c, '<' | '>')
    }

    /// The label that is tested.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is tested.
    #[must_use]
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// The value or pattern that it is tested against, as written.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a label with this value passes; `""` stands for a label that is not there.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.pattern) {
            (MatchOp::Equal, _) => value == self.value,
            (MatchOp::NotEqual, _) => value != self.value,
            (MatchOp::Regex, Some(pattern)) => pattern.is_match(value),
            (MatchOp::NotRegex, Some(pattern)) => !pattern.is_match(value),
            (MatchOp::Regex | MatchOp::NotRegex, None) => {
                unreachable!("a regex matcher is built with its pattern")
            }
        }
    }

    /// Whether a series without the label passes. Such a matcher cannot be answered from the
    /// label's postings alone.
    #[must_use]
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// Whether a series with these labels passes.
    #[must_use]
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.get(&self.name).unwrap_or_default())
    }
}

fn compile(pattern: &str) -> Result<Regex, MatcherError> {
    RegexBuilder::new(&format!("^(?s:{pattern})$"))
        .size_limit(Matcher::MAX_PROGRAM_BYTES)
        .dfa_size_limit(Matcher::MAX_PROGRAM_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => MatcherError::ProgramTooBig {
                pattern: pattern.to_owned(),
            },
            error => MatcherError::Syntax {
                pattern: pattern.to_owned(),
                reason: last_line(&error.to_string()),
            },
        })
}

/// The crate draws the pattern with a marker over several lines; its last line says what is wrong.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Two matchers that were written alike are alike.
impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Eq for Matcher {}

/// As PromQL writes it.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.as_str(), self.value)
    }
}

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// It is no regular expression.
    #[error("error parsing regexp: {reason}: `{pattern}`")]
    Syntax {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is too long.
    #[error("regular expression of {bytes} bytes, the limit is {max}", max = Matcher::MAX_PATTERN_BYTES)]
    PatternTooLong {
        /// Its length.
        bytes: usize,
    },
    /// It needs too much memory.
    #[error(
        "regular expression `{pattern}` compiles to more than {max} bytes",
        max = Matcher::MAX_PROGRAM_BYTES
    )]
    ProgramTooBig {
        /// The pattern.
        pattern: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(op: MatchOp, pattern: &str, value: &str, expect: bool) {
        let matcher = Matcher::new("l", op, pattern).unwrap();
        assert_eq!(matcher.matches(value), expect, "{matcher} on {value:?}");
    }

    #[test]
    fn patterns_are_anchored_and_alternatives_grouped() {
        check(MatchOp::Regex, "a|b", "a", true);
        check(MatchOp::Regex, "a|b", "ab", false);
        check(MatchOp::Regex, "a.*", "a\nb", true);
        check(MatchOp::NotRegex, "a.*", "ba", true);
        check(MatchOp::Equal, "", "", true);
        check(MatchOp::NotEqual, "", "", false);
        check(MatchOp::Regex, ".*", "", true);
    }

    #[test]
    fn patterns_without_an_automaton_match_what_the_automaton_does() {
        let patterns = [
            "",
            "a",
            "a|b",
            "a|",
            "|",
            "a||b",
            "ab|a",
            ".*",
            ".+",
            "a.*",
            "a.+",
            "ü.+",
            "a|b.*",
            ".*a",
            ".*a.*",
            ".*a.+",
            ".*.*",
            ".*.+",
            ".+a",
            ".*a|b.+|c/d",
            ".*a.*b",
            ".*?",
            "a.*?",
            "a.+*",
            "a.*b",
            ".*|a",
            r"a\..*",
            r".*\.b",
            r"\|",
            r"\.*",
            ".*ab.*",
            ".*ü",
            r"\<a",
            r"a\>",
            "(a|b)",
            "a.",
            r"a\.*",
            r"a\|b",
            "(?i)a",
            "a-b|c/d",
            "a#b",
            " a|b ",
            "a&&b",
            "~a|<b>",
        ];
        let values = [
            "", "a", "b", "ab", "ba", "a|b", "A", "ü", "üü", "a\n", "a.", "a.b", "a-b", "c/d",
            "a#b", " a", "b ", "a&&b", "aa", "aab", "bab", "xaüb", ".", "..", "aba", "~a", "<b>",
            "|",
        ];
        for pattern in patterns {
            let matcher = Matcher::new("l", MatchOp::Regex, pattern).unwrap();
            let automaton = compile(pattern).unwrap();
            for value in values {
                let expect = automaton.is_match(value);
                assert_eq!(matcher.matches(value), expect, "{pattern:?} on {value:?}");
            }
        }
    }

    #[test]
    fn bad_and_huge_patterns_are_refused() {
        let of = |p: &str| Matcher::new("l", MatchOp::Regex, p).unwrap_err();
        assert!(
            matches!(of("a("), MatcherError::Syntax { .. }),
            "{}",
            of("a(")
        );
        assert!(matches!(
            of(&"x".repeat(1025)),
            MatcherError::PatternTooLong { bytes: 1025 }
        ));
        assert!(matches!(
            of("(a{1000}){1000}"),
            MatcherError::ProgramTooBig { .. }
        ));
    }
}
