//! wxgate-migrations
