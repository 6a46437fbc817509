//! wxgate-api
