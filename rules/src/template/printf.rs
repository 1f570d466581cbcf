//! Go's `fmt.Sprintf` for the values that templates have.

use super::number::format_float;
use super::value::Value;

/// Wider fields are cut to this: a template must not fill the memory.
const MAX_WIDTH: usize = 10_000;

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Formats as `fmt.Sprintf` does.
pub(super) fn sprintf(format: &str, args: &[Value]) -> String {
    let mut out = String::new();
    let mut next = 0;
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(flag) = chars.peek() {
            match flag {
                '-' => flags.minus = true,
                '+' => flags.plus = true,
                '#' => flags.sharp = true,
                ' ' => flags.space = true,
                '0' => flags.zero = true,
                _ => break,
            }
            chars.next();
        }
        let mut number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            if chars.peek() == Some(&'*') {
                chars.next();
                let value = args.get(next);
                next += 1;
                return match value {
                    Some(Value::Int(n)) => Some(*n),
                    _ => None,
                };
            }
            let mut digits = String::new();
            while let Some(digit) = chars.peek().filter(|c| c.is_ascii_digit()) {
                digits.push(*digit);
                chars.next();
            }
            digits.parse().ok()
        };
        if let Some(width) = number(&mut chars) {
            flags.minus |= width < 0;
            let width = usize::try_from(width.unsigned_abs()).unwrap_or(MAX_WIDTH);
            flags.width = Some(width.min(MAX_WIDTH));
        }
        if chars.peek() == Some(&'.') {
            chars.next();
            let precision = number(&mut chars).unwrap_or(0);
            flags.precision = usize::try_from(precision).ok().map(|p| p.min(MAX_WIDTH));
        }
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        match args.get(next) {
            Some(value) => out.push_str(&one(value, verb, flags)),
            None => out.push_str(&format!("%!{verb}(MISSING)")),
        }
        next += 1;
    }
    if next < args.len() {
        let extra: Vec<_> = args[next..]
            .iter()
            .map(|value| match value {
                Value::Nil | Value::Missing => "<nil>".to_owned(),
                value => format!("{}={}", value.type_name(), value.text()),
            })
            .collect();
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn one(value: &Value, verb: char, flags: Flags) -> String {
    if verb == 'T' {
        return pad(value.type_name().to_owned(), flags);
    }
    match (value, verb) {
        (Value::Float(number), 'v' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G') => {
            float(*number, verb, flags)
        }
        (Value::Int(number), 'v' | 'd' | 'b' | 'o' | 'x' | 'X' | 'c' | 'q' | 'U') => {
            integer(*number, verb, flags)
        }
        (Value::Str(text), 's' | 'v') => string(text, flags),
        (Value::Str(text), 'q') => pad(quote(text), flags),
        (Value::Str(text), 'x' | 'X') => {
            let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            let hex = if verb == 'X' { hex.to_uppercase() } else { hex };
            pad(hex, flags)
        }
        (Value::Bool(value), 't' | 'v') => pad(value.to_string(), flags),
        (Value::Nil | Value::Missing, 'v') => pad("<nil>".to_owned(), flags),
        (Value::Nil | Value::Missing, verb) => format!("%!{verb}(<nil>)"),
        (Value::Map(_) | Value::List(_) | Value::Struct(..) | Value::Time(_), 'v' | 's') => {
            pad(value.text(), flags)
        }
        (value, verb) => format!("%!{verb}({}={})", value.type_name(), value.text()),
    }
}

fn float(number: f64, verb: char, flags: Flags) -> String {
    let (kind, precision) = match verb {
        'v' => ('g', flags.precision),
        'g' | 'G' => (verb, flags.precision),
        _ => (verb, Some(flags.precision.unwrap_or(6))),
    };
    let text = format_float(number, kind, precision);
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) if text.starts_with('-') => ("-", digits),
        Some(digits) => ("+", digits),
        None if flags.plus => ("+", text.as_str()),
        None => ("", text.as_str()),
    };
    let sign = match sign {
        "+" if flags.space && !flags.plus => " ",
        "" if flags.space => " ",
        // Infinity is shown with a sign only if one is asked for, but for `%v`.
        "+" if number.is_infinite() && !flags.plus => "+",
        sign => sign,
    };
    let finite = number.is_finite();
    number_padded(
        sign,
        digits,
        Flags {
            zero: flags.zero && finite,
            ..flags
        },
    )
}

fn integer(number: i64, verb: char, flags: Flags) -> String {
    let magnitude = number.unsigned_abs();
    let character = || {
        u32::try_from(number)
            .ok()
            .and_then(char::from_u32)
            .unwrap_or('\u{fffd}')
    };
    let digits = match verb {
        'b' => format!("{magnitude:b}"),
        'o' if flags.sharp => format!("0{magnitude:o}"),
        'o' => format!("{magnitude:o}"),
        'x' if flags.sharp => format!("0x{magnitude:x}"),
        'x' => format!("{magnitude:x}"),
        'X' if flags.sharp => format!("0X{magnitude:X}"),
        'X' => format!("{magnitude:X}"),
        'c' => return pad(character().to_string(), flags),
        'q' => return pad(format!("'{}'", character()), flags),
        'U' => return pad(format!("U+{magnitude:04X}"), flags),
        _ => magnitude.to_string(),
    };
    let digits = match flags.precision {
        Some(precision) => format!("{digits:0>precision$}"),
        None => digits,
    };
    let sign = match (number < 0, flags.plus, flags.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        (false, false, false) => "",
    };
    let zero = flags.zero && flags.precision.is_none();
    number_padded(sign, &digits, Flags { zero, ..flags })
}

/// Zeroes go between sign and digits.
fn number_padded(sign: &str, digits: &str, flags: Flags) -> String {
    let width = flags.width.unwrap_or(0).saturating_sub(sign.len());
    match flags.zero && !flags.minus {
        true => format!("{sign}{digits:0>width$}"),
        false => pad(format!("{sign}{digits}"), flags),
    }
}

fn string(text: &str, flags: Flags) -> String {
    let text = match flags.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    };
    pad(text, flags)
}

fn pad(text: String, flags: Flags) -> String {
    let Some(width) = flags.width else {
        return text;
    };
    match (flags.minus, flags.zero) {
        (true, _) => format!("{text:<width$}"),
        (false, true) => format!("{text:0>width$}"),
        (false, false) => format!("{text:>width$}"),
    }
}

/// A string as Go quotes it.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || c == '\x7f' => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
