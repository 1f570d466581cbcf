//! Series of deltas, which say so with `__temporality__="delta"`: what a counter would have grown by is
//! the sum of those that end in the window.

use crate::{run, script};

const SCRIPT: &str = r#"
load 1m
  d_total{__temporality__="delta"} 1 2 3 4 0 6 _ _ _ _ _ 8
  d_bucket{__temporality__="delta", le="1"} 0 1 1 1 1
  d_bucket{__temporality__="delta", le="2"} 0 2 2 2 2
  d_bucket{__temporality__="delta", le="+Inf"} 0 2 2 2 2
  c_total 1 3 6 10 10 16
  m_total{__temporality__="cumulative"} 1 3 6 10 10 16

eval instant at 5m increase(d_total[5m])
  {__temporality__="delta"} 15

eval instant at 5m sum(rate(d_total[5m]))
  {} 0.05

# A window is left-open, and one delta is enough.
eval instant at 1m increase(d_total[1m])
  {__temporality__="delta"} 2

eval instant at 10m increase(d_total[4m])

# Longer gaps, and a fall that would be a reset of a counter.
eval instant at 11m increase(d_total[12m])
  {__temporality__="delta"} 24

eval instant at 5m irate(d_total[5m])
  {__temporality__="delta"} 0.1

eval instant at 11m irate(d_total[10m])
  {__temporality__="delta"} 0.022222222222222223

eval range from 1m to 4m step 1m increase(d_total[2m])
  {__temporality__="delta"} 3 5 7 4

# The edges that counters are measured at make no difference.
eval instant at 5m increase(d_total[5m] anchored)
  {__temporality__="delta"} 15

eval instant at 4m histogram_quantile(0.5, sum by (le) (rate(d_bucket[4m])))
  {} 1

# What is not a function of counters sees samples as they are.
eval instant at 5m sum_over_time(d_total[5m])
  {__temporality__="delta"} 15

eval instant at 5m d_total
  d_total{__temporality__="delta"} 6

# Another temporality is none of this.
eval instant at 5m sum(increase(m_total[5m])) - sum(increase(c_total[5m]))
  {} 0
"#;

#[test]
fn deltas_are_added_up_where_counters_are_subtracted() {
    let commands = script::parse(SCRIPT).unwrap();
    let report = run::run(&commands);
    assert_eq!(report.failed, []);
    assert_eq!((report.passed, report.skipped.len()), (13, 0));
}
