//! How far a long command is: a bar on a terminal, now and then a line elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shown on standard error, so that output stays clean.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    unit: &'static str,
    total: u64,
    done: u64,
    begun: Instant,
    printed: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins at 0 of `total`.
    #[must_use]
    pub fn new(what: &'static str, unit: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let style = ProgressStyle::with_template(
                "{prefix} {wide_bar} {human_pos}/{human_len} {msg}, {per_sec}, {eta} left",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(what);
            bar.set_message(unit);
            bar
        });
        let now = Instant::now();
        Self {
            what,
            unit,
            total,
            done: 0,
            begun: now,
            printed: now,
            bar,
        }
    }

    /// It is now at `done`.
    pub fn set(&mut self, done: u64) {
        self.done = done;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.printed.elapsed() >= LINE_EVERY {
            self.printed = Instant::now();
            eprintln!("{}", self.line());
        }
    }

    /// The last word.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{}", self.line());
    }

    fn line(&self) -> String {
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = self.done as f64 / seconds.max(1e-3);
        let left = self.total.saturating_sub(self.done);
        let end = if left == 0 {
            format!("in {seconds:.1} s")
        } else if self.done == 0 {
            "not begun".to_owned()
        } else {
            format!("{:.0} s left", left as f64 / rate)
        };
        format!(
            "{}: {}/{} {} ({rate:.0}/s), {end}",
            self.what, self.done, self.total, self.unit
        )
    }
}
