//! What subscribers select, each selection once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use millrace_model::{Labels, Matcher, TenantId};
use parking_lot::Mutex;

/// Which series: of one tenant, those that pass all matchers of one of the sets.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Whose.
    pub tenant: TenantId,
    /// At least one.
    pub sets: Vec<Vec<Matcher>>,
}

impl Filter {
    /// Whether a series of the tenant is selected.
    #[must_use]
    pub fn passes(&self, labels: &Labels) -> bool {
        let all = |set: &Vec<Matcher>| set.iter().all(|matcher| matcher.matches_labels(labels));
        self.sets.iter().any(all)
    }

    /// Equal texts select the same.
    fn text(&self) -> String {
        format!("{} {:?}", self.tenant.as_str(), self.sets)
    }
}

/// The number of a selection: later ones have higher numbers, and none is given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FilterId(pub(crate) u64);

/// A selection with its number.
#[derive(Debug)]
pub(crate) struct Numbered {
    pub(crate) id: FilterId,
    pub(crate) filter: Filter,
}

/// The selections at a moment. Immutable.
#[derive(Clone, Debug, Default)]
pub(crate) struct FilterSet {
    /// No selection in here has a higher number, and every one that will come has.
    pub(crate) newest: u64,
    /// In order of their numbers.
    by_tenant: HashMap<TenantId, Vec<Arc<Numbered>>>,
}

impl FilterSet {
    /// One selection alone.
    pub(crate) fn of_one(filter: &Arc<Numbered>) -> Self {
        Self {
            newest: filter.id.0,
            by_tenant: HashMap::from([(filter.filter.tenant.clone(), vec![Arc::clone(filter)])]),
        }
    }

    /// Those of a tenant, in order of their numbers.
    pub(crate) fn of(&self, tenant: &TenantId) -> &[Arc<Numbered>] {
        self.by_tenant.get(tenant).map_or(&[], Vec::as_slice)
    }
}

/// All selections, each with the number of its subscribers.
#[derive(Debug, Default)]
pub(crate) struct Filters(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_text: BTreeMap<String, (Arc<Numbered>, usize)>,
    set: Arc<FilterSet>,
}

impl Filters {
    /// The number of a selection, for one more subscriber.
    pub(crate) fn enter(&self, filter: Filter) -> Arc<Numbered> {
        let text = filter.text();
        let mut table = self.0.lock();
        if let Some((known, subscribers)) = table.by_text.get_mut(&text) {
            *subscribers += 1;
            return Arc::clone(known);
        }
        let mut set = FilterSet::clone(&table.set);
        set.newest += 1;
        let numbered = Arc::new(Numbered {
            id: FilterId(set.newest),
            filter,
        });
        let of_tenant = set.by_tenant.entry(numbered.filter.tenant.clone());
        of_tenant.or_default().push(Arc::clone(&numbered));
        table.set = Arc::new(set);
        table.by_text.insert(text, (Arc::clone(&numbered), 1));
        numbered
    }

    /// One subscriber less.
    pub(crate) fn leave(&self, numbered: &Numbered) {
        let text = numbered.filter.text();
        let mut table = self.0.lock();
        let Some((_, subscribers)) = table.by_text.get_mut(&text) else {
            return;
        };
        *subscribers -= 1;
        if *subscribers > 0 {
            return;
        }
        table.by_text.remove(&text);
        let mut set = FilterSet::clone(&table.set);
        if let Some(of_tenant) = set.by_tenant.get_mut(&numbered.filter.tenant) {
            of_tenant.retain(|other| other.id != numbered.id);
            if of_tenant.is_empty() {
                set.by_tenant.remove(&numbered.filter.tenant);
            }
        }
        table.set = Arc::new(set);
    }

    /// The selections now.
    pub(crate) fn now(&self) -> Arc<FilterSet> {
        Arc::clone(&self.0.lock().set)
    }
}
