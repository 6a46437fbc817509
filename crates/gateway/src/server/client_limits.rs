//! Limits on a resource that many clients use, with a smaller limit for one network: connections, or bytes of unproven
//! requests.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tenancy::{Network, UnprovenLimitReached};

/// The limits of one resource, for all networks and for one network.
#[derive(Debug)]
pub(super) struct ClientLimits {
    of_all: usize,
    of_one: usize,
    taken: Mutex<TakenUnit>,
}

#[derive(Debug, Default)]
struct TakenUnit {
    all: usize,
    by_network: HashMap<Network, usize>,
}

impl ClientLimits {
    /// Creates limits of `of_all` units for all networks, and `of_one` units for one network.
    pub(super) fn new(of_all: usize, of_one: usize) -> Arc<Self> {
        Arc::new(Self {
            of_all,
            of_one,
            taken: Mutex::default(),
        })
    }

    /// An empty share of `network`.
    pub(super) fn share(self: &Arc<Self>, network: Network) -> TakenUnits {
        TakenUnits {
            shares: self.clone(),
            network,
            held: Mutex::new(HeldUnits::Counted(0)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, TakenUnit> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, network: Network, amount: usize) -> Result<(), UnprovenLimitReached> {
        let mut taken = self.lock();
        let of_network = taken.by_network.get(&network).copied().unwrap_or(0);
        if taken.all + amount > self.of_all || of_network + amount > self.of_one {
            return Err(UnprovenLimitReached);
        }
        taken.all += amount;
        taken.by_network.insert(network, of_network + amount);
        Ok(())
    }

    fn give_back(&self, network: Network, amount: usize) {
        let mut taken = self.lock();
        taken.all -= amount;
        if let Entry::Occupied(mut entry) = taken.by_network.entry(network) {
            *entry.get_mut() -= amount;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// The units that one holder has taken. Dropping the share returns the units.
#[derive(Debug)]
pub(super) struct TakenUnits {
    shares: Arc<ClientLimits>,
    network: Network,
    held: Mutex<HeldUnits>,
}

#[derive(Clone, Copy, Debug)]
enum HeldUnits {
    /// The number of units taken.
    Counted(usize),
    /// The share is no longer counted.
    Free,
}

impl TakenUnits {
    /// Takes `amount` more units. Error: a limit is reached.
    pub(super) fn take(&self, amount: usize) -> Result<(), UnprovenLimitReached> {
        let mut held = self.lock();
        if let HeldUnits::Counted(before) = *held {
            self.shares.take(self.network, amount)?;
            *held = HeldUnits::Counted(before + amount);
        }
        Ok(())
    }

    /// Returns all units, and stops counting this share.
    pub(super) fn free(&self) {
        let held = std::mem::replace(&mut *self.lock(), HeldUnits::Free);
        if let HeldUnits::Counted(amount) = held {
            self.shares.give_back(self.network, amount);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HeldUnits> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TakenUnits {
    fn drop(&mut self) {
        self.free();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn network(last: u8) -> Network {
        Network::of(Ipv4Addr::new(192, 0, 2, last).into())
    }

    #[test]
    fn one_network_has_its_share_and_all_have_what_there_is() {
        let shares = ClientLimits::new(10, 4);
        let (one, other, third) = (
            shares.share(network(1)),
            shares.share(network(2)),
            shares.share(network(3)),
        );
        assert_eq!(one.take(4), Ok(()));
        assert_eq!(shares.share(network(1)).take(1), Err(UnprovenLimitReached));
        assert_eq!(
            (other.take(4), third.take(3)),
            (Ok(()), Err(UnprovenLimitReached))
        );
        drop(other);
        assert_eq!(third.take(4), Ok(()));
        one.free();
        assert_eq!(one.take(1_000_000), Ok(()), "it is not counted any more");
        assert_eq!(shares.share(network(1)).take(4), Ok(()));
        drop((one, third));
        assert_eq!(shares.lock().all, 0);
        assert!(shares.lock().by_network.is_empty());
    }
}
