//! wxgate
