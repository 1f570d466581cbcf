//! That the comparison can fail, and that the naive evaluator is right where the right answer is
//! plain.

use millrace_model::stale_nan;
use millrace_query::{QueryError, QueryTime};

use crate::compare::{Answer, Question, at, difference};
use crate::eval::{Data, Labels};
use crate::expr::{At, Expr, Matching, Selector, Shift};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

fn metric(name: &'static str) -> Expr {
    Expr::Selector(Selector {
        name: Some(name),
        tests: Vec::new(),
        shift: Shift::default(),
    })
}

fn range(name: &'static str, range_ms: i64) -> Expr {
    let Expr::Selector(selector) = metric(name) else {
        unreachable!("just made")
    };
    Expr::Range(selector, range_ms)
}

/// `up` at 0, 10, …, 60 s: 0, 10, 20, 30, then a reset to 5, 15, 25; and a short-lived one.
fn data() -> Data {
    let up = [0.0, 10.0, 20.0, 30.0, 5.0, 15.0, 25.0];
    let up = up
        .iter()
        .enumerate()
        .map(|(i, v)| (i as i64 * 10_000, *v))
        .collect();
    Data::from([
        (labels(&[("__name__", "up"), ("a", "1")]), up),
        (
            labels(&[("__name__", "brief"), ("a", "1")]),
            vec![(0, 7.0), (20_000, stale_nan())],
        ),
    ])
}

fn instant(expr: &Expr, seconds: i64) -> Vec<(Labels, f64)> {
    let question = Question {
        time: QueryTime::Instant(at(seconds * 1_000)),
        lookback_ms: None,
    };
    let answer = question.expected(expr, &data()).unwrap();
    answer
        .into_iter()
        .map(|(l, points)| (l, points[0].1))
        .collect()
}

fn value(expr: &Expr, seconds: i64) -> Option<f64> {
    instant(expr, seconds).first().map(|(_, value)| *value)
}

#[test]
fn selectors_look_back_and_stop_at_markers() {
    assert_eq!(value(&metric("up"), 9), Some(0.0));
    assert_eq!(value(&metric("up"), -1), None);
    assert_eq!(value(&metric("up"), 60 + 299), Some(25.0));
    assert_eq!(
        value(&metric("up"), 60 + 300),
        None,
        "the left end is outside"
    );
    assert_eq!(value(&metric("brief"), 19), Some(7.0));
    assert_eq!(value(&metric("brief"), 20), None);
}

#[test]
fn ranges_are_open_on_the_left_and_rates_know_resets() {
    let call = |name, range_ms| Expr::Call(name, vec![range("up", range_ms)]);
    assert_eq!(value(&call("count_over_time", 20_000), 30), Some(2.0));
    assert_eq!(value(&call("sum_over_time", 20_000), 30), Some(50.0));
    assert_eq!(value(&call("resets", 60_000), 60), Some(1.0));
    // 10, 20, 30, then 5, 15, 25: 45 in 50 s, and up to the left end as it is near.
    assert_eq!(value(&call("increase", 60_000), 60), Some(45.0 * 1.2));
    assert_eq!(value(&call("irate", 60_000), 40), Some(0.5));
    let out = instant(&call("rate", 60_000), 60);
    assert_eq!(out[0].0, labels(&[("a", "1")]), "the name is gone");
}

#[test]
fn shifts_and_subqueries_move_time() {
    let shifted = |shift| {
        let Expr::Selector(selector) = metric("up") else {
            unreachable!("just made")
        };
        Expr::Selector(Selector { shift, ..selector })
    };
    let back = Shift {
        offset_ms: 10_000,
        at: None,
    };
    assert_eq!(value(&shifted(back), 30), Some(20.0));
    let fixed = Shift {
        offset_ms: -10_000,
        at: Some(At::Ms(0)),
    };
    assert_eq!(value(&shifted(fixed), 1_000), Some(10.0));
    let subquery = Expr::Subquery {
        inner: Box::new(metric("up")),
        range_ms: 30_000,
        step_ms: Some(10_000),
        shift: Shift::default(),
    };
    let sum = Expr::Call("sum_over_time", vec![subquery]);
    // At 10, 20, 30: the left end, 0, is outside.
    assert_eq!(value(&sum, 30), Some(60.0));
    assert_eq!(
        value(&sum, 39),
        Some(60.0),
        "steps stand still between multiples"
    );
}

#[test]
fn operators_match_by_labels() {
    let binary = |op, right: Expr| Expr::Binary {
        op,
        returns_bool: false,
        matching: Some(Matching {
            on: true,
            labels: vec!["a"],
            group: None,
        }),
        left: Box::new(metric("up")),
        right: Box::new(right),
    };
    assert_eq!(value(&binary("*", metric("brief")), 10), Some(70.0));
    assert_eq!(value(&binary("*", metric("brief")), 30), None);
    assert_eq!(value(&binary("unless", metric("brief")), 30), Some(30.0));
}

#[test]
fn the_comparison_notices_one_wrong_bit() {
    let expr = metric("up");
    let answer = Answer::from([(labels(&[("a", "1")]), vec![(0, 1.0), (1, 2.0)])]);
    let check = |change: fn(&mut Answer)| {
        let mut other = answer.clone();
        change(&mut other);
        let given: Result<Answer, QueryError> = Ok(other);
        difference(&expr, &Ok(answer.clone()), &given)
    };
    let first = |answer: &mut Answer| answer.first_entry().unwrap().into_mut()[0].1 = 1.0;
    assert_eq!(check(first), None);
    let wrongs: [fn(&mut Answer); 5] = [
        |answer| answer.first_entry().unwrap().into_mut()[0].1 = 1.0 + f64::EPSILON,
        |answer| answer.first_entry().unwrap().into_mut()[1].0 = 2,
        |answer| answer.first_entry().unwrap().into_mut().truncate(1),
        |answer| answer.clear(),
        |answer| drop(answer.insert(Labels::new(), vec![(0, 1.0)])),
    ];
    for wrong in wrongs {
        assert!(check(wrong).is_some());
    }
    let refused: Result<Answer, QueryError> = Err(QueryError::Execution("why".to_owned()));
    assert!(difference(&expr, &Ok(answer.clone()), &refused).is_some());
    // Sums may differ in their last bits, and not in more.
    let sum = Expr::Aggregate {
        op: "sum",
        grouping: None,
        param: None,
        inner: Box::new(expr.clone()),
    };
    let near = |value: f64| -> Result<Answer, QueryError> {
        Ok(Answer::from([(Labels::new(), vec![(0, value)])]))
    };
    let one = Ok(near(1.0).unwrap());
    assert_eq!(difference(&sum, &one, &near(1.0 + 1e-13)), None);
    assert!(difference(&sum, &one, &near(1.0 + 1e-11)).is_some());
}
