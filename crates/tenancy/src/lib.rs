//! wxgate-tenancy
