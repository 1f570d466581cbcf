//! What a scrape came to.

use std::time::Duration;

/// What a scrape came to: what the report series say, and what is kept of the target.
#[derive(Clone, Debug, Default)]
pub struct ScrapeOutcome {
    /// Why the target counts as down; `None` if it is up.
    pub error: Option<String>,
    /// The limit that the scrape is over, if that is why.
    pub exceeded: Option<&'static str>,
    /// Samples of a good scrape that are not stored: of series beyond a limit of their tenant, or at a
    /// time that is not taken.
    pub refused: u64,
    /// The first of them: where it stands, and why.
    pub refusal: Option<String>,
    /// From its beginning until everything was decoded.
    pub duration: Duration,
    /// `scrape_samples_scraped`
    pub samples: u64,
    /// `scrape_samples_post_metric_relabeling`
    pub samples_kept: u64,
    /// `scrape_series_added`
    pub series_new: u64,
    /// Staleness markers.
    pub markers: u64,
    /// Samples that came twice for one series and moment; the first is stored.
    pub duplicates: u64,
    /// Samples, markers and report series that were stored.
    pub stored: u64,
}
