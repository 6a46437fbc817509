//! Load of one tenant or one address does not slow down other tenants.

mod backlogs;
mod noisy_tenants;
mod request_floods;
mod stalled_uploads;
