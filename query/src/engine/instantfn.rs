//! Functions of instant vectors that look at one value at a time.

use super::block::{ABSENT, Block, is_absent};
use super::math;

/// A function of a value, and perhaps of numbers that have a value per step.
#[derive(Clone, Copy)]
pub(super) enum InstantFn {
    Plain(fn(f64) -> f64),
    Clamp,
    ClampMin,
    ClampMax,
    Round,
}

pub(super) fn find(name: &str) -> Option<InstantFn> {
    let plain: fn(f64) -> f64 = match name {
        "abs" => f64::abs,
        "acos" => f64::acos,
        "acosh" => acosh,
        "asin" => f64::asin,
        "asinh" => f64::asinh,
        "atan" => f64::atan,
        "atanh" => f64::atanh,
        "ceil" => f64::ceil,
        "cos" => f64::cos,
        "cosh" => f64::cosh,
        "deg" => |v| v * 180.0 / std::f64::consts::PI,
        "exp" => f64::exp,
        "floor" => f64::floor,
        "ln" => f64::ln,
        "log10" => f64::log10,
        "log2" => f64::log2,
        "rad" => |v| v * std::f64::consts::PI / 180.0,
        "sgn" => sign,
        "sin" => f64::sin,
        "sinh" => f64::sinh,
        "sqrt" => f64::sqrt,
        "tan" => f64::tan,
        "tanh" => f64::tanh,
        "clamp" => return Some(InstantFn::Clamp),
        "clamp_min" => return Some(InstantFn::ClampMin),
        "clamp_max" => return Some(InstantFn::ClampMax),
        "round" => return Some(InstantFn::Round),
        _ => return None,
    };
    Some(InstantFn::Plain(plain))
}

pub(super) fn apply(function: InstantFn, params: &[Vec<f64>], block: &mut Block) {
    match function {
        InstantFn::Plain(f) => block.map(|_, v| f(v)),
        InstantFn::ClampMin => block.map(|step, v| math::max(params[0][step], v)),
        InstantFn::ClampMax => block.map(|step, v| math::min(params[0][step], v)),
        InstantFn::Clamp => {
            let (low, high) = (&params[0], &params[1]);
            block.map(|step, v| math::max(low[step], math::min(high[step], v)));
            for (step, _) in low.iter().zip(high).enumerate().filter(|(_, (l, h))| h < l) {
                for index in 0..block.len() {
                    let value = &mut block.row_mut(index)[step];
                    if !is_absent(*value) {
                        *value = ABSENT;
                    }
                }
            }
        }
        InstantFn::Round => match params.first() {
            None => block.map(|_, v| (v + 0.5).floor()),
            // The inverse, because it seems to lose less.
            Some(to) => block.map(|step, v| {
                let inverse = 1.0 / to[step];
                (v * inverse + 0.5).floor() / inverse
            }),
        },
    }
}

/// Below 1 there is none; the standard library's formula is exact only above.
fn acosh(value: f64) -> f64 {
    if value < 1.0 { f64::NAN } else { value.acosh() }
}

/// -1, 1, or the value itself where it is zero or NaN.
fn sign(value: f64) -> f64 {
    if value < 0.0 {
        -1.0
    } else if value > 0.0 {
        1.0
    } else {
        value
    }
}
