//! Floating-point numbers as Go's `strconv.FormatFloat` writes them.

/// Formats by `verb` (`e`, `E`, `f`, `F`, `g`, `G`); without a precision, in the fewest digits that
/// are read as the same number.
pub(super) fn format_float(value: f64, verb: char, precision: Option<usize>) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = match verb {
        'e' | 'E' => exponential(value, precision),
        'f' | 'F' => match precision {
            Some(precision) => format!("{value:.precision$}"),
            None => plain(value),
        },
        _ => general(value, precision),
    };
    match verb {
        'E' | 'G' => text.to_uppercase(),
        _ => text,
    }
}

/// Rust's `1.5e-7` with an exponent of two digits at least and a sign.
fn exponential(value: f64, precision: Option<usize>) -> String {
    let text = match precision {
        Some(precision) => format!("{value:.precision$e}"),
        None => format!("{value:e}"),
    };
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// The shortest digits without an exponent.
fn plain(value: f64) -> String {
    // Rust's own form never has an exponent.
    format!("{value}")
}

fn general(value: f64, precision: Option<usize>) -> String {
    let shortest = precision.is_none();
    let significant = precision.map_or(17, |precision| precision.max(1));
    let scientific = match precision {
        Some(_) => format!("{value:.*e}", significant - 1),
        None => format!("{value:e}"),
    };
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let count = digits.chars().filter(char::is_ascii_digit).count();
    let trimmed = match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    };
    let point = exponent + 1;
    let mut limit = i32::try_from(significant).unwrap_or(i32::MAX);
    let digits_left = trimmed.chars().filter(char::is_ascii_digit).count();
    let digits_left = i32::try_from(if shortest { count } else { digits_left }).unwrap_or(i32::MAX);
    if limit > digits_left && digits_left >= point {
        limit = digits_left;
    }
    if shortest {
        limit = 6;
    }
    if exponent < -4 || exponent >= limit {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{trimmed}e{sign}{:02}", exponent.abs());
    }
    match precision {
        None => plain(value),
        Some(_) => {
            let decimals = i32::try_from(significant).unwrap_or(i32::MAX) - point;
            let text = format!("{value:.*}", usize::try_from(decimals).unwrap_or(0));
            match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text,
            }
        }
    }
}
