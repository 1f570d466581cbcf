//! What views there are, for whoever wants to answer from one: read only.

use std::fmt;
use std::sync::Arc;

use millrace_model::TenantId;

use crate::definition::ViewDefinition;
use crate::span::Spans;

/// How much of the time line a view has derived and still holds for true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewCoverage {
    /// Times at which the view answers without raw samples, in every partition. What is outside is
    /// computed from raw samples when it is read, which costs time and never another answer.
    pub derived: Spans,
    /// Of these, the times whose buckets stay as they are because raw samples there have expired: raw
    /// samples no longer give the same answer.
    pub frozen: Spans,
}

/// The views of all tenants. Cheap to ask.
pub trait ViewCatalog: Send + Sync + fmt::Debug {
    /// The views of `tenant`, in order of their names.
    fn views(&self, tenant: &TenantId) -> Vec<Arc<ViewDefinition>>;

    /// What of `view` is derived now. Samples that come later may take some of it away.
    fn coverage(&self, view: &ViewDefinition) -> ViewCoverage;
}
