//! A queue in which tenants take turns: deficit round robin by cost.
//!
//! Invariants:
//! - What one tenant put in comes out in its order.
//! - While several tenants wait, each gets about the same cost served in the long run, whatever the
//!   others put in: before an item comes out, every other waiting tenant has been served at most one
//!   [`QUANTUM`] and one item more than its own share.
//! - Nothing is kept of a tenant that does not wait.

use std::collections::{HashMap, VecDeque};

use millrace_model::TenantId;

/// Cost that a tenant is served in one turn. Large enough that small items go out in one sweep, small
/// against what an append or a decoding thread does in the time that a client notices.
const QUANTUM: usize = 256 << 10;

/// The queue. How much may wait in it is up to whoever puts it in.
#[derive(Debug)]
pub struct FairQueue<T> {
    /// Tenants in the order of their turns; exactly those that have something waiting.
    turns: VecDeque<TenantId>,
    waiting: HashMap<TenantId, Waiting<T>>,
    len: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    items: VecDeque<(usize, T)>,
    /// Cost that may be served before the turn ends.
    credit: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            turns: VecDeque::new(),
            waiting: HashMap::new(),
            len: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// Number of items that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of items of one tenant that wait.
    #[must_use]
    pub fn len_of(&self, tenant: &TenantId) -> usize {
        self.waiting.get(tenant).map_or(0, |of| of.items.len())
    }

    /// Puts an item behind those of its tenant. `cost` is in any unit, of which a turn serves
    /// 262,144: bytes.
    pub fn push(&mut self, tenant: &TenantId, cost: usize, item: T) {
        self.len += 1;
        if let Some(of_tenant) = self.waiting.get_mut(tenant) {
            of_tenant.items.push_back((cost, item));
            return;
        }
        self.turns.push_back(tenant.clone());
        let first = Waiting {
            items: VecDeque::from([(cost, item)]),
            credit: QUANTUM,
        };
        self.waiting.insert(tenant.clone(), first);
    }

    /// The cost of what [`pop`](Self::pop) would give.
    pub fn next_cost(&mut self) -> Option<usize> {
        loop {
            let alone = self.turns.len() == 1;
            let of_tenant = self.waiting.get_mut(self.turns.front()?)?;
            let (cost, _) = of_tenant.items.front()?;
            if alone {
                // Whoever comes shall not find a debt or a credit of the time before.
                of_tenant.credit = QUANTUM.max(*cost);
            }
            if *cost <= of_tenant.credit {
                return Some(*cost);
            }
            // The next one's turn; this one goes on with what it has saved.
            of_tenant.credit += QUANTUM;
            self.turns.rotate_left(1);
        }
    }

    /// Takes the item whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let cost = self.next_cost()?;
        let tenant = self.turns.front()?;
        let of_tenant = self.waiting.get_mut(tenant)?;
        let (_, item) = of_tenant.items.pop_front()?;
        of_tenant.credit = of_tenant.credit.saturating_sub(cost);
        self.len -= 1;
        if of_tenant.items.is_empty() {
            self.waiting.remove(tenant);
            self.turns.pop_front();
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    fn drain(queue: &mut FairQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn one_tenant_alone_is_served_in_its_order_whatever_things_cost() {
        let mut queue = FairQueue::default();
        let a = tenant("a");
        for i in 0..10 {
            queue.push(&a, (i as usize) * QUANTUM, i);
        }
        assert_eq!((queue.len(), queue.len_of(&a)), (10, 10));
        assert_eq!(drain(&mut queue), (0..10).collect::<Vec<_>>());
        assert!(queue.is_empty() && queue.turns.is_empty() && queue.waiting.is_empty());
        assert_eq!(queue.next_cost(), None);
    }

    #[test]
    fn a_quiet_tenant_waits_for_one_turn_of_a_flood_at_most() {
        let mut queue = FairQueue::default();
        let (flood, quiet) = (tenant("flood"), tenant("quiet"));
        for i in 0..1000 {
            queue.push(&flood, QUANTUM / 4, i);
        }
        queue.pop();
        queue.push(&quiet, 100, 5000);
        let order = drain(&mut queue);
        let at = order.iter().position(|i| *i == 5000).unwrap();
        assert!(at <= 4, "behind {at} others");
        let flood: Vec<u32> = order.into_iter().filter(|i| *i < 5000).collect();
        assert_eq!(flood, (1..1000).collect::<Vec<_>>());
    }

    #[test]
    fn cost_is_shared_and_not_the_number_of_items() {
        let mut queue = FairQueue::default();
        let (large, small) = (tenant("large"), tenant("small"));
        for i in 0..100 {
            queue.push(&large, 3 * QUANTUM, i);
        }
        for i in 0..3000 {
            queue.push(&small, QUANTUM / 10, 1000 + i);
        }
        let (mut of_large, mut of_small) = (0, 0);
        for _ in 0..1000 {
            match queue.pop().unwrap() {
                ..1000 => of_large += 3 * QUANTUM,
                1000.. => of_small += QUANTUM / 10,
            }
        }
        let apart = of_large.abs_diff(of_small);
        assert!(apart <= 4 * QUANTUM, "{of_large} and {of_small}");
    }
}
