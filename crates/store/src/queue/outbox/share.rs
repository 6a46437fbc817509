//! The division of a replica's slots among tenants.
//!
//! A post to an endpoint that hangs holds a slot until the post is given up. So no tenant gets more than a quarter of
//! the slots that the other tenants leave, and endpoints with a failed last attempt get at most half, of a tenant's
//! slots and of all slots.
//!
//! Each replica divides its own slots only. The limits for one endpoint (`PlatformStore::claim_deliveries`) hold over
//! all replicas.

use std::collections::{BTreeMap, VecDeque};

use domain::id::TenantId;
use uuid::Uuid;

/// A tenant gets one part in this many of the slots that the other tenants leave.
const TENANT: usize = 4;
/// Failing endpoints get one part in this many of a tenant's slots, and of all slots.
const FAILING: usize = 2;

/// The slots that posts hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldSlots {
    /// All held slots.
    pub all: usize,
    /// The slots of posts to endpoints with a failed last attempt.
    pub failing: usize,
}

/// The slots of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// The number of slots that a claim may fill.
    pub free: usize,
    /// The slots that posts in flight hold, by tenant.
    pub held: BTreeMap<TenantId, HeldSlots>,
}

/// The due deliveries of one endpoint, the first due one first.
#[derive(Debug)]
pub(super) struct Queue<T> {
    pub(super) tenant: Uuid,
    pub(super) failing: bool,
    pub(super) due: VecDeque<T>,
}

impl Slots {
    /// Whether the tenant may hold one more slot, for an endpoint that does not fail.
    pub(super) fn has_room(&self, tenant: Uuid) -> bool {
        let own = self.of(tenant).all;
        own < self.share(own)
    }

    fn of(&self, tenant: Uuid) -> HeldSlots {
        let held = self.held.get(&TenantId::from(tenant));
        held.copied().unwrap_or_default()
    }

    fn share(&self, own: usize) -> usize {
        (self.free + own).div_ceil(TENANT)
    }

    /// Takes a slot for the tenant. Returns false if no slot may be taken.
    fn take(&mut self, tenant: Uuid, failing: bool) -> bool {
        let own = self.of(tenant);
        let share = self.share(own.all);
        let all = self.free + self.held.values().map(|held| held.all).sum::<usize>();
        let all_failing: usize = self.held.values().map(|held| held.failing).sum();
        let fits = own.all < share
            && (!failing
                || own.failing < share.div_ceil(FAILING) && all_failing < all.div_ceil(FAILING));
        if self.free == 0 || !fits {
            return false;
        }
        self.free -= 1;
        let held = self.held.entry(tenant.into()).or_default();
        held.all += 1;
        held.failing += usize::from(failing);
        true
    }

    /// Gives slots to due deliveries: one tenant after the other, and in each tenant one endpoint after the other,
    /// endpoints that do not fail first. Returns the deliveries with a slot, and the last tenant that got a slot if the
    /// slots ran out.
    pub(super) fn share_out<T>(mut self, mut queues: Vec<Queue<T>>) -> (Vec<T>, Option<Uuid>) {
        // The tenants in the order of the ids.
        let mut tenants: Vec<(Uuid, VecDeque<Queue<T>>)> = Vec::new();
        queues.sort_by_key(|queue| queue.failing);
        let mut order: Vec<Uuid> = queues.iter().map(|queue| queue.tenant).collect();
        order.sort_unstable();
        order.dedup();
        for tenant in order {
            let own = queues.extract_if(.., |queue| queue.tenant == tenant);
            tenants.push((tenant, own.collect()));
        }
        let (mut taken, mut last) = (Vec::new(), None);
        while !tenants.is_empty() {
            for (tenant, own) in &mut tenants {
                if self.free == 0 {
                    return (taken, last);
                }
                taken.extend(self.one_of(own));
                last = Some(*tenant);
            }
            tenants.retain(|(_, own)| !own.is_empty());
        }
        (taken, None)
    }

    /// The next delivery of one tenant that may have a slot. Drops the endpoints that may not have a slot.
    fn one_of<T>(&mut self, own: &mut VecDeque<Queue<T>>) -> Option<T> {
        while let Some(mut queue) = own.pop_front() {
            if queue.due.is_empty() || !self.take(queue.tenant, queue.failing) {
                continue;
            }
            let first = queue.due.pop_front();
            own.push_back(queue);
            return first;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn queue(number: u128, failing: bool, count: usize) -> Queue<(u128, bool)> {
        Queue {
            tenant: tenant(number),
            failing,
            due: vec![(number, failing); count].into(),
        }
    }

    fn slots(free: usize) -> Slots {
        Slots {
            free,
            ..Slots::default()
        }
    }

    fn of(taken: &[(u128, bool)], number: u128) -> usize {
        taken.iter().filter(|one| one.0 == number).count()
    }

    #[test]
    fn a_tenant_gets_a_quarter() {
        let endpoints = || (0..20).map(|_| queue(1, false, 8)).collect::<Vec<_>>();
        let (taken, last) = slots(128).share_out(endpoints());
        assert_eq!((taken.len(), last), (32, None));
        let mut held = slots(96);
        held.held.insert(
            tenant(1).into(),
            HeldSlots {
                all: 32,
                failing: 0,
            },
        );
        assert!(!held.has_room(tenant(1)) && held.has_room(tenant(2)));
        assert_eq!(held.share_out(endpoints()).0, []);
    }

    #[test]
    fn tenants_that_take_all_they_get_leave_some_to_the_next() {
        let mut slots = slots(128);
        for number in 1..=12 {
            while slots.take(tenant(number), false) {}
        }
        assert!(slots.take(tenant(13), false), "{slots:?}");
    }

    #[test]
    fn tenants_take_turns_and_the_next_claim_goes_on_behind_the_last() {
        let queues = vec![queue(1, false, 8), queue(2, false, 1), queue(3, false, 8)];
        let (taken, last) = slots(16).share_out(queues);
        assert_eq!((of(&taken, 1), of(&taken, 2), of(&taken, 3)), (3, 1, 3));
        assert_eq!(last, None);
        let queues = (1..=3).map(|number| queue(number, false, 8)).collect();
        let (taken, last) = slots(2).share_out(queues);
        assert_eq!((taken.len(), last), (2, Some(tenant(2))));
    }

    #[test]
    fn endpoints_that_fail_come_last_and_get_half() {
        let mut queues: Vec<_> = (0..20).map(|_| queue(1, true, 8)).collect();
        queues.push(queue(1, false, 8));
        let (taken, _) = slots(128).share_out(queues);
        let failing = taken.iter().filter(|one| one.1).count();
        assert_eq!((failing, taken.len() - failing, taken[0].1), (16, 8, false));
        let many = (1..=40).flat_map(|number| [queue(number, true, 8), queue(number, true, 8)]);
        let (taken, _) = slots(128).share_out(many.collect());
        assert_eq!(taken.len(), 64, "half of all");
    }
}
