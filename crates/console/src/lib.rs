//! wxgate-console
