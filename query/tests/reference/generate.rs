//! Random expressions.
//!
//! They are well typed, and mostly have an answer. One thing is kept out of their way: in a range
//! query an operation that removes names refuses two series that become the same, and whether two
//! that are never there at the same moment count as two is decided otherwise by each
//! implementation. So what may carry several metrics' names is not given to such an operation. Nor
//! is a standard deviation, whose last bits depend on the order of its series, given to what makes
//! a leap of a last bit: a comparison, or a label.

use crate::data::{INTERVAL_MS, SAMPLES};
use crate::expr::{ARITHMETIC, At, COMPARISONS, Expr, Group, Matching, Selector, Shift};
use crate::random::Random;

/// Which names the series of a vector may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    None,
    One(&'static str),
    Several,
}

pub struct Generator<'a> {
    pub random: &'a mut Random,
    /// The first moment of the data.
    pub base: i64,
}

const METRICS: [&str; 7] = ["c_total", "d_total", "g", "s", "w", "o", "nothing"];

const RANGE_FUNCTIONS: [&str; 20] = [
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "deriv",
    "changes",
    "resets",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "present_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "quantile_over_time",
    "predict_linear",
    "absent_over_time",
];

const MAPS: [&str; 12] = [
    "abs",
    "ceil",
    "floor",
    "sqrt",
    "ln",
    "exp",
    "sgn",
    "round",
    "clamp",
    "clamp_min",
    "clamp_max",
    "timestamp",
];

impl Generator<'_> {
    /// An expression that is an instant vector or a number.
    pub fn query(&mut self) -> Expr {
        match self.random.below(20) {
            0 => self.scalar(2),
            1 => {
                let op = *self.random.pick(&["topk", "bottomk"]);
                let k = self.random.between(0, 4) as f64;
                Expr::Aggregate {
                    op,
                    grouping: self.grouping(),
                    param: Some(Box::new(Expr::Number(k))),
                    inner: Box::new(self.vector(2)),
                }
            }
            2 => {
                let mut selector = self.selector();
                selector.name = None;
                selector.tests.push(("a", "!=", ""));
                Expr::Selector(selector)
            }
            3 => {
                let name = *self.random.pick(&["sort", "sort_desc"]);
                Expr::Call(name, vec![self.plain(2)])
            }
            _ => self.vector(3),
        }
    }

    /// A range vector, for an instant query.
    pub fn window(&mut self) -> Expr {
        self.range_argument(2)
    }

    fn vector(&mut self, depth: usize) -> Expr {
        if depth == 0 || self.random.one_in(6) {
            return Expr::Selector(self.selector());
        }
        let depth = depth - 1;
        match self.random.below(16) {
            0..=4 => self.range_function(depth),
            5..=8 => self.aggregate(depth),
            9..=11 => self.vectors_joined(depth),
            12 => self.with_scalar(depth),
            13 => self.mapped(depth),
            14 => Expr::Negate(Box::new(self.plain(depth))),
            _ => self.other(depth),
        }
    }

    /// A vector whose series carry one name at most.
    fn plain(&mut self, depth: usize) -> Expr {
        loop {
            let vector = self.vector(depth);
            if names(&vector) != Names::Several {
                return vector;
            }
        }
    }

    fn scalar(&mut self, depth: usize) -> Expr {
        if depth == 0 {
            return Expr::Number(self.number());
        }
        match self.random.below(8) {
            0 => Expr::Call("scalar", vec![self.vector(depth - 1)]),
            1 => Expr::Call("time", Vec::new()),
            2 => {
                let op = *self.random.pick(&ARITHMETIC);
                let sides = (self.scalar(depth - 1), self.scalar(depth - 1));
                binary(op, false, sides)
            }
            3 => {
                let op = *self.random.pick(&COMPARISONS);
                let sides = (self.scalar(depth - 1), self.scalar(depth - 1));
                binary(op, true, sides)
            }
            _ => Expr::Number(self.number()),
        }
    }

    fn number(&mut self) -> f64 {
        match self.random.below(10) {
            0 => *self
                .random
                .pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
            1 => *self.random.pick(&[0.0, 1e-9, 1e17, 0.1]),
            2..=4 => (self.random.unit() * 1_280.0 - 640.0).floor() / 64.0,
            _ => self.random.between(-3, 5) as f64,
        }
    }

    fn selector(&mut self) -> Selector {
        // The last of them is not there.
        let metric = if self.random.one_in(30) {
            METRICS.len() - 1
        } else {
            self.random.below(METRICS.len() - 1)
        };
        Selector {
            name: Some(METRICS[metric]),
            tests: self.tests(),
            shift: self.shift(),
        }
    }

    fn tests(&mut self) -> Vec<(&'static str, &'static str, &'static str)> {
        const TESTS: [(&str, &str, &str); 11] = [
            ("a", "=", "1"),
            ("a", "!=", "2"),
            ("a", "=~", "1|3"),
            ("a", "!~", "1.*"),
            ("a", "=~", ".+"),
            ("b", "=", "x"),
            ("b", "=", ""),
            ("b", "=~", "x|"),
            ("b", "!=", ""),
            ("zone", "=~", ".*"),
            ("zone", "!~", "n"),
        ];
        let count = *self.random.pick(&[0, 0, 0, 1, 1, 2]);
        (0..count).map(|_| *self.random.pick(&TESTS)).collect()
    }

    fn shift(&mut self) -> Shift {
        if !self.random.one_in(4) {
            return Shift::default();
        }
        let at = match self.random.below(6) {
            0 => Some(At::Start),
            1 => Some(At::End),
            2 => Some(At::Ms(self.moment())),
            _ => None,
        };
        let offset_ms = *self
            .random
            .pick(&[0, 15_000, 60_000, 300_000, -30_000, 1, -7_001]);
        Shift { offset_ms, at }
    }

    /// Somewhere in the data, or shortly before or after them.
    pub fn moment(&mut self) -> i64 {
        let margin = 6 * 60_000;
        let moment = self.base + self.random.between(-margin, SAMPLES * INTERVAL_MS + margin);
        match self.random.below(3) {
            0 => moment.div_euclid(INTERVAL_MS) * INTERVAL_MS,
            1 => moment.div_euclid(1_000) * 1_000,
            _ => moment,
        }
    }

    fn range_ms(&mut self) -> i64 {
        *self.random.pick(&[
            1, 14_000, 15_000, 29_999, 30_000, 45_000, 60_000, 60_001, 120_000, 300_000, 600_000,
        ])
    }

    fn range_argument(&mut self, depth: usize) -> Expr {
        if depth == 0 || !self.random.one_in(4) {
            let range_ms = self.range_ms();
            return Expr::Range(self.selector(), range_ms);
        }
        // One subquery at most in a subquery, or the naive evaluator takes for ever.
        let inner = if self.random.one_in(3) {
            self.plain(depth - 1)
        } else {
            Expr::Selector(self.selector())
        };
        let mut nested = 0;
        inner.walk(&mut |expr| nested += usize::from(matches!(expr, Expr::Subquery { .. })));
        let inner = if nested > 1 {
            Expr::Selector(self.selector())
        } else {
            inner
        };
        Expr::Subquery {
            inner: Box::new(inner),
            range_ms: *self.random.pick(&[15_000, 60_000, 150_000, 300_000]),
            step_ms: *self.random.pick(&[
                None,
                Some(15_000),
                Some(30_000),
                Some(60_000),
                Some(17_003),
            ]),
            shift: self.shift(),
        }
    }

    fn range_function(&mut self, depth: usize) -> Expr {
        let name = *self.random.pick(&RANGE_FUNCTIONS);
        let range = self.range_argument(depth);
        let args = match name {
            "quantile_over_time" => vec![self.quantile(), range],
            "predict_linear" => vec![range, Expr::Number(self.number())],
            _ => vec![range],
        };
        Expr::Call(name, args)
    }

    fn quantile(&mut self) -> Expr {
        Expr::Number(
            *self
                .random
                .pick(&[0.0, 0.25, 0.5, 0.9, 1.0, 1.5, -1.0, f64::NAN]),
        )
    }

    fn grouping(&mut self) -> Option<(bool, Vec<&'static str>)> {
        const LABELS: [&[&str]; 7] = [
            &[],
            &["a"],
            &["b"],
            &["a", "b"],
            &["zone"],
            &["b", "zone"],
            &["none"],
        ];
        let without = match self.random.below(3) {
            0 => return None,
            1 => true,
            _ => false,
        };
        Some((without, self.random.pick(&LABELS).to_vec()))
    }

    fn aggregate(&mut self, depth: usize) -> Expr {
        let op = *self.random.pick(&[
            "sum",
            "sum",
            "avg",
            "count",
            "min",
            "max",
            "group",
            "stddev",
            "stdvar",
            "quantile",
            "count_values",
        ]);
        let param = match op {
            "quantile" => Some(Box::new(self.quantile())),
            "count_values" => Some(Box::new(Expr::Text("v".to_owned()))),
            _ => None,
        };
        let inner = if self.random.one_in(6) {
            Expr::Selector(Selector {
                name: None,
                tests: vec![("a", "=~", ".+")],
                shift: self.shift(),
            })
        } else {
            self.vector(depth)
        };
        let (op, param) = match op {
            "count_values" if wobbles(&inner) => ("count", None),
            op => (op, param),
        };
        Expr::Aggregate {
            op,
            grouping: self.grouping(),
            param,
            inner: Box::new(inner),
        }
    }

    fn vectors_joined(&mut self, depth: usize) -> Expr {
        let left = self.plain(depth);
        let right = self.plain(depth);
        let on = self.random.one_in(2);
        let labels = match (on, self.random.below(3)) {
            (true, 0) => vec!["a"],
            (true, _) => vec!["a", "b"],
            (false, 0) => vec!["b", "zone"],
            (false, 1) => vec!["zone"],
            (false, _) => vec![],
        };
        let mut matching = (on || !labels.is_empty()).then_some(Matching {
            on,
            labels,
            group: None,
        });
        let op = match self.random.below(8) {
            0 => "and",
            1 => "unless",
            2 if names(&left) == names(&right) => "or",
            3 | 4 if !wobbles(&left) && !wobbles(&right) => *self.random.pick(&COMPARISONS),
            _ => *self.random.pick(&ARITHMETIC),
        };
        let compares = COMPARISONS.contains(&op);
        if let Some(matching) = &mut matching
            && (compares || ARITHMETIC.contains(&op))
            && self.random.one_in(2)
        {
            matching.group = Some(Group {
                left: self.random.one_in(2),
                include: self.random.pick(&[&[][..], &["zone"]]).to_vec(),
            });
        }
        Expr::Binary {
            op,
            returns_bool: compares && self.random.one_in(2),
            matching,
            left: Box::new(left),
            right: Box::new(right),
        }
    }

    fn with_scalar(&mut self, depth: usize) -> Expr {
        let vector = self.plain(depth);
        let scalar = self.scalar(depth);
        let (left, right) = if self.random.one_in(2) {
            (vector, scalar)
        } else {
            (scalar, vector)
        };
        if self.random.one_in(2) && !wobbles(&left) && !wobbles(&right) {
            let op = *self.random.pick(&COMPARISONS);
            let returns_bool = self.random.one_in(2);
            binary(op, returns_bool, (left, right))
        } else {
            let op = *self.random.pick(&ARITHMETIC);
            binary(op, false, (left, right))
        }
    }

    fn mapped(&mut self, depth: usize) -> Expr {
        let inner = self.plain(depth);
        let name = match *self.random.pick(&MAPS) {
            // They make a leap of a last bit.
            "ceil" | "floor" | "round" | "sgn" if wobbles(&inner) => "abs",
            name => name,
        };
        let mut args = vec![inner];
        match name {
            "clamp" => args.extend([self.scalar(1), self.scalar(1)]),
            "clamp_min" | "clamp_max" => args.push(self.scalar(1)),
            "round" if self.random.one_in(2) => {
                args.push(Expr::Number(*self.random.pick(&[0.1, 0.5, 5.0, 1.0])));
            }
            _ => {}
        }
        Expr::Call(name, args)
    }

    fn other(&mut self, depth: usize) -> Expr {
        match self.random.below(4) {
            0 => Expr::Call("vector", vec![self.scalar(depth)]),
            1 => Expr::Call("absent", vec![self.vector(depth)]),
            2 => {
                // Into a label of its own, so that no two series become the same.
                let texts = ["n", "<$1>", "a", "([12])"];
                let texts = texts.map(|text| Expr::Text(text.to_owned()));
                let mut args = vec![self.plain(depth)];
                args.extend(texts);
                Expr::Call("label_replace", args)
            }
            _ => Expr::Call("sort", vec![self.plain(depth)]),
        }
    }
}

fn binary(op: &'static str, returns_bool: bool, (left, right): (Expr, Expr)) -> Expr {
    Expr::Binary {
        op,
        returns_bool,
        matching: None,
        left: Box::new(left),
        right: Box::new(right),
    }
}

fn wobbles(expr: &Expr) -> bool {
    let mut found = false;
    expr.walk(&mut |part| {
        found |= matches!(
            part,
            Expr::Aggregate {
                op: "stddev" | "stdvar",
                ..
            }
        );
    });
    found
}

fn names(expr: &Expr) -> Names {
    match expr {
        Expr::Selector(selector) | Expr::Range(selector, _) => {
            selector.name.map_or(Names::Several, Names::One)
        }
        Expr::Subquery { inner, .. } => names(inner),
        Expr::Call("last_over_time" | "label_replace" | "sort" | "sort_desc", args) => {
            names(&args[0])
        }
        Expr::Binary {
            op,
            returns_bool,
            left,
            right,
            ..
        } => match *op {
            "or" if names(left) == names(right) => names(left),
            "or" => Names::Several,
            "and" | "unless" => names(left),
            op if COMPARISONS.contains(&op) && !returns_bool => {
                // With one number the vector's side; else the side of the many, whichever it is.
                match (left.is_scalar(), right.is_scalar()) {
                    (true, _) => names(right),
                    (_, true) => names(left),
                    _ if names(left) == names(right) => names(left),
                    _ => Names::Several,
                }
            }
            _ => Names::None,
        },
        Expr::Aggregate {
            op: "topk" | "bottomk",
            inner,
            ..
        } => names(inner),
        Expr::Number(_)
        | Expr::Text(_)
        | Expr::Call(..)
        | Expr::Aggregate { .. }
        | Expr::Negate(_) => Names::None,
    }
}
