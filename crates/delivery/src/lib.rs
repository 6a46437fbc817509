//! wxgate-delivery
