//! Who pushes.

use millrace_model::TenantId;

/// Who pushes, and what that brings with it: whoever authenticates requests in front of
/// [`Ingest::router`](crate::Ingest::router) puts one into the request's extensions. A request
/// without one is of the anonymous tenant.
#[derive(Clone, Debug)]
pub struct PushContext {
    /// Whose series these are.
    pub tenant: TenantId,
    /// Labels that every series of the request gets. What the request itself says under these
    /// names is passed over. Never `__name__`, and no name twice.
    pub forced_labels: Vec<(String, String)>,
}

impl Default for PushContext {
    fn default() -> Self {
        Self {
            tenant: TenantId::anonymous(),
            forced_labels: Vec::new(),
        }
    }
}

impl PushContext {
    /// Adds labels that the request asks for, such as the grouping of a Pushgateway path; those
    /// that are forced already stand.
    pub(crate) fn add_labels(&mut self, labels: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in labels {
            if !self.forced_labels.iter().any(|(forced, _)| *forced == name) {
                self.forced_labels.push((name, value));
            }
        }
    }
}
