//! Figures of who was let in.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// Counted per request and per reload.
#[derive(Clone, Debug)]
pub struct EdgeMetrics {
    /// `millrace_auth_refused_total{reason}`
    pub refused: IntCounterVec,
    /// `millrace_auth_tokens`
    pub tokens: IntGauge,
    /// `millrace_auth_reloads_total{what}`
    pub reloads: IntCounterVec,
    /// `millrace_auth_reload_errors_total{what}`
    pub reload_errors: IntCounterVec,
    /// `millrace_audit_errors_total`
    pub audit_errors: prometheus::IntCounter,
}

impl EdgeMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// If one of the names is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vec = |name: &str, help: &str, label: &str| {
            let vec = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let metrics = Self {
            refused: vec(
                "millrace_auth_refused_total",
                "Requests that were not allowed, by why.",
                "reason",
            )?,
            tokens: IntGauge::new("millrace_auth_tokens", "Tokens in the file, good or not.")?,
            reloads: vec(
                "millrace_auth_reloads_total",
                "Changed files that were taken: tokens, tls, fleet_token.",
                "what",
            )?,
            reload_errors: vec(
                "millrace_auth_reload_errors_total",
                "Looks at a file that cannot be taken; what was there before holds.",
                "what",
            )?,
            audit_errors: prometheus::IntCounter::new(
                "millrace_audit_errors_total",
                "Administrative acts that could not be noted in the audit log.",
            )?,
        };
        registry.register(Box::new(metrics.tokens.clone()))?;
        registry.register(Box::new(metrics.audit_errors.clone()))?;
        Ok(metrics)
    }
}
