//! Whether two answers are equal.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::Value;

/// How far two values may be from each other, relative to the larger.
const TOLERANCE: f64 = 1e-9;

/// What is different, if anything. The name of a metric does not count: VictoriaMetrics keeps it
/// where Prometheus drops it. Nor does the order of series; with `tied` nor which series they are.
pub fn difference(ours: &[u8], theirs: &[u8], tied: bool) -> Result<Option<String>> {
    let [ours, theirs] = [ours, theirs].map(serde_json::from_slice::<Value>);
    let (ours, theirs) = (ours?["data"].take(), theirs?["data"].take());
    match (&ours, &theirs) {
        (Value::Array(a), Value::Array(b)) => Ok(lists(a, b)),
        (Value::Object(_), Value::Object(_)) => {
            let (mut a, mut b) = (table(&ours)?, table(&theirs)?);
            if tied {
                (a, b) = (values_alone(&a), values_alone(&b));
            }
            Ok(tables(&a, &b))
        }
        _ => bail!("answers of no known shape"),
    }
}

/// Label values or series.
fn lists(ours: &[Value], theirs: &[Value]) -> Option<String> {
    let sorted = |list: &[Value]| {
        let mut texts: Vec<_> = list.iter().map(Value::to_string).collect();
        texts.sort();
        texts
    };
    (sorted(ours) != sorted(theirs)).then(|| format!("{} and {} entries", ours.len(), theirs.len()))
}

type Table = BTreeMap<Vec<(String, String)>, Vec<(i64, f64)>>;

fn table(data: &Value) -> Result<Table> {
    let mut table = Table::new();
    for item in data["result"].as_array().into_iter().flatten() {
        let labels = item["metric"].as_object().into_iter().flatten();
        let mut key: Vec<_> = labels
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect();
        // Kept where two series would be one without it.
        let name = key.iter().position(|(name, _)| name == "__name__");
        if let Some(at) = name
            && data["resultType"] == "matrix"
        {
            key.remove(at);
        }
        let single = [item["value"].clone()];
        let points = item["values"].as_array().map_or(&single[..], |v| &v[..]);
        let points = points.iter().map(point).collect::<Option<Vec<_>>>();
        match points {
            Some(points) => table.insert(key, points),
            None => bail!("an answer with points of no known shape"),
        };
    }
    Ok(table)
}

/// All points as one series, by time and value.
fn values_alone(table: &Table) -> Table {
    let mut points: Vec<_> = table.values().flatten().copied().collect();
    points.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    Table::from([(Vec::new(), points)])
}

fn point(pair: &Value) -> Option<(i64, f64)> {
    let time = (pair[0].as_f64()? * 1000.0).round() as i64;
    let value = match pair[1].as_str()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        text => text.parse().ok()?,
    };
    Some((time, value))
}

fn tables(ours: &Table, theirs: &Table) -> Option<String> {
    if !ours.keys().eq(theirs.keys()) {
        let extra = ours.keys().find(|key| !theirs.contains_key(*key));
        let missing = theirs.keys().find(|key| !ours.contains_key(*key));
        return Some(format!(
            "{} and {} series; extra {extra:?}, missing {missing:?}",
            ours.len(),
            theirs.len()
        ));
    }
    for (series, a) in ours {
        let b = &theirs[series];
        if a.len() != b.len() {
            return Some(format!("{series:?}: {} and {} points", a.len(), b.len()));
        }
        let differs = |((t, x), (u, y)): &(&(i64, f64), &(i64, f64))| t != u || !close(*x, *y);
        if let Some((a, b)) = a.iter().zip(b).find(differs) {
            return Some(format!("{series:?}: {a:?} and {b:?}"));
        }
    }
    None
}

fn close(a: f64, b: f64) -> bool {
    a == b
        || (a.is_nan() && b.is_nan())
        || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1e-3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ours: &str, theirs: &str, same: bool) {
        let found = difference(ours.as_bytes(), theirs.as_bytes(), false).unwrap();
        assert_eq!(found.is_none(), same, "{found:?}");
    }

    #[test]
    fn matrices_are_compared_point_by_point() {
        let matrix = |name: &str, value: &str| {
            format!(
                r#"{{"data":{{"resultType":"matrix","result":[{{"metric":{{{name}"a":"b"}},"values":[[1,"{value}"]]}}]}}}}"#
            )
        };
        check(&matrix("", "1"), &matrix("", "1.0000000001"), true);
        check(&matrix("", "1"), &matrix("\"__name__\":\"m\",", "1"), true);
        check(&matrix("", "1"), &matrix("", "1.00001"), false);
        check(&matrix("", "1"), &matrix("\"c\":\"d\",", "1"), false);
        check(&matrix("", "NaN"), &matrix("", "NaN"), true);
    }

    #[test]
    fn lists_are_compared_without_order() {
        check(r#"{"data":["a","b"]}"#, r#"{"data":["b","a"]}"#, true);
        check(r#"{"data":["a"]}"#, r#"{"data":["b","a"]}"#, false);
    }
}
