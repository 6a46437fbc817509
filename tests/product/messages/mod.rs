//! The life of a message as its tenant sees the message.

mod batches;
mod cancel;
mod idempotency;
mod manual_retry;
mod reading;
mod repeats;
mod schedules_and_expiry;
mod sending;
