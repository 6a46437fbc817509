//! wxgate-store
