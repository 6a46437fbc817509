//! wxgate-simulator
