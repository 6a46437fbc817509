//! wxgate-broker
