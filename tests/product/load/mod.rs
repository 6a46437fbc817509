//! Tenants beside each other: load of one tenant or address does not slow down the others.

mod backlogs;
mod noisy_tenants;
mod request_floods;
mod stalled_uploads;
