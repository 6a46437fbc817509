//! Rules that hold for every operation: problems, repeated and conditional requests, forms of values, HTTP itself.

mod canonical_values;
mod clients;
mod conditional_requests;
mod exact_numbers;
pub(crate) mod hostile_requests;
mod idempotency;
mod problems;
mod transport;
