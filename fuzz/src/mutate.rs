//! Inputs out of other inputs.

/// Longest input that is made.
const MAX_BYTES: usize = 64 << 10;

/// What the language and the protocol are made of.
const WORDS: &[&str] = &[
    "sum",
    "by",
    "without",
    "(",
    ")",
    "[5m]",
    "[5m:1m]",
    "{",
    "}",
    "{a=~\"",
    "\"",
    "offset",
    "@",
    "start()",
    "end()",
    "rate(",
    "topk(",
    "quantile(",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "and",
    "or",
    "unless",
    "==",
    "=~",
    "!~",
    "^",
    "-",
    "+",
    "*",
    "/",
    "%",
    "atan2",
    "1e999",
    "NaN",
    "Inf",
    "-0",
    "9223372036854775807",
    "0x",
    "5m",
    "290y",
    "1ms",
    ",",
    ":",
    "#",
    "\\",
    "\\x",
    "\\u{",
    "'",
    "`",
    "__name__",
    "le",
    "histogram_quantile(",
    "label_replace(",
    "count_values(",
    "absent_over_time(",
    "fill(",
    "anchored",
    "smoothed",
    "limitk(",
    "step()",
    "range()",
    ".*",
    "(a{9}){9}",
    "query=",
    "&",
    "time=",
    "start=",
    "step=",
    "match[]=",
    "%",
    "%00",
    "\n",
    "GET ",
    "POST ",
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/label/",
    "/api/v1/series",
    "é",
    "\u{fffd}",
    "\0",
];

/// A repeatable sequence of numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Any seed will do.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One of `0..count`; 0 if there is none.
    pub fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.bits() >> 33).unwrap_or(0) % count.max(1)
    }
}

/// A new input: one of the corpus, changed a few times.
///
/// # Panics
///
/// If the corpus is empty.
pub fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        change(&mut input, corpus, random);
    }
    input.truncate(MAX_BYTES);
    input
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let some = |input: &[u8], random: &mut Random| {
        let from = random.below(input.len());
        let to = (from + 1 + random.below(24)).min(input.len());
        from..to
    };
    match random.below(7) {
        0 => {
            let word = WORDS[random.below(WORDS.len())];
            input.splice(at..at, word.bytes());
        }
        1 if !input.is_empty() => {
            input.drain(some(input, random));
        }
        2 if !input.is_empty() => {
            let part = input[some(input, random)].to_vec();
            let times = 1 << random.below(8);
            input.splice(at..at, part.repeat(times));
        }
        3 => {
            let other = &corpus[random.below(corpus.len())];
            let part = other[some(other, random)].to_vec();
            input.splice(at..at, part);
        }
        4 => input.insert(at, (random.bits() & 0xff) as u8),
        5 if at < input.len() => input[at] ^= 1 << random.below(8),
        _ if at < input.len() => {
            input.remove(at);
        }
        _ => {}
    }
}
