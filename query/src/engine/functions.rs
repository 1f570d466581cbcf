//! The functions of PromQL and their signatures.

use super::ast::ValueType::{self, Matrix, Scalar, String as Str, Vector};

/// A function's signature.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) args: &'static [ValueType],
    /// 0: as many arguments as types. n > 0: the last type may be missing, or come up to n times.
    /// Negative: the last type may be missing, or come any number of times.
    pub(super) variadic: i8,
    pub(super) returns: ValueType,
}

impl Function {
    /// The type that argument `index` must have.
    pub(super) fn arg_type(&self, index: usize) -> ValueType {
        self.args[index.min(self.args.len() - 1)]
    }
}

/// Finds a function by its name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS
        .binary_search_by(|function| function.name.cmp(name))
        .ok()
        .map(|index| &FUNCTIONS[index])
}

const fn f(
    name: &'static str,
    args: &'static [ValueType],
    variadic: i8,
    returns: ValueType,
) -> Function {
    Function {
        name,
        args,
        variadic,
        returns,
    }
}

/// Instant vector to instant vector.
const fn v(name: &'static str) -> Function {
    f(name, &[Vector], 0, Vector)
}

/// Range vector to instant vector.
const fn m(name: &'static str) -> Function {
    f(name, &[Matrix], 0, Vector)
}

/// Nothing to a number.
const fn s(name: &'static str) -> Function {
    f(name, &[], 0, Scalar)
}

/// A date part of a vector, or of the evaluation time.
const fn d(name: &'static str) -> Function {
    f(name, &[Vector], 1, Vector)
}

/// Sorted by name.
static FUNCTIONS: [Function; 91] = [
    v("abs"),
    v("absent"),
    m("absent_over_time"),
    v("acos"),
    v("acosh"),
    v("asin"),
    v("asinh"),
    v("atan"),
    v("atanh"),
    m("avg_over_time"),
    v("ceil"),
    m("changes"),
    f("clamp", &[Vector, Scalar, Scalar], 0, Vector),
    f("clamp_max", &[Vector, Scalar], 0, Vector),
    f("clamp_min", &[Vector, Scalar], 0, Vector),
    v("cos"),
    v("cosh"),
    m("count_over_time"),
    d("day_of_month"),
    d("day_of_week"),
    d("day_of_year"),
    d("days_in_month"),
    v("deg"),
    m("delta"),
    m("deriv"),
    f(
        "double_exponential_smoothing",
        &[Matrix, Scalar, Scalar],
        0,
        Vector,
    ),
    s("end"),
    v("exp"),
    m("first_over_time"),
    v("floor"),
    v("histogram_avg"),
    v("histogram_count"),
    f("histogram_fraction", &[Scalar, Scalar, Vector], 0, Vector),
    f("histogram_quantile", &[Scalar, Vector], 0, Vector),
    f(
        "histogram_quantiles",
        &[Vector, Str, Scalar, Scalar],
        9,
        Vector,
    ),
    v("histogram_stddev"),
    v("histogram_stdvar"),
    v("histogram_sum"),
    d("hour"),
    m("idelta"),
    m("increase"),
    f("info", &[Vector, Vector], 1, Vector),
    f("integral", &[Matrix, Scalar], 1, Vector),
    m("irate"),
    f("label_join", &[Vector, Str, Str, Str], -1, Vector),
    f("label_replace", &[Vector, Str, Str, Str, Str], 0, Vector),
    m("last_over_time"),
    v("ln"),
    v("log10"),
    v("log2"),
    m("mad_over_time"),
    f("max_of", &[Scalar, Scalar], 0, Scalar),
    m("max_over_time"),
    f("min_of", &[Scalar, Scalar], 0, Scalar),
    m("min_over_time"),
    d("minute"),
    d("month"),
    s("pi"),
    f("predict_linear", &[Matrix, Scalar], 0, Vector),
    m("present_over_time"),
    f("quantile_over_time", &[Scalar, Matrix], 0, Vector),
    v("rad"),
    s("range"),
    m("rate"),
    m("resets"),
    f("round", &[Vector, Scalar], 1, Vector),
    f("scalar", &[Vector], 0, Scalar),
    v("sgn"),
    v("sin"),
    v("sinh"),
    v("sort"),
    f("sort_by_label", &[Vector, Str], -1, Vector),
    f("sort_by_label_desc", &[Vector, Str], -1, Vector),
    v("sort_desc"),
    v("sqrt"),
    s("start"),
    v("start_timestamp"),
    m("stddev_over_time"),
    m("stdvar_over_time"),
    s("step"),
    m("sum_over_time"),
    v("tan"),
    v("tanh"),
    s("time"),
    v("timestamp"),
    m("ts_of_first_over_time"),
    m("ts_of_last_over_time"),
    m("ts_of_max_over_time"),
    m("ts_of_min_over_time"),
    f("vector", &[Scalar], 0, Vector),
    d("year"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_found() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        for function in &FUNCTIONS {
            assert_eq!(find(function.name).map(|f| f.name), Some(function.name));
        }
        assert!(find("nothing").is_none());
    }
}
