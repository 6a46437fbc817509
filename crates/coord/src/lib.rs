//! wxgate-coord
