//! What a matcher needs of an index.

use std::borrow::Cow;

use millrace_model::{MatchOp, Matcher};

/// How a matcher is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape<'a> {
    /// Every series passes.
    Everything,
    /// The series that have the label.
    Present,
    /// All but those.
    Absent,
    /// The series with one of these values, of which none is empty.
    OneOf(Vec<Cow<'a, str>>),
    /// All but those.
    NoneOf(Vec<Cow<'a, str>>),
    /// The series with a value that passes; those that do begin with `prefix`.
    Scan {
        /// May be empty.
        prefix: String,
    },
    /// All but the series with a value that does not pass.
    ScanAway,
}

impl<'a> Shape<'a> {
    pub(super) fn of(matcher: &'a Matcher) -> Self {
        let value = matcher.value();
        match matcher.op() {
            MatchOp::Equal if value.is_empty() => Self::Absent,
            MatchOp::Equal => Self::OneOf(vec![Cow::Borrowed(value)]),
            MatchOp::NotEqual if value.is_empty() => Self::Present,
            MatchOp::NotEqual => Self::NoneOf(vec![Cow::Borrowed(value)]),
            MatchOp::Regex => match (value, alternatives(value)) {
                (".*", _) => Self::Everything,
                (".+", _) => Self::Present,
                (_, Some(values)) => Self::OneOf(values),
                _ if matcher.matches_empty() => Self::ScanAway,
                _ => Self::Scan {
                    prefix: literal_prefix(value),
                },
            },
            MatchOp::NotRegex => match (value, alternatives(value)) {
                (".+", _) => Self::Absent,
                // `.*` passes nothing, and `Scan` finds nothing.
                (_, Some(values)) => Self::NoneOf(values),
                _ if matcher.matches_empty() => Self::ScanAway,
                _ => Self::Scan {
                    prefix: String::new(),
                },
            },
        }
    }

    /// Cheap ones first; of equals, the ones that keep.
    pub(super) fn rank(&self, matcher: &Matcher) -> u8 {
        match self {
            Self::OneOf(_) if matcher.op() == MatchOp::Equal => 0,
            Self::OneOf(_) => 1,
            Self::Everything => 2,
            Self::Present => 3,
            Self::NoneOf(_) => 4,
            Self::Absent => 5,
            Self::Scan { prefix } if !prefix.is_empty() => 6,
            Self::Scan { .. } => 7,
            Self::ScanAway => 8,
        }
    }
}

/// Characters that mean something in a pattern, `|` and `\` aside.
fn is_special(c: char) -> bool {
    matches!(
        c,
        '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$'
    )
}

/// The values that a pattern like `a|b|c` or `(a|b\.c)` names; `None` if it does more than that, or
/// names the empty value.
fn alternatives(pattern: &str) -> Option<Vec<Cow<'_, str>>> {
    let inner = pattern
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
        // The parenthesis may be an escaped one.
        .filter(|inner| !inner.ends_with('\\'))
        .unwrap_or(pattern);
    let mut values = Vec::new();
    let mut value = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '|' => values.push(std::mem::take(&mut value)),
            '\\' => value.push(chars.next().filter(|c| Matcher::is_escaped(*c))?),
            c if is_special(c) => return None,
            c => value.push(c),
        }
    }
    values.push(value);
    if values.iter().any(String::is_empty) {
        return None;
    }
    Some(values.into_iter().map(Cow::Owned).collect())
}

/// What every text that the pattern matches begins with.
fn literal_prefix(pattern: &str) -> String {
    let mut prefix = String::new();
    // An alternative might begin with anything.
    if pattern.contains('|') {
        return prefix;
    }
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        let literal = match c {
            '\\' => chars.next().filter(|c| Matcher::is_escaped(*c)),
            c if is_special(c) => None,
            c => Some(c),
        };
        let Some(literal) = literal else {
            break;
        };
        // It may be repeated, or not be there at all.
        if chars
            .peek()
            .is_some_and(|&next| matches!(next, '?' | '*' | '+' | '{'))
        {
            break;
        }
        prefix.push(literal);
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(op: MatchOp, pattern: &str, expect: &Shape<'_>) {
        let matcher = Matcher::new("l", op, pattern).unwrap();
        assert_eq!(&Shape::of(&matcher), expect, "{matcher}");
    }

    fn values<const N: usize>(values: [&str; N]) -> Vec<Cow<'_, str>> {
        values.into_iter().map(Cow::Borrowed).collect()
    }

    fn scan(prefix: &str) -> Shape<'static> {
        Shape::Scan {
            prefix: prefix.into(),
        }
    }

    #[test]
    fn patterns_that_name_their_values_are_looked_up() {
        check(MatchOp::Regex, "a", &Shape::OneOf(values(["a"])));
        check(
            MatchOp::Regex,
            "a|b|c",
            &Shape::OneOf(values(["a", "b", "c"])),
        );
        check(
            MatchOp::Regex,
            r"(h\.1:9100|h2)",
            &Shape::OneOf(values(["h.1:9100", "h2"])),
        );
        check(MatchOp::NotRegex, "a|b", &Shape::NoneOf(values(["a", "b"])));
        check(
            MatchOp::Regex,
            r"\(a|b\)",
            &Shape::OneOf(values(["(a", "b)"])),
        );
    }

    #[test]
    fn patterns_that_do_more_are_scanned() {
        check(MatchOp::Regex, "a|", &Shape::ScanAway);
        check(MatchOp::Regex, "(a|b)(c|d)", &scan(""));
        check(MatchOp::Regex, r"a|\d", &scan(""));
        check(MatchOp::Regex, "a.*", &scan("a"));
        check(MatchOp::Regex, "ab?c", &scan("a"));
        check(MatchOp::Regex, "ab+", &scan("a"));
        check(MatchOp::Regex, r"node\.cpu_.+", &scan("node.cpu_"));
        check(MatchOp::Regex, "(?i)abc", &scan(""));
        check(MatchOp::Regex, r"\<abc", &scan(""));
        check(MatchOp::NotRegex, "a.*", &Shape::ScanAway);
        check(MatchOp::NotRegex, ".*", &scan(""));
        check(MatchOp::NotRegex, "a?", &scan(""));
    }

    #[test]
    fn broad_matchers_need_no_values() {
        check(MatchOp::NotEqual, "", &Shape::Present);
        check(MatchOp::Regex, ".+", &Shape::Present);
        check(MatchOp::Regex, ".*", &Shape::Everything);
        check(MatchOp::Equal, "", &Shape::Absent);
        check(MatchOp::NotRegex, ".+", &Shape::Absent);
    }
}
