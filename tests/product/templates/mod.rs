//! Templates, and the check of messages against templates.

mod after_registration;
mod lenient_value_rules;
mod sync_metrics;
mod validation;
